package managementapi

import (
	"net/http"
	"path"

	"github.com/warderhq/warder/keystore"
)

// route is one row of the table. A row without a scope lets nobody in.
type route struct {
	method    string
	pattern   string   // below the prefix
	scope     string   // what the caller has to hold, at least; or one of the two below
	operation string   // its name, in the audit log as in the OpenAPI document
	query     []string // the parameters that it understands
	handle    func(*API, *call) (answer, error)
}

// Whom a row lets in beside the holders of a scope. Having spaces, neither is
// a scope that anybody could hold.
const (
	anyCaller = "any caller"           // whoever is identified, whatever it holds
	anybody   = "any who can reach it" // nobody is asked who they are
)

// routes is everything that the API can do. The scope here is the first
// check; which keys and organizations a caller may touch, and what it may
// grant, the core decides for each of them again.
var routes = []route{
	{http.MethodGet, "", keystore.ScopeRead, "identify", nil, (*API).identify},
	{http.MethodGet, "/{$}", keystore.ScopeRead, "identify", nil, (*API).identify},
	{http.MethodGet, "/openapi.json", anybody, "describe", nil, (*API).describe},
	{http.MethodGet, "/self", anyCaller, "self", nil, (*API).self},

	{http.MethodPost, "/keys", keystore.ScopeKeys, "keys.create", nil, (*API).createKey},
	{http.MethodGet, "/keys", keystore.ScopeRead, "keys.list", keyParameters, (*API).listKeys},
	{http.MethodPost, "/keys/import", keystore.ScopeKeys, "keys.import", nil, (*API).importKeys},
	{http.MethodPost, "/keys/delete", keystore.ScopeKeys, "keys.bulk_delete", nil, (*API).deleteKeys},
	{http.MethodGet, "/keys/{id}", keystore.ScopeRead, "keys.get", nil, (*API).getKey},
	{http.MethodPatch, "/keys/{id}", keystore.ScopeKeys, "keys.update", nil, (*API).updateKey},
	{http.MethodDelete, "/keys/{id}", keystore.ScopeKeys, "keys.delete", nil, (*API).deleteKey},
	{http.MethodPost, "/keys/{id}/rotate", keystore.ScopeKeys, "keys.rotate", nil, (*API).rotateKey},
	{http.MethodPost, "/keys/{id}/grace", keystore.ScopeKeys, "keys.grace", nil, (*API).moveGraceEnd},
	{http.MethodPost, "/keys/{id}/regenerate", keystore.ScopeKeys, "keys.regenerate", nil, (*API).regenerateKey},
	{http.MethodPost, "/keys/{id}/renew", keystore.ScopeKeys, "keys.renew", nil, (*API).renewKey},
	{http.MethodPost, "/keys/{id}/expire", keystore.ScopeKeys, "keys.expire", nil, (*API).expireKey},
	{http.MethodPost, "/keys/{id}/activate", keystore.ScopeKeys, "keys.activate", nil, (*API).activateKey},
	{http.MethodPost, "/keys/{id}/deactivate", keystore.ScopeKeys, "keys.deactivate", nil, (*API).deactivateKey},
	{http.MethodPost, "/keys/{id}/block", keystore.ScopeAdmin, "keys.block", nil, (*API).blockKey},
	{http.MethodPost, "/keys/{id}/unblock", keystore.ScopeAdmin, "keys.unblock", nil, (*API).unblockKey},

	{http.MethodPost, "/organizations", keystore.ScopeAdmin, "organizations.create", nil, (*API).createOrganization},
	{http.MethodGet, "/organizations", keystore.ScopeRead, "organizations.list", pageParameters, (*API).listOrganizations},
	{http.MethodGet, "/organizations/{slug}", keystore.ScopeRead, "organizations.get", nil, (*API).getOrganization},
	{http.MethodPatch, "/organizations/{slug}", keystore.ScopeAdmin, "organizations.update", nil, (*API).updateOrganization},
	{http.MethodDelete, "/organizations/{slug}", keystore.ScopeAdmin, "organizations.delete", nil, (*API).deleteOrganization},

	{http.MethodPost, "/permissions", keystore.ScopeKeys, "permissions.create", nil, (*API).createPermission},
	{http.MethodGet, "/permissions", keystore.ScopeRead, "permissions.list", permissionParameters, (*API).listPermissions},
	{http.MethodGet, "/permissions/{id}", keystore.ScopeRead, "permissions.get", nil, (*API).getPermission},
	{http.MethodPatch, "/permissions/{id}", keystore.ScopeKeys, "permissions.update", nil, (*API).updatePermission},
	{http.MethodDelete, "/permissions/{id}", keystore.ScopeKeys, "permissions.delete", nil, (*API).deletePermission},

	{http.MethodGet, "/usage", keystore.ScopeRead, "usage", usageParameters, (*API).usage},
	{http.MethodGet, "/audit", keystore.ScopeKeys, "audit", auditParameters, (*API).audit},

	{http.MethodGet, "/nodes", keystore.ScopeAdmin, "nodes", nil, (*API).listNodes},
	{http.MethodGet, "/health", anyCaller, "health", nil, (*API).health},
	{http.MethodPost, "/explain", keystore.ScopeAdmin, operationExplain, nil, (*API).explain},

	{http.MethodGet, "/settings", keystore.ScopeAdmin, "settings.get", nil, (*API).getSettings},
	{http.MethodPatch, "/settings", keystore.ScopeAdmin, "settings.update", nil, (*API).updateSettings},
	{http.MethodGet, "/signing-keys", keystore.ScopeAdmin, "signing_keys.list", nil, (*API).listSigningKeys},
	{http.MethodPost, "/signing-keys/rotate", keystore.ScopeAdmin, "signing_keys.rotate", nil, (*API).rotateSigningKeys},

	{http.MethodGet, "/backup", keystore.ScopeAdmin, "store.backup", nil, (*API).backup},
	{http.MethodGet, "/master-key", keystore.ScopeAdmin, "master_key.get", nil, (*API).masterKey},
	{http.MethodPost, "/master-key/rotate", keystore.ScopeAdmin, "master_key.rotate", nil, (*API).rotateMasterKey},
	{http.MethodPost, "/master-key/finish", keystore.ScopeAdmin, "master_key.finish", nil, (*API).finishMasterKey},
}

// admits refuses a caller that does not hold what the row demands.
func (rt *route) admits(c keystore.Caller) error {
	switch {
	case rt.scope == anyCaller && c.Actor != "", c.Scopes.Grants(rt.scope):
		return nil
	default:
		return keystore.ErrForbidden
	}
}

// operationExplain only asks. It does so in a body, because what it asks about
// must not stand in a URL, which others write down.
const operationExplain = "explain"

// changes reports whether the row may change something.
func (rt *route) changes() bool {
	return rt.method != http.MethodGet && rt.operation != operationExplain
}

// Service is what the API calls itself, so that a client can tell a Warder
// from whatever else answers on an admin endpoint.
const Service = "warder"

// Identity is the answer of the API's root.
type Identity struct {
	Service string `json:"service"`
	Version string `json:"version"`
}

func (a *API) identify(c *call) (answer, error) {
	return answer{body: Identity{Service, a.Version}}, c.body.into(nil)
}

// isNormalPath reports whether a path has no empty or dot segments.
func isNormalPath(escaped string) bool {
	clean := path.Clean(escaped)
	return escaped == clean || escaped == clean+"/"
}
