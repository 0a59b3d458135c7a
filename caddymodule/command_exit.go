package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/keystore"
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
	exitUnseen      = 8
)

// usageError is a mistake in the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// outcomeError is a failure that names its exit code itself.
type outcomeError struct {
	code int
	text string
}

func (e *outcomeError) Error() string { return e.text }

func statef(format string, args ...any) error {
	return &outcomeError{exitState, fmt.Sprintf(format, args...)}
}

func notFoundf(format string, args ...any) error {
	return &outcomeError{exitNotFound, fmt.Sprintf(format, args...)}
}

// fail reports err in one line, and returns what makes Caddy's main end with
// its exit code and print nothing more. Nil stays nil.
func fail(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	cmd.PrintErrln("warder: " + sentence(cmd, err))
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
	if e, ok := errors.AsType[*outcomeError](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*lineError](err); ok {
		return e.code
	}
	if errors.Is(err, keystore.ErrStoreInUse) {
		return exitState
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

// sentence is what people read: the flag to blame, the reason, the remedy.
func sentence(cmd *cobra.Command, err error) string {
	if e, ok := errors.AsType[*interruptedError](err); ok {
		return (&interruptedError{errors.New(sentence(cmd, e.err)), e.done}).Error()
	}
	if p, ok := errors.AsType[*managementapi.Problem](err); ok {
		return problemSentence(cmd, p)
	}
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	place := "its admin endpoint with --address"
	if flag := cmd.Flags().Lookup("url"); flag != nil && flag.Changed {
		place = "where it is with --url"
	}
	switch {
	case errors.Is(err, managementapi.ErrUnreachable):
		return text + "; start the server, or name " + place
	case errors.Is(err, managementapi.ErrNotWarder):
		return text + "; name " + strings.Replace(place, "its admin endpoint", "the admin endpoint of a Warder", 1)
	}
	return text
}

func problemSentence(cmd *cobra.Command, p *managementapi.Problem) string {
	text := p.Detail
	if place := blamed(cmd, p); place != "" {
		text = place + ": " + text
	}
	if names := concerned(p); len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	if p.Status == http.StatusUnauthorized {
		text += "; give another in " + credentialVariable + " or with --credential-file"
	}
	return text
}

// blamed returns the flag that a refusal is about; if there is none, the field,
// parameter or header. An organization's first key has flags of its own.
func blamed(cmd *cobra.Command, p *managementapi.Problem) string {
	place := p.Parameter + p.Header
	ofKey := false
	if p.Pointer != "" {
		place, ofKey = strings.CutPrefix(strings.TrimPrefix(p.Pointer, "/"), "key/")
		place, _, _ = strings.Cut(place, "/")
	}
	flag, ok := flagOf(cmd, place)
	if own := strings.Replace(flag, "--", "--key-", 1); ofKey && hasFlag(cmd, own) {
		return own
	}
	if ok {
		return flag
	}
	return place
}

const maxConcerned = 10

// concerned names what else a refusal is about.
func concerned(p *managementapi.Problem) (names []string) {
	if p.KeyID != "" {
		names = append(names, string(p.KeyID))
	}
	for _, id := range p.Keys {
		names = append(names, string(id))
	}
	names = append(names, p.Organizations...)
	if more := len(names) - maxConcerned; more > 0 {
		names = append(names[:maxConcerned], fmt.Sprintf("and %d more", more))
	}
	return names
}
