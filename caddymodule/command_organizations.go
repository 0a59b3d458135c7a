package caddymodule

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func organizationCommands() []*cobra.Command {
	return []*cobra.Command{
		leaf{"list", "Lists organizations and their defaults", nil, listOrganizations}.command(),
		leaf{"update <organization>", "Changes an organization's defaults", updateOrganizationFlags, updateOrganization}.command(),
	}
}

func listOrganizations(s *session) error {
	var all []json.RawMessage
	query := url.Values{"limit": {strconv.Itoa(keysPerCall)}}
	for more := true; more; {
		raw, err := s.client.Call(s.cmd.Context(), managementapi.Request{Method: http.MethodGet, Path: []string{"organizations"}, Query: query})
		if err != nil {
			return err
		}
		page, err := decode[struct {
			Organizations []json.RawMessage `json:"organizations"`
			Next          string            `json:"next"`
		}](raw)
		if err != nil {
			return err
		}
		all = append(all, page.Organizations...)
		query.Set("after", page.Next)
		more = page.Next != ""
	}
	return s.printOrganizations(all)
}

func updateOrganizationFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("default-expiry", "", "Life of new keys in days, such as 90d, or never")
	flags.String("maximum-expiry", "", "Longest life that a key may get, in days, or none")
	flags.StringArray("allowed-scope", nil, "Scope that keys may carry, instead of all present ones; repeat it for more, empty for none")
	flags.Bool("allow-all-scopes", false, "Keys may carry every scope but warder:*")
	flags.String("metadata", "", "JSON merge patch, or @FILE; null for none")
	flags.String("if-match", "", "Revision that the organization must still have")
}

func updateOrganization(s *session) error {
	body, err := s.organizationPatch()
	if err != nil {
		return err
	}
	r := managementapi.Request{Method: http.MethodPatch, Path: []string{"organizations", s.args[0]}, Body: body}
	if revision := s.text("if-match"); revision != "" {
		r.IfMatch = strconv.Quote(revision)
	}
	raw, err := s.client.Call(s.cmd.Context(), r)
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	return s.printOrganizations([]json.RawMessage{raw})
}

func (s *session) organizationPatch() (body map[string]any, err error) {
	body = map[string]any{}
	if s.given("default-expiry") {
		if body["default_expiry_days"], err = daysOrNone("default-expiry", s.text("default-expiry"), "never"); err != nil {
			return nil, err
		}
	}
	if s.given("maximum-expiry") {
		if body["maximum_expiry_days"], err = daysOrNone("maximum-expiry", s.text("maximum-expiry"), "none"); err != nil {
			return nil, err
		}
	}
	switch {
	case s.on("allow-all-scopes") && s.given("allowed-scope"):
		return nil, usagef("--allowed-scope and --allow-all-scopes exclude each other")
	case s.on("allow-all-scopes"):
		body["allowed_scopes"] = nil
	case s.given("allowed-scope"):
		body["allowed_scopes"] = s.scopes("allowed-scope")
	}
	if s.given("metadata") {
		if body["metadata"], err = document("metadata", s.text("metadata")); err != nil {
			return nil, err
		}
	}
	if len(body) == 0 {
		return nil, usagef("nothing to change: give --default-expiry, --maximum-expiry, --allowed-scope or --metadata")
	}
	return body, nil
}

func (s *session) printOrganizations(all []json.RawMessage) error {
	list, err := json.Marshal(append([]json.RawMessage{}, all...))
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		return s.printJSON(list)
	}
	organizations, err := decode[[]managementapi.Organization](list)
	if err != nil {
		return err
	}
	rows := [][]string{{"ORGANIZATION", "DEFAULT EXPIRY", "MAXIMUM EXPIRY", "ALLOWED SCOPES", "CREATED AT"}}
	for i := range organizations {
		o := &organizations[i]
		rows = append(rows, []string{
			o.Slug, dayCount(o.DefaultExpiryDays, "never"), dayCount(o.MaximumExpiryDays, "none"), allowed(o.AllowedScopes), instant(&o.CreatedAt),
		})
	}
	return s.printTable(rows)
}

func dayCount(days *int, none string) string {
	if days == nil {
		return none
	}
	return strconv.Itoa(*days) + "d"
}

func allowed(scopes []string) string {
	if scopes == nil {
		return "all but warder:*"
	}
	return dash(strings.Join(scopes, " "))
}
