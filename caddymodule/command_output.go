package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/warderhq/warder/managementapi"
)

const (
	formatTable = "table"
	formatJSON  = "json"
	formatEnv   = "env"
)

// chooseFormat judges --json and --format before anything is done.
func (s *session) chooseFormat() error {
	s.format = s.text("format")
	if s.on("json") {
		if s.format != "" && s.format != formatJSON {
			return usagef("--json and --format %s contradict each other", s.format)
		}
		s.format = formatJSON
	}
	switch s.format {
	case "":
		s.format = formatTable
	case formatTable, formatJSON:
	case formatEnv:
		if !s.showsSecret() {
			return usagef("--format env exists only where a secret is shown: keys create, rotate and regenerate")
		}
	default:
		return usagef("--format: must be table, json or env")
	}
	return nil
}

// showsSecret reports whether the command is one that makes a secret.
func (s *session) showsSecret() bool { return s.cmd.Annotations[annotationSecret] != "" }

const annotationSecret = "shows a secret"

// decode reads an answer; raw is what --json prints instead.
func decode[T any](raw json.RawMessage) (v T, err error) {
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("reading the server's answer: %w", err)
	}
	return v, nil
}

func (s *session) printJSON(raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	return s.print(strings.TrimSpace(b.String()) + "\n")
}

// print fails loudly: a secret that was not written is lost.
func (s *session) print(text string) error {
	if _, err := s.out.Write([]byte(text)); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

func (s *session) printTable(rows [][]string) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return s.print(b.String())
}

// printable keeps what others have stored from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// printIssued prints a key with its secret.
func (s *session) printIssued(raw json.RawMessage) error {
	key, err := decode[managementapi.IssuedKey](raw)
	if err != nil {
		return err
	}
	if f, ok := s.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.cmd.PrintErrln("The secret is shown only now. Keep it in a safe place.")
	}
	switch s.format {
	case formatJSON:
		return s.printJSON(raw)
	case formatEnv:
		return s.print(environment(&key))
	default:
		rows := append(describe(&key.Key),
			[]string{"Secret key", key.SecretKey.Reveal()},
			[]string{"API key", key.APIKey.Reveal()})
		return s.printTable(rows)
	}
}

// environment is for eval in a POSIX shell; exported, so that what the shell
// starts next has them, too.
func environment(key *managementapi.IssuedKey) string {
	var b strings.Builder
	for _, v := range [][2]string{
		{"WARDER_KEY_ID", string(key.ID)},
		{"WARDER_API_KEY", key.APIKey.Reveal()},
		{"WARDER_ACCESS_KEY", string(key.AccessKey)},
		{"WARDER_SECRET_KEY", key.SecretKey.Reveal()},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuoted(v[1]))
	}
	return b.String()
}

func shellQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// printKey prints everything about one key.
func (s *session) printKey(raw json.RawMessage) error {
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	key, err := decode[managementapi.Key](raw)
	if err != nil {
		return err
	}
	return s.printTable(describe(&key))
}

func describe(k *managementapi.Key) [][]string {
	rows := [][]string{
		{"ID", string(k.ID)},
		{"Name", dash(k.Name)},
		{"Organization", k.Organization},
		{"Type", k.Type},
		{"State", k.State},
		{"Scopes", dash(strings.Join(k.Scopes, " "))},
		{"Expiry", k.Expires},
		{"Expires at", instant(k.ExpiresAt)},
		{"Created at", instant(&k.CreatedAt)},
		{"Metadata", string(k.Metadata)},
		{"Generation", strconv.FormatUint(k.Generation, 10)},
	}
	if k.GraceEnd != nil {
		rows = append(rows, []string{"Old secret until", instant(k.GraceEnd)})
	}
	if k.Blocked && k.Deactivated {
		rows = append(rows, []string{"Deactivated too", "yes"}) // unblocking alone will not let it pass
	}
	return append(rows, []string{"Access key", string(k.AccessKey)})
}

// printKeys prints keys in one table.
func (s *session) printKeys(keys []managementapi.Key) error {
	rows := [][]string{{"ID", "NAME", "ORGANIZATION", "TYPE", "STATE", "EXPIRY", "SCOPES", "ACCESS KEY"}}
	for i := range keys {
		k := &keys[i]
		rows = append(rows, []string{
			string(k.ID), dash(k.Name), k.Organization, k.Type, k.State, k.Expires,
			dash(strings.Join(k.Scopes, " ")), string(k.AccessKey),
		})
	}
	return s.printTable(rows)
}

// printChanged prints a key after a change of its state.
func (s *session) printChanged(raw json.RawMessage) error {
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	key, err := decode[managementapi.Key](raw)
	if err != nil {
		return err
	}
	return s.printKeys([]managementapi.Key{key})
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func instant(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
