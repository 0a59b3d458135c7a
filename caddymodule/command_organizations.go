package caddymodule

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func organizationCommands() []*cobra.Command {
	return []*cobra.Command{
		secretLeaf(leaf{"create <organization>", "Makes an organization and its first key, and shows the secret, once", createOrganizationFlags, createOrganization}),
		leaf{"list", "Lists organizations and their defaults", nil, listOrganizations}.command(),
		leaf{"get <organization>", "Shows an organization", nil, getOrganization}.command(),
		leaf{"update <organization>", "Changes an organization's defaults and bounds", updateOrganizationFlags, updateOrganization}.changing(),
		leaf{"delete <organization>", "Deletes an organization that has no keys but its last", ifMatchFlag, deleteOrganization}.changing(),
	}
}

func createOrganizationFlags(cmd *cobra.Command) {
	declare(cmd, organizationFields)
	cmd.Flags().String("key-name", "", "Name of the first key")
	cmd.Flags().StringArray("key-scope", nil, "Scope of the first key; repeat it for more")
}

func createOrganization(s *session) error {
	body, err := s.body(organizationFields)
	if err != nil {
		return err
	}
	key := map[string]any{}
	if s.given("key-name") {
		key["name"] = s.text("key-name")
	}
	if s.given("key-scope") {
		key["scopes"] = s.words("key-scope")
	}
	body["slug"], body["key"] = s.args[0], key
	raw, err := s.post(body, "organizations")
	if err != nil {
		return err
	}
	return s.printIssued(raw)
}

func listOrganizations(s *session) error {
	all, err := s.all("organizations", nil, 0)
	if err != nil {
		return err
	}
	return printAll(s, all, organizationHead, organizationRow)
}

func getOrganization(s *session) error {
	raw, err := s.get(nil, "organizations", s.args[0])
	if err != nil {
		return err
	}
	return printOne(s, raw, describeOrganization)
}

func updateOrganizationFlags(cmd *cobra.Command) {
	declare(cmd, organizationFields)
	ifMatchFlag(cmd)
}

func updateOrganization(s *session) error {
	body, err := s.patch(organizationFields)
	if err != nil {
		return err
	}
	raw, err := s.change(http.MethodPatch, body, "organizations", s.args[0])
	if err != nil {
		return err
	}
	return printOne(s, raw, describeOrganization)
}

func deleteOrganization(s *session) error {
	raw, err := s.change(http.MethodDelete, nil, "organizations", s.args[0])
	if err != nil {
		return err
	}
	return s.printDeleted(raw, s.args[0])
}

func describeOrganization(o *managementapi.Organization) [][]string {
	return [][]string{
		{"Organization", o.Slug},
		{"Default expiry", dayCount(o.DefaultExpiryDays, "never")},
		{"Maximum expiry", dayCount(o.MaximumExpiryDays, "none")},
		{"Grace period", graceText(o.GraceSeconds)},
		{"Limit of each key", orNull(o.Limit, "none")},
		{"Allowed scopes", allowed(o.AllowedScopes, "all but warder:*")},
		{"Allowed permissions", allowed(o.AllowedPermissions, "all")},
		{"Metadata", string(o.Metadata)},
		{"Created at", instant(&o.CreatedAt)},
	}
}

var organizationHead = []string{"ORGANIZATION", "DEFAULT EXPIRY", "MAXIMUM EXPIRY", "GRACE PERIOD", "LIMIT", "ALLOWED SCOPES", "ALLOWED PERMISSIONS", "CREATED AT"}

func organizationRow(o *managementapi.Organization) []string {
	return []string{
		o.Slug, dayCount(o.DefaultExpiryDays, "never"), dayCount(o.MaximumExpiryDays, "none"), graceText(o.GraceSeconds), orNull(o.Limit, "none"),
		allowed(o.AllowedScopes, "all but warder:*"), allowed(o.AllowedPermissions, "all"), instant(&o.CreatedAt),
	}
}

func dayCount(days *int, none string) string {
	if days == nil {
		return none
	}
	return strconv.Itoa(*days) + "d"
}

func graceText(seconds *int) string {
	if seconds == nil {
		return "default"
	}
	return (time.Duration(*seconds) * time.Second).String()
}

// allowed shows a list that null leaves open.
func allowed(list []string, open string) string {
	if list == nil {
		return open
	}
	return dash(strings.Join(list, " "))
}
