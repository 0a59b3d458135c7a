package managementapi

import (
	"net/http"
	"path"

	"github.com/warderhq/warder/keystore"
)

// route is one row of the table. A row without a scope lets nobody in.
type route struct {
	method  string
	pattern string   // below the prefix
	scope   string   // what the caller has to hold, at least
	query   []string // the parameters that it understands
	handle  func(*API, *call) (answer, error)
}

// routes is everything that the API can do. The scope here is the first
// check; which keys and organizations a caller may touch, and what it may
// grant, the core decides for each of them again.
var routes = []route{
	{http.MethodGet, "", keystore.ScopeRead, nil, (*API).identify},
	{http.MethodGet, "/{$}", keystore.ScopeRead, nil, (*API).identify},

	{http.MethodPost, "/keys", keystore.ScopeKeys, nil, (*API).createKey},
	{http.MethodGet, "/keys", keystore.ScopeRead, keyParameters, (*API).listKeys},
	{http.MethodGet, "/keys/{id}", keystore.ScopeRead, nil, (*API).getKey},
	{http.MethodPatch, "/keys/{id}", keystore.ScopeKeys, nil, (*API).updateKey},
	{http.MethodDelete, "/keys/{id}", keystore.ScopeKeys, nil, (*API).deleteKey},
	{http.MethodPost, "/keys/{id}/rotate", keystore.ScopeKeys, nil, (*API).rotateKey},
	{http.MethodPost, "/keys/{id}/regenerate", keystore.ScopeKeys, nil, (*API).regenerateKey},
	{http.MethodPost, "/keys/{id}/renew", keystore.ScopeKeys, nil, (*API).renewKey},
	{http.MethodPost, "/keys/{id}/expire", keystore.ScopeKeys, nil, (*API).expireKey},
	{http.MethodPost, "/keys/{id}/activate", keystore.ScopeKeys, nil, (*API).activateKey},
	{http.MethodPost, "/keys/{id}/deactivate", keystore.ScopeKeys, nil, (*API).deactivateKey},
	{http.MethodPost, "/keys/{id}/block", keystore.ScopeAdmin, nil, (*API).blockKey},
	{http.MethodPost, "/keys/{id}/unblock", keystore.ScopeAdmin, nil, (*API).unblockKey},

	{http.MethodPost, "/organizations", keystore.ScopeAdmin, nil, (*API).createOrganization},
	{http.MethodGet, "/organizations", keystore.ScopeRead, pageParameters, (*API).listOrganizations},
	{http.MethodGet, "/organizations/{slug}", keystore.ScopeRead, nil, (*API).getOrganization},
	{http.MethodPatch, "/organizations/{slug}", keystore.ScopeAdmin, nil, (*API).updateOrganization},

	{http.MethodGet, "/signing-keys", keystore.ScopeAdmin, nil, (*API).listSigningKeys},
	{http.MethodPost, "/signing-keys/rotate", keystore.ScopeAdmin, nil, (*API).rotateSigningKeys},
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
