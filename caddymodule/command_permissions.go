package caddymodule

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

func permissionCommands() []*cobra.Command {
	return []*cobra.Command{
		leaf{"create", "Makes a permission", createPermissionFlags, createPermission}.changing(),
		leaf{"list", "Lists permissions", listPermissionsFlags, listPermissions}.command(),
		leaf{"get <permission>", "Shows a permission, by id or name", permissionOwnerFlag, getPermission}.command(),
		leaf{"update <permission>", "Changes a permission, by id or name, for all keys that refer to it", updatePermissionFlags, updatePermission}.changing(),
		leaf{"delete <permission>", "Deletes a permission, by id or name, that nothing refers to", deletePermissionFlags, deletePermission}.changing(),
	}
}

func createPermissionFlags(cmd *cobra.Command) {
	declare(cmd, permissionFields)
	cmd.Flags().String("organization", "", "Whose keys alone may refer to it (default: everybody's)")
}

func createPermission(s *session) error {
	body, err := s.body(permissionFields)
	if err != nil {
		return err
	}
	if s.given("organization") {
		body["organization"] = s.text("organization")
	}
	raw, err := s.post(body, "permissions")
	if err != nil {
		return err
	}
	return s.printPermission(raw)
}

func listPermissionsFlags(cmd *cobra.Command) {
	cmd.Flags().String("organization", "", "Only permissions that keys of this organization may refer to")
}

func listPermissions(s *session) error {
	query := url.Values{}
	if s.given("organization") {
		query.Set("organization", s.text("organization"))
	}
	all, err := s.all("permissions", query, 0)
	if err != nil {
		return err
	}
	return printAll(s, all, permissionHead, permissionRow)
}

// permissionOwnerFlag is for names: those are unique in an organization only.
func permissionOwnerFlag(cmd *cobra.Command) {
	cmd.Flags().String("organization", "", "Organization in which the name is looked for (default: those of everybody)")
}

func getPermission(s *session) error {
	id, err := s.namedPermission()
	if err != nil {
		return err
	}
	raw, err := s.get(nil, "permissions", id)
	if err != nil {
		return err
	}
	return s.printPermission(raw)
}

func updatePermissionFlags(cmd *cobra.Command) {
	declare(cmd, permissionFields)
	permissionOwnerFlag(cmd)
	ifMatchFlag(cmd)
}

func updatePermission(s *session) error {
	body, err := s.patch(permissionFields)
	if err != nil {
		return err
	}
	id, err := s.namedPermission()
	if err != nil {
		return err
	}
	raw, err := s.change(http.MethodPatch, body, "permissions", id)
	if err != nil {
		return err
	}
	return s.printPermission(raw)
}

func deletePermissionFlags(cmd *cobra.Command) {
	permissionOwnerFlag(cmd)
	ifMatchFlag(cmd)
}

func deletePermission(s *session) error {
	id, err := s.namedPermission()
	if err != nil {
		return err
	}
	raw, err := s.change(http.MethodDelete, nil, "permissions", id)
	if err != nil {
		return err
	}
	return s.printDeleted(raw, id)
}

// namedPermission returns the id of the permission that the command is about.
func (s *session) namedPermission() (string, error) {
	return s.permissionID("permission", s.args[0], s.text("organization"))
}

// readRules reads 'GET,POST /v1/* /v2/*': methods, then paths. What begins
// with a path is for all methods.
func readRules(s *session, flag string) (any, error) {
	rules := []keystore.Rule{}
	for _, text := range s.words(flag) {
		var rule keystore.Rule
		words := strings.Fields(text)
		if len(words) > 0 && !strings.HasPrefix(words[0], "/") {
			rule.Methods, words = strings.Split(words[0], ","), words[1:]
		}
		if rule.Paths = words; len(words) == 0 {
			return nil, usagef("--%s: must be methods and paths such as 'GET,POST /v1/*', or paths alone for all methods", flag)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func (s *session) printPermission(raw json.RawMessage) error {
	return printOne(s, raw, func(p *managementapi.Permission) [][]string {
		return [][]string{
			{"ID", p.ID},
			{"Name", p.Name},
			{"Organization", owner(p.Organization)},
			{"Description", dash(p.Description)},
			{"Rules", dash(ruleText(p.Rules))},
			{"Metadata", string(p.Metadata)},
			{"Created at", instant(&p.CreatedAt)},
		}
	})
}

var permissionHead = []string{"ID", "NAME", "ORGANIZATION", "RULES", "DESCRIPTION"}

func permissionRow(p *managementapi.Permission) []string {
	return []string{p.ID, p.Name, owner(p.Organization), dash(ruleText(p.Rules)), dash(p.Description)}
}

func owner(organization *string) string {
	if organization == nil {
		return "(everybody)"
	}
	return *organization
}

// ruleText shows rules as --allow takes them.
func ruleText(rules []managementapi.Rule) string {
	var texts []string
	for _, r := range rules {
		texts = append(texts, strings.TrimSpace(strings.Join(r.Methods, ",")+" "+strings.Join(r.Paths, " ")))
	}
	return strings.Join(texts, "; ")
}
