package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/warderhq/warder/keystore"
)

var (
	// errClosed is what a store answers after Close.
	errClosed = errors.New("store is closed")
	// errNoAnswer stands for the end of a time that the store itself allows,
	// which must not be taken for the end of the caller's.
	errNoAnswer = errors.New("no answer in time")
)

// SQLSTATE codes, of which the first two characters are the class.
const (
	codeReadOnly        = "25006"
	codeUndefinedTable  = "42P01"
	codeUndefinedColumn = "42703"

	classData       = "22"
	classConstraint = "23"
	classDamage     = "XX" // internal errors; XX001 and XX002 are damage
)

// conflicts are the constraints that two callers may run into.
var conflicts = map[string]error{
	"keys_name":          keystore.ErrNameTaken,
	"organizations_slug": keystore.ErrOrganizationExists,
	"aliases_pkey":       keystore.ErrCredentialTaken,
}

// failure turns an error of PostgreSQL or the network into the store's own:
// ErrUnavailable, for damage ErrCorrupt too. The end of the caller's context
// stays what it is, for it says nothing about the store; nor does what was put
// and contradicts what the store holds.
func (s *Store) failure(ctx context.Context, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && (isContextEnd(err) || pgconn.Timeout(err)):
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case errors.Is(err, keystore.ErrPositionLost):
		return fmt.Errorf("%s: %w", doing, err)
	case inClass(err, classData), inClass(err, classConstraint):
		return fmt.Errorf("%s in %s: %w", doing, s.name, markConflict(err))
	default:
		return fmt.Errorf("%s in %s: %w: %w", doing, s.name, keystore.ErrUnavailable, plain(err))
	}
}

// refusal is failure at start: an error that does not pass by waiting is no
// ErrUnavailable.
func refusal(doing, name string, err error) error {
	if isCode(err, "") && !inClass(err, "08", "53", "57") || isOurs(err) {
		return fmt.Errorf("%s %s: %w", doing, name, plain(err))
	}
	return fmt.Errorf("%s %s: %w: %w", doing, name, keystore.ErrUnavailable, plain(err))
}

func isOurs(err error) bool {
	return errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, keystore.ErrNewerSchema) || errors.Is(err, errUnsuitable)
}

// plain leaves out what an error of pgx carries along, its configuration with
// the password above all, keeps our own time-out apart from the caller's, and
// marks damage.
func plain(err error) error {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		err = fmt.Errorf("connecting: %w", errors.Unwrap(connect))
	}
	var answer *pgconn.PgError
	switch {
	case errors.As(err, &answer):
		if answer.Code == codeUndefinedTable || answer.Code == codeUndefinedColumn || answer.Code == "XX001" || answer.Code == "XX002" {
			return fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
		}
		return err
	case isContextEnd(err) || pgconn.Timeout(err):
		return fmt.Errorf("%w (%s)", errNoAnswer, strings.ReplaceAll(err.Error(), "\n", " "))
	default:
		return err
	}
}

func markConflict(err error) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		if known := conflicts[answer.ConstraintName]; known != nil {
			return fmt.Errorf("%w: %w", known, err)
		}
	}
	return err
}

func isContextEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// isCode reports whether the server itself answered with this SQLSTATE, or,
// for "", with any.
func isCode(err error, code string) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && (code == "" || answer.Code == code)
}

func inClass(err error, classes ...string) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false
	}
	for _, class := range classes {
		if strings.HasPrefix(answer.Code, class) {
			return true
		}
	}
	return false
}

// lost reports whether a connection is of no more use, to whoever asked and to
// all others beside it: it broke, or it no longer leads to the primary.
func lost(conn *pgx.Conn, err error) bool {
	return err != nil && (conn.IsClosed() || isCode(err, codeReadOnly) || errors.Is(err, errStandby))
}
