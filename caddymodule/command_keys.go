package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func keyCommands() []*cobra.Command {
	commands := []*cobra.Command{
		secretLeaf(leaf{"create", "Makes a key and shows its secret, once", createKeyFlags, createKey}),
		leaf{"list", "Lists keys", listKeysFlags, listKeys}.command(),
		leaf{"get <id>", "Shows a key, without its secret", nil, getKey}.command(),
		leaf{"update <id>", "Changes name, scopes or metadata", updateKeyFlags, updateKey}.command(),
		secretLeaf(leaf{"rotate <id>", "Gives a key a new secret; the old one passes for the grace period", rotateKeyFlags, rotateKey}),
		secretLeaf(leaf{"regenerate <id>", "Gives a key a new access key and secret; all older is dead at once", regenerateKeyFlags, regenerateKey}),
		leaf{"renew <id>", "Moves a key's expiry; an expired key lives again", renewKeyFlags, renewKey}.command(),
		leaf{"delete <id>", "Deletes a key for good", nil, deleteKey}.command(),
	}
	for _, verb := range [][2]string{
		{"expire", "Ends a key's life now"},
		{"activate", "Takes a deactivation back"},
		{"deactivate", "Lets a key rest; its owner's switch"},
		{"block", "Refuses a key; the administrator's switch"},
		{"unblock", "Takes a block back"},
	} {
		commands = append(commands, leaf{verb[0] + " <id>", verb[1], nil, changeKey(verb[0])}.command())
	}
	return commands
}

// secretLeaf is a leaf whose result holds a secret.
func secretLeaf(l leaf) *cobra.Command {
	cmd := l.command()
	cmd.Annotations = map[string]string{annotationSecret: "yes"}
	cmd.Flags().String("idempotency-key", "", "Makes a retry safe: the same value gets the same answer for ten minutes")
	return cmd
}

func createKeyFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("name", "", "Name, unique in the organization")
	flags.String("organization", "", "Owner (default \"default\"); made if it does not exist")
	flags.String("type", "", "standard (default) or trial")
	flags.StringArray("scope", nil, "Scope; repeat it for more")
	flags.String("metadata", "", "JSON object, or @FILE")
	expiryFlags(cmd)
}

func expiryFlags(cmd *cobra.Command) {
	cmd.Flags().String("expires-in", "", "Life in days, such as 30d (default: the organization's)")
	cmd.Flags().String("expires-at", "", "End as a time in RFC 3339")
}

func createKey(s *session) error {
	key := map[string]any{}
	if s.given("name") {
		key["name"] = s.text("name")
	}
	if s.given("scope") {
		key["scopes"] = s.scopes("scope")
	}
	if s.given("metadata") {
		metadata, err := document("metadata", s.text("metadata"))
		if err != nil {
			return err
		}
		key["metadata"] = metadata
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
	flags.Int("limit", 0, "At most so many (default: all)")
}

const keysPerCall = 1000

// listKeys pages through everything, unless it is told how much is enough.
func listKeys(s *session) error {
	limit, _ := s.cmd.Flags().GetInt("limit")
	if s.given("limit") && limit < 1 {
		return usagef("--limit: must be at least 1")
	}
	query := url.Values{}
	for _, filter := range []string{"organization", "type", "state"} {
		if s.given(filter) {
			query.Set(filter, s.text(filter))
		}
	}
	var all []json.RawMessage
	for more := true; more; {
		size := keysPerCall
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		query.Set("limit", strconv.Itoa(size))
		raw, err := s.client.Call(s.cmd.Context(), managementapi.Request{Method: http.MethodGet, Path: []string{"keys"}, Query: query})
		if err != nil {
			return err
		}
		page, err := decode[struct {
			Keys []json.RawMessage `json:"keys"`
			Next string            `json:"next"`
		}](raw)
		if err != nil {
			return err
		}
		all = append(all, page.Keys...)
		query.Set("after", page.Next)
		more = page.Next != "" && len(page.Keys) > 0 && (limit == 0 || len(all) < limit)
	}
	return s.printList(all)
}

func (s *session) printList(all []json.RawMessage) error {
	list, err := json.Marshal(append([]json.RawMessage{}, all...))
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		return s.printJSON(list)
	}
	keys, err := decode[[]managementapi.Key](list)
	if err != nil {
		return err
	}
	return s.printKeys(keys)
}

func getKey(s *session) error {
	raw, err := s.callKey(http.MethodGet, nil)
	if err != nil {
		return err
	}
	return s.printKey(raw)
}

func updateKeyFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("name", "", "New name; empty for none")
	flags.StringArray("scope", nil, "New scopes instead of all present ones; repeat it for more, empty for none")
	flags.String("metadata", "", "JSON merge patch, or @FILE; null for none")
	flags.String("if-match", "", "Revision that the key must still have")
}

func updateKey(s *session) error {
	body := map[string]any{}
	if s.given("name") {
		body["name"] = s.text("name")
	}
	if s.given("scope") {
		body["scopes"] = s.scopes("scope")
	}
	if s.given("metadata") {
		patch, err := document("metadata", s.text("metadata"))
		if err != nil {
			return err
		}
		body["metadata"] = patch
	}
	if len(body) == 0 {
		return usagef("nothing to change: give --name, --scope or --metadata")
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

func deleteKey(s *session) error {
	raw, err := s.callKey(http.MethodDelete, nil)
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	return s.print("deleted " + s.args[0] + "\n")
}

func (s *session) post(body any, path ...string) (json.RawMessage, error) {
	return s.client.Call(s.cmd.Context(), managementapi.Request{
		Method: http.MethodPost, Path: path, Body: body, IdempotencyKey: s.text("idempotency-key"),
	})
}

// callKey calls a route of the key that the command names.
func (s *session) callKey(method string, body any, below ...string) (json.RawMessage, error) {
	id := s.args[0]
	if !strings.HasPrefix(id, "key_") {
		return nil, usagef("%q is no key id; it begins with key_, see keys list", id)
	}
	r := managementapi.Request{Method: method, Path: append([]string{"keys", id}, below...), Body: body}
	if s.showsSecret() {
		r.IdempotencyKey = s.text("idempotency-key")
	}
	if revision := s.text("if-match"); revision != "" {
		r.IfMatch = strconv.Quote(revision)
	}
	return s.client.Call(s.cmd.Context(), r)
}
