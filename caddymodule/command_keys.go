package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func keyCommands() []*cobra.Command {
	commands := []*cobra.Command{
		secretLeaf(leaf{"create", "Makes a key and shows its secret, once", createKeyFlags, createKey}),
		leaf{"list", "Lists keys", listKeysFlags, listKeys}.command(),
		leaf{"get <id>", "Shows a key, without its secret", nil, getKey}.command(),
		leaf{"update <id>", "Changes what a key may do, its name or metadata", updateKeyFlags, updateKey}.changing(),
		secretLeaf(leaf{"rotate <id>", "Gives a key a new secret; the old one passes for the grace period", rotateKeyFlags, rotateKey}),
		leaf{"grace <id>", "Moves the end of the grace period, in which a key's old secret passes", graceKeyFlags, graceKey}.changing(),
		secretLeaf(leaf{"regenerate <id>", "Gives a key a new access key and secret; all older is dead at once", regenerateKeyFlags, regenerateKey}),
		leaf{"renew <id>", "Moves a key's expiry; an expired key lives again", renewKeyFlags, renewKey}.changing(),
		leaf{"delete <id>...", "Deletes keys for good, by their ids or all that have expired", deleteKeysFlags, deleteKeys}.changing(),
	}
	for _, verb := range [][2]string{
		{"expire", "Ends a key's life now"},
		{"activate", "Takes a deactivation back"},
		{"deactivate", "Lets a key rest; its owner's switch"},
		{"block", "Refuses a key; the administrator's switch"},
		{"unblock", "Takes a block back"},
	} {
		commands = append(commands, leaf{verb[0] + " <id>", verb[1], nil, changeKey(verb[0])}.changing())
	}
	return commands
}

// secretLeaf is a leaf whose result holds a secret.
func secretLeaf(l leaf) *cobra.Command {
	cmd := l.changing()
	cmd.Annotations = map[string]string{annotationSecret: "yes"}
	cmd.Flags().String("idempotency-key", "", "Makes a retry safe: the same value gets the same answer for ten minutes")
	cmd.Flags().String("csv", "", "File to which the key is appended as CSV, instead of printing its secret")
	return cmd
}

func createKeyFlags(cmd *cobra.Command) {
	declare(cmd, keyFields)
	cmd.Flags().String("organization", "", "Owner (default \"default\"); made if it does not exist")
	cmd.Flags().String("type", "", "standard (default) or trial")
	expiryFlags(cmd)
}

func expiryFlags(cmd *cobra.Command) {
	cmd.Flags().String("expires-in", "", "Life in days, such as 30d (default: the organization's)")
	cmd.Flags().String("expires-at", "", "End as a time in RFC 3339")
}

func createKey(s *session) error {
	key, err := s.body(keyFields)
	if err != nil {
		return err
	}
	if err := s.expiry(key); err != nil {
		return err
	}
	raw, err := s.createIn(s.text("organization"), key)
	if err != nil {
		return err
	}
	return s.printIssued(raw)
}

// createIn makes the key, and the organization with it if there is none. With
// an Idempotency-Key the organization comes first: a retry has to meet the
// call that was answered before, not an organization that now exists.
func (s *session) createIn(organization string, key map[string]any) (json.RawMessage, error) {
	inExisting := func() (json.RawMessage, error) { return s.createInExisting(organization, key) }
	withNew := func() (json.RawMessage, error) { return s.createWithNew(organization, key) }
	first, second, instead := inExisting, withNew, "organization_not_found"
	if s.text("idempotency-key") != "" {
		first, second, instead = withNew, inExisting, "organization_exists"
	}
	if kind := s.text("type"); organization == "" || (kind != "" && kind != "standard") { // an organization's first key is a standard one
		return inExisting()
	}
	raw, err := first()
	if p, ok := errors.AsType[*managementapi.Problem](err); ok && p.Code == instead {
		return second()
	}
	return raw, err
}

func (s *session) createInExisting(organization string, key map[string]any) (json.RawMessage, error) {
	body := map[string]any{}
	for name, value := range key {
		body[name] = value
	}
	if organization != "" {
		body["organization"] = organization
	}
	if s.given("type") {
		body["type"] = s.text("type")
	}
	return s.post(body, "keys")
}

func (s *session) createWithNew(organization string, key map[string]any) (json.RawMessage, error) {
	raw, err := s.post(map[string]any{"slug": organization, "key": key}, "organizations")
	if err == nil {
		s.cmd.PrintErrln("There was no organization " + organization + ": it is made, with this key.")
	}
	return raw, err
}

func listKeysFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("organization", "", "Only keys of this organization")
	flags.String("type", "", "Only standard or trial keys")
	flags.String("state", "", "Only active, deactivated, expired or blocked keys")
	flags.String("name", "", "Only keys of this name")
	flags.String("permission", "", "Only keys that refer to this permission, by id or name")
	flags.Bool("imported", false, "Only keys whose credential is one of another system")
	limitFlag(cmd, 0, "all")
}

func listKeys(s *session) error {
	limit, err := s.limit()
	if err != nil {
		return err
	}
	query := s.filters("organization", "type", "state", "name")
	if s.given("permission") {
		id, err := s.permissionID("--permission", s.text("permission"), s.text("organization"))
		if err != nil {
			return err
		}
		query.Set("permission", id)
	}
	if s.on("imported") {
		query.Set("imported", "true")
	}
	all, err := s.all("keys", query, limit)
	if err != nil {
		return err
	}
	return printAll(s, all, keyHead, keyRow)
}

func getKey(s *session) error {
	raw, err := s.callKey(http.MethodGet, nil)
	if err != nil {
		return err
	}
	return s.printKey(raw)
}

func updateKeyFlags(cmd *cobra.Command) {
	declare(cmd, keyFields)
	ifMatchFlag(cmd)
}

func ifMatchFlag(cmd *cobra.Command) {
	cmd.Flags().String("if-match", "", "Revision that it must still have")
}

func updateKey(s *session) error {
	if err := s.checkKeyID(s.args[0]); err != nil {
		return err
	}
	body, err := s.patch(keyFields)
	if err != nil {
		return err
	}
	raw, err := s.callKey(http.MethodPatch, body)
	if err != nil {
		return err
	}
	return s.printKey(raw)
}

func rotateKeyFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("force", false, "The old secret is dead at once")
}

func rotateKey(s *session) error {
	raw, err := s.callKey(http.MethodPost, map[string]any{"force": s.on("force")}, "rotate")
	if err != nil {
		return err
	}
	return s.printIssued(raw)
}

func graceKeyFlags(cmd *cobra.Command) {
	cmd.Flags().String("ends-at", "", "End as a time in RFC 3339")
	cmd.Flags().String("ends-in", "", "End as a time from now, such as 90m, 6h or 2d; 0s ends it at once")
}

func graceKey(s *session) error {
	body := map[string]any{}
	switch {
	case s.given("ends-at") == s.given("ends-in"):
		return usagef("--ends-in: say when the old secret ends, such as --ends-in 2h, or with --ends-at")
	case s.given("ends-at"):
		at, err := s.moment("ends-at")
		if err != nil {
			return err
		}
		body["ends_at"] = at
	default:
		n, ok := seconds(s.text("ends-in"))
		if !ok {
			return usagef("--ends-in: must be a length of time such as 90m, 6h or 2d, in whole seconds")
		}
		body["ends_in_seconds"] = n
	}
	raw, err := s.callKey(http.MethodPost, body, "grace")
	if err != nil {
		return err
	}
	return s.printKey(raw)
}

func regenerateKeyFlags(cmd *cobra.Command) { expiryFlags(cmd) }

func regenerateKey(s *session) error {
	body := map[string]any{}
	if err := s.expiry(body); err != nil {
		return err
	}
	raw, err := s.callKey(http.MethodPost, body, "regenerate")
	if err != nil {
		return err
	}
	return s.printIssued(raw)
}

func renewKeyFlags(cmd *cobra.Command) {
	cmd.Flags().String("days", "", "Life from now, in days, such as 30d")
}

func renewKey(s *session) error {
	if !s.given("days") {
		return usagef("--days: say for how many days from now, such as --days 30")
	}
	n, err := days("days", s.text("days"))
	if err != nil {
		return err
	}
	raw, err := s.callKey(http.MethodPost, map[string]any{"days": n}, "renew")
	if err != nil {
		return err
	}
	return s.printChanged(raw)
}

// changeKey is a command whose verb is the route's.
func changeKey(verb string) func(*session) error {
	return func(s *session) error {
		raw, err := s.callKey(http.MethodPost, nil, verb)
		if err != nil {
			return err
		}
		return s.printChanged(raw)
	}
}

// callKey calls a route of the key that the command names.
func (s *session) callKey(method string, body any, below ...string) (json.RawMessage, error) {
	if err := s.checkKeyID(s.args[0]); err != nil {
		return nil, err
	}
	return s.change(method, body, append([]string{"keys", s.args[0]}, below...)...)
}

func (s *session) checkKeyID(id string) error {
	if !strings.HasPrefix(id, "key_") {
		return usagef("%q is no key id; it begins with key_, see keys list", id)
	}
	return nil
}
