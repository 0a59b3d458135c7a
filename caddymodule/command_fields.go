package caddymodule

import (
	"strings"

	"github.com/spf13/cobra"
)

// bodyField is a flag that becomes a member of a body. One table serves the
// command that makes a thing and the one that changes it.
type bodyField struct {
	flag   string
	member string
	usage  string
	kind   flagKind
	read   func(s *session, flag string) (any, error)
}

type flagKind uint8

const (
	flagOnce flagKind = iota
	flagMany          // may be repeated
	flagBare          // has no value
)

var keyFields = []bodyField{
	{"name", "name", "Name, unique in the organization; empty for none", flagOnce, readText},
	{"scope", "scopes", "Scope; repeat it for more, empty for none", flagMany, readList},
	{"permission", "permissions", "Permission by id or name; repeat it for more, empty for none", flagMany, readKeyPermissions},
	{"network", "networks", "Network that it may be used from, such as 10.0.0.0/8; repeat it for more, empty for any", flagMany, readList},
	{"limit", "limit", "Limit, such as '100/s burst 200', or default for the organization's", flagOnce, readTextOr("default")},
	{"metadata", "metadata", "JSON object, or @FILE; a change is merged into it, null for none", flagOnce, readDocument},
}

var organizationFields = []bodyField{
	{"default-expiry", "default_expiry_days", "Life of new keys in days, such as 90d, or never", flagOnce, readDaysOr("never")},
	{"maximum-expiry", "maximum_expiry_days", "Longest life that a key may get, in days, or none", flagOnce, readDaysOr("none")},
	{"grace", "grace_seconds", "How long a rotated-out secret passes, such as 6h, or default for the configuration's", flagOnce, readSecondsOr("default")},
	{"limit", "limit", "Limit of keys that have none of their own, such as '100/s burst 200', or none", flagOnce, readTextOr("none")},
	{"allowed-scope", "allowed_scopes", "Scope that keys may carry; repeat it for more, empty for none", flagMany, readList},
	{"allow-all-scopes", "allowed_scopes", "Keys may carry every scope but warder:*", flagBare, readNull},
	{"allowed-permission", "allowed_permissions", "Permission that keys may refer to, by id or name; repeat it for more, empty for none", flagMany, readSharedPermissions},
	{"allow-all-permissions", "allowed_permissions", "Keys may refer to every permission", flagBare, readNull},
	{"metadata", "metadata", "JSON object, or @FILE; a change is merged into it, null for none", flagOnce, readDocument},
}

var permissionFields = []bodyField{
	{"name", "name", "Name, unique in the organization", flagOnce, readText},
	{"description", "description", "What it is for; empty for none", flagOnce, readText},
	{"allow", "rules", "Rule such as 'GET,POST /v1/*', or without methods for all of them; repeat it for more, empty for none", flagMany, readRules},
	{"metadata", "metadata", "JSON object, or @FILE; a change is merged into it, null for none", flagOnce, readDocument},
}

// declare adds the flags of fields to cmd.
func declare(cmd *cobra.Command, fields []bodyField) {
	for _, f := range fields {
		switch f.kind {
		case flagMany:
			cmd.Flags().StringArray(f.flag, nil, f.usage)
		case flagBare:
			cmd.Flags().Bool(f.flag, false, f.usage)
		default:
			cmd.Flags().String(f.flag, "", f.usage)
		}
	}
}

// body returns the members whose flags are given.
func (s *session) body(fields []bodyField) (map[string]any, error) {
	body, from := map[string]any{}, map[string]string{}
	for _, f := range fields {
		if !s.given(f.flag) {
			continue
		}
		if other, twice := from[f.member]; twice {
			return nil, usagef("--%s and --%s exclude each other", other, f.flag)
		}
		value, err := f.read(s, f.flag)
		if err != nil {
			return nil, err
		}
		body[f.member], from[f.member] = value, f.flag
	}
	return body, nil
}

// patch is body for a change, which has to be one.
func (s *session) patch(fields []bodyField) (map[string]any, error) {
	body, err := s.body(fields)
	if err == nil && len(body) == 0 {
		return nil, usagef("nothing to change: give %s", flagList(fields))
	}
	return body, err
}

func flagList(fields []bodyField) string {
	var flags []string
	for _, f := range fields {
		flags = append(flags, "--"+f.flag)
	}
	return strings.Join(flags[:len(flags)-1], ", ") + " or " + flags[len(flags)-1]
}

// flagOf names the flag behind a field, parameter or header of the API, and
// says whether cmd has it.
func flagOf(cmd *cobra.Command, place string) (flag string, has bool) {
	flag = otherFlags[place]
	for _, fields := range [][]bodyField{keyFields, organizationFields, permissionFields} {
		for _, f := range fields {
			if f.member == place {
				if flag = "--" + f.flag; hasFlag(cmd, flag) {
					return flag, true
				}
			}
		}
	}
	return flag, hasFlag(cmd, flag)
}

func hasFlag(cmd *cobra.Command, flag string) bool {
	return cmd.Flags().Lookup(strings.TrimPrefix(flag, "--")) != nil
}

var otherFlags = map[string]string{
	"type": "--type", "organization": "--organization", "slug": "--organization", "state": "--state", "limit": "--limit",
	"expires_at": "--expires-at", "expires_in_days": "--expires-in", "days": "--days",
	"ends_at": "--ends-at", "ends_in_seconds": "--ends-in",
	"name": "--name", "permission": "--permission", "key": "--key", "by": "--by", "from": "--from", "to": "--to",
	"method": "--method", "path": "--path", "require_scopes": "--require-scope", "require_types": "--require-type",
	"actor": "--actor", "operation": "--operation", "object": "--object", "since": "--since", "until": "--until",
	"wait": "--wait", "Idempotency-Key": "--idempotency-key", "If-Match": "--if-match",
}
