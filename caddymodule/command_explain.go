package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

func explainCommand() caddycmd.Command {
	return topCommand(leaf{"explain", "Says why a credential passes or is refused", explainFlags, explain}, `Reads a credential from standard input and makes the checks of a gate on it, in
their order: which pass, which one refuses and what to do about it, and which
are not reached. It counts as no use of the key and takes nothing from its
limit; nothing keeps the credential.

It can be an API key, its pair access_key:secret_key, an access token, or all
that stands behind "Authorization:". Without --from, networks are not asked,
without --path no permissions.

Exit codes beside those below: 0 it passes; 5 it is refused.`)
}

func explainFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("method", "", "Method of the request (default GET, if there is --path)")
	flags.String("path", "", "Path of the request")
	flags.String("from", "", "IP address that the request comes from")
	flags.StringArray("require-scope", nil, "Scope that the gate requires; may be repeated")
	flags.StringArray("require-type", nil, "Type of keys that the gate lets pass; may be repeated")
}

func explain(s *session) error {
	credential, err := s.readCredential()
	if err != nil {
		return err
	}
	body := map[string]any{"credential": credential.Reveal()}
	for flag, member := range map[string]string{"method": "method", "path": "path", "from": "from"} {
		if s.given(flag) {
			body[member] = s.text(flag)
		}
	}
	for flag, member := range map[string]string{"require-scope": "require_scopes", "require-type": "require_types"} {
		if s.given(flag) {
			body[member] = s.words(flag)
		}
	}
	raw, err := s.client.Call(s.cmd.Context(), managementapi.Request{Method: http.MethodPost, Path: []string{"explain"}, Body: body})
	if err != nil {
		return err
	}
	explanation, err := decode[managementapi.Explanation](raw)
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		err = s.printJSON(raw)
	} else {
		err = s.printTable(explained(&explanation))
	}
	if err == nil && explanation.Refusal != nil {
		return refusedWith(explanation.Refusal)
	}
	return err
}

// readCredential reads what is piped in or, without showing it, typed.
func (s *session) readCredential() (keystore.Secret, error) {
	in := s.cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.cmd.PrintErr("Credential: ")
		typed, err := term.ReadPassword(int(f.Fd()))
		s.cmd.PrintErrln()
		if err != nil {
			return "", fmt.Errorf("reading the credential: %w", err)
		}
		return keystore.Secret(strings.TrimSpace(string(typed))), nil
	}
	text, err := io.ReadAll(io.LimitReader(in, maxCredentialFile))
	if err != nil {
		return "", fmt.Errorf("reading the credential: %w", err)
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return "", usagef("there is no credential on standard input")
	}
	return keystore.Secret(strings.TrimSpace(string(text))), nil
}

// refusedWith is how the command ends: as a gate would.
func refusedWith(r *managementapi.Refusal) error {
	name := r.Code
	if r.Reason != "" {
		name += " (" + r.Reason + ")"
	}
	code := exitState
	if r.Status >= http.StatusInternalServerError {
		code = exitUnavailable
	}
	return &outcomeError{code, printable(fmt.Sprintf("would be refused: %d %s: %s", r.Status, name, r.Detail))}
}

// resultMarks begin a line, so that the one that refuses is seen at once.
var resultMarks = map[string]string{
	managementapi.CheckPassed: "ok", managementapi.CheckRefused: "!!", managementapi.CheckUndecided: "??",
	managementapi.CheckNotReached: "--", managementapi.CheckNotAsked: "--",
}

func explained(e *managementapi.Explanation) [][]string {
	rows := [][]string{{"", "credential", e.Credential, ""}}
	if k := e.Key; k != nil {
		rows = append(rows, []string{"", "key", k.State, fmt.Sprintf("%s, name %s, organization %s, scopes %s", k.ID, dash(k.Name), k.Organization, dash(strings.Join(k.Scopes, " ")))})
	}
	for _, c := range e.Checks {
		text := c.Asks
		switch c.Result {
		case managementapi.CheckRefused, managementapi.CheckUndecided:
			text = c.Remedy
		case managementapi.CheckNotAsked:
			text = askedWith[c.Check]
		case managementapi.CheckNotReached:
			text = ""
		}
		rows = append(rows, []string{resultMarks[c.Result], c.Check, strings.ReplaceAll(c.Result, "_", " "), text})
	}
	return rows
}

// askedWith are the flags that a check needs.
var askedWith = map[string]string{
	keystore.CheckPath.String(): "it needs --path", keystore.CheckPermission.String(): "it needs --path", keystore.CheckNetwork.String(): "it needs --from",
	keystore.CheckType.String(): "it needs --require-type", keystore.CheckScope.String(): "it needs --require-scope",
}
