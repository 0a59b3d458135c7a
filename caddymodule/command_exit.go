package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

// Exit codes of the commands, as commandNotes documents them.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitState       = 5
	exitForbidden   = 6
	exitUnavailable = 7
)

// usageError is a mistake in the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// fail reports err in one line, and returns what makes Caddy's main end with
// its exit code and print nothing more. Nil stays nil.
func fail(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	cmd.PrintErrln("warder: " + sentence(err))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	code := exitCode(err)
	if code == exitFailed {
		return err
	}
	// The error type that carries a code is Caddy's own; this is its maker.
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}

func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if errors.Is(err, managementapi.ErrUnreachable) || errors.Is(err, managementapi.ErrNotWarder) {
		return exitUnreachable
	}
	if p, ok := errors.AsType[*managementapi.Problem](err); ok {
		return exitCodeOf(p)
	}
	return exitFailed
}

func exitCodeOf(p *managementapi.Problem) int {
	switch p.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return exitUsage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitForbidden
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity:
		return exitState
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if p.Code == "not_configured" {
			return exitUnreachable
		}
		return exitUnavailable
	default:
		return exitFailed
	}
}

// flagOf names the flag behind a field of the API.
var flagOf = map[string]string{
	"name": "--name", "scopes": "--scope", "metadata": "--metadata", "type": "--type",
	"organization": "--organization", "slug": "--organization",
	"expires_at": "--expires-at", "expires_in_days": "--expires-in", "days": "--days",
	"default_expiry_days": "--default-expiry", "maximum_expiry_days": "--maximum-expiry",
	"allowed_scopes": "--allowed-scope", "state": "--state", "limit": "--limit",
	"Idempotency-Key": "--idempotency-key", "If-Match": "--if-match",
}

// sentence is what people read: the flag to blame, the reason, the remedy.
func sentence(err error) string {
	if p, ok := errors.AsType[*managementapi.Problem](err); ok {
		place := p.Parameter + p.Header
		if p.Pointer != "" {
			place, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimPrefix(p.Pointer, "/key"), "/"), "/")
		}
		text := p.Detail
		if flag, ok := flagOf[place]; ok {
			text = flag + ": " + text
		} else if place != "" {
			text = place + ": " + text
		}
		if p.KeyID != "" {
			text += " (" + string(p.KeyID) + ")"
		}
		return text
	}
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	switch {
	case errors.Is(err, managementapi.ErrUnreachable):
		return text + "; start the server, or name its admin endpoint with --address"
	case errors.Is(err, managementapi.ErrNotWarder):
		return text + "; name the admin endpoint of a Warder with --address"
	}
	return text
}
