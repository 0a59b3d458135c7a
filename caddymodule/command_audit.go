package caddymodule

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func auditCommand() caddycmd.Command {
	return topCommand(leaf{"audit", "Shows who changed what, and who was refused", auditFlags, showAudit}, `Shows who changed what, when and from where, and who tried to and was refused;
the latest first. The table shortens what was changed; --json has all of it.`)
}

const auditRows = 100 // by default: the log only grows

func auditFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("organization", "", "Only what concerns this organization")
	flags.String("actor", "", "Only what this key did, by id, or local")
	flags.String("operation", "", "Only this operation, such as keys.rotate")
	flags.String("object", "", "Only what was done to this key, organization or permission")
	flags.Bool("refused", false, "Only refused attempts; with --refused=false, only changes")
	flags.String("since", "", "From this time or day on")
	flags.String("until", "", "Before this time or day")
	limitFlag(cmd, auditRows, "100")
}

func showAudit(s *session) error {
	limit, err := s.limit()
	if err != nil {
		return err
	}
	query := s.filters("organization", "actor", "operation", "object")
	if s.given("refused") {
		query.Set("refused", map[bool]string{true: "true", false: "false"}[s.on("refused")])
	}
	for _, flag := range []string{"since", "until"} {
		if !s.given(flag) {
			continue
		}
		at, err := s.moment(flag)
		if err != nil {
			return err
		}
		query.Set(flag, at.UTC().Format(time.RFC3339))
	}
	all, err := s.all("audit", query, limit)
	if err != nil {
		return err
	}
	return printAll(s, all, auditHead, auditRow)
}

var auditHead = []string{"AT", "ACTOR", "FROM", "OPERATION", "OBJECT", "ORGANIZATION", "WHAT"}

func auditRow(e *managementapi.AuditEntry) []string {
	what := ""
	if e.Refused != nil {
		what = "refused: " + *e.Refused
	} else {
		what = changeText(e.Before, e.After)
	}
	return []string{instant(&e.At), e.Actor, dash(e.From), e.Operation, dash(e.Object), dash(e.Organization), shortened(what)}
}

// changeText says what differs between two states; none is null.
func changeText(before, after json.RawMessage) string {
	was, is := members(before), members(after)
	switch {
	case was == nil && is == nil:
		return ""
	case was == nil:
		return "made"
	case is == nil:
		return "deleted"
	}
	both := maps.Clone(was)
	maps.Copy(both, is)
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(both)) {
		changes = append(changes, name+": "+dash(string(was[name]))+" → "+dash(string(is[name])))
	}
	return strings.Join(changes, ", ")
}

// members reads an object; nil: there is none.
func members(raw json.RawMessage) (object map[string]json.RawMessage) {
	_ = json.Unmarshal(raw, &object) // null, and nothing, stay nil
	return object
}

const maxChangeText = 100

func shortened(text string) string {
	if runes := []rune(text); len(runes) > maxChangeText {
		return string(runes[:maxChangeText-1]) + "…"
	}
	return dash(text)
}
