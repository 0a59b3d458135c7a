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

// printValue prints what no server has answered as JSON.
func (s *session) printValue(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.printJSON(raw)
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

// printOne prints everything about one thing.
func printOne[T any](s *session, raw json.RawMessage, describe func(*T) [][]string) error {
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	one, err := decode[T](raw)
	if err != nil {
		return err
	}
	return s.printTable(describe(&one))
}

// printAll prints many in one table.
func printAll[T any](s *session, all []json.RawMessage, head []string, row func(*T) []string) error {
	list, err := json.Marshal(append([]json.RawMessage{}, all...))
	if err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if s.format == formatJSON {
		return s.printJSON(list)
	}
	decoded, err := decode[[]T](list)
	if err != nil {
		return err
	}
	rows := [][]string{head}
	for i := range decoded {
		rows = append(rows, row(&decoded[i]))
	}
	return s.printTable(rows)
}

// printDeleted says that a thing is gone.
func (s *session) printDeleted(raw json.RawMessage, name string) error {
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	return s.print("deleted " + printable(name) + "\n")
}

// printIssued prints a key with its secret, unless that goes into a file.
func (s *session) printIssued(raw json.RawMessage) error {
	key, err := decode[managementapi.IssuedKey](raw)
	if err != nil {
		return err
	}
	if s.keyFile != nil {
		if err := s.keyFile.append(&key); err != nil {
			return err
		}
		return s.printTable(describe(&key.Key))
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
		{"WARDER_ACCESS_KEY", accessKey(&key.Key)},
		{"WARDER_SECRET_KEY", key.SecretKey.Reveal()},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuoted(v[1]))
	}
	return b.String()
}

func shellQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// printKey prints everything about one key.
func (s *session) printKey(raw json.RawMessage) error { return printOne(s, raw, describe) }

func describe(k *managementapi.Key) [][]string {
	rows := [][]string{
		{"ID", string(k.ID)},
		{"Name", dash(k.Name)},
		{"Organization", k.Organization},
		{"Type", k.Type},
		{"State", k.State},
		{"Scopes", dash(strings.Join(k.Scopes, " "))},
		{"Permissions", dash(strings.Join(k.Permissions, " "))},
		{"Networks", orWord(strings.Join(k.Networks, " "), "any")},
		{"Limit", orNull(k.Limit, "the organization's")},
		{"Expiry", k.Expires},
		{"Expires at", instant(k.ExpiresAt)},
		{"Created at", instant(&k.CreatedAt)},
		{"Last used at", instant(k.LastUsedAt)},
		{"Metadata", string(k.Metadata)},
		{"Generation", strconv.FormatUint(k.Generation, 10)},
	}
	if k.Previous != nil && k.GraceEnd != nil {
		rows = append(rows,
			[]string{"Old secret until", instant(k.GraceEnd)},
			[]string{"Old secret last used at", instant(k.Previous.LastUsedAt)})
	}
	if k.Blocked && k.Deactivated {
		rows = append(rows, []string{"Deactivated too", "yes"}) // unblocking alone will not let it pass
	}
	return append(rows, []string{"Access key", accessKey(k)})
}

var keyHead = []string{"ID", "NAME", "ORGANIZATION", "TYPE", "STATE", "EXPIRY", "SCOPES", "ACCESS KEY", "LAST USED AT"}

func keyRow(k *managementapi.Key) []string {
	return []string{
		string(k.ID), dash(k.Name), k.Organization, k.Type, k.State, k.Expires,
		dash(strings.Join(k.Scopes, " ")), accessKey(k), instant(k.LastUsedAt),
	}
}

// accessKey says of a credential from another system that it has none.
func accessKey(k *managementapi.Key) string {
	if k.Imported {
		return "(imported)"
	}
	return string(k.AccessKey)
}

// printChanged prints a key after a change of its state.
func (s *session) printChanged(raw json.RawMessage) error {
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	return printAll(s, []json.RawMessage{raw}, keyHead, keyRow)
}

func orWord(text, word string) string {
	if text == "" {
		return word
	}
	return text
}

func orNull(text *string, word string) string {
	if text == nil {
		return word
	}
	return *text
}

func dash(text string) string { return orWord(text, "-") }

func instant(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// emptyInstant is for programs: none is the empty text.
func emptyInstant(t *time.Time) string {
	if t == nil {
		return ""
	}
	return instant(t)
}
