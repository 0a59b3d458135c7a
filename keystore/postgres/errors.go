package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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
	codeReadOnly = "25006"
	codeDeadlock = "40P01"

	classConnection = "08"
	classData       = "22"
	classConstraint = "23"
	classResources  = "53"
	classNotReady   = "55"
	classOperator   = "57"
)

// damage are the codes of pages, and of indexes, that are broken, and of
// tables and columns that are missing.
var damage = map[string]bool{"XX001": true, "XX002": true, "42P01": true, "42703": true}

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

// refusal is failure at start. It is no ErrUnavailable if waiting will not do.
func refusal(ctx context.Context, doing, name string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w", doing, name, ctx.Err())
	case passes(err):
		return fmt.Errorf("%s %s: %w: %w", doing, name, keystore.ErrUnavailable, plain(err))
	default:
		return fmt.Errorf("%s %s: %w", doing, name, plain(err))
	}
}

// passes reports whether an error may be gone the next time: nobody answered,
// or a server that has no place, that stops, or that somebody else is busy with.
func passes(err error) bool {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return inClass(err, classConnection, classResources, classNotReady, classOperator) || answer.Code == codeReadOnly
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || isContextEnd(err) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}

// plain leaves out what an error of pgx carries along, its configuration with
// the password above all, keeps our own time-out apart from the caller's, and
// marks damage.
func plain(err error) error {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		err = &inOneLine{errors.Unwrap(connect)}
	}
	var answer *pgconn.PgError
	switch {
	case errors.As(err, &answer) && damage[answer.Code]:
		return fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	case answer == nil && (isContextEnd(err) || pgconn.Timeout(err)):
		return fmt.Errorf("%w (%v)", errNoAnswer, err)
	default:
		return err
	}
}

// inOneLine is what all hosts answered.
type inOneLine struct{ error }

func (e *inOneLine) Error() string { return strings.ReplaceAll(e.error.Error(), "\n", "; ") }
func (e *inOneLine) Unwrap() error { return e.error }

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

// inClass reports whether the server answered with a code that begins so.
func inClass(err error, classes ...string) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && slices.ContainsFunc(classes, func(class string) bool { return strings.HasPrefix(answer.Code, class) })
}

// lost reports whether a connection is of no more use, to whoever asked and to
// all others beside it: it broke, or it no longer leads to the primary.
func lost(conn *pgx.Conn, err error) bool {
	return err != nil && (conn.IsClosed() || inClass(err, codeReadOnly) || errors.Is(err, errStandby))
}
