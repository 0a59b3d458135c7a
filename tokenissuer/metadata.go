package tokenissuer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// metadata is the authorization server metadata of RFC 8414 §2.
type metadata struct {
	Issuer        string   `json:"issuer"` // byte for byte the iss
	TokenEndpoint string   `json:"token_endpoint"`
	JWKS          string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"` // required; there are none
	GrantTypes    []string `json:"grant_types_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`

	Introspection        string   `json:"introspection_endpoint"`
	IntrospectionMethods []string `json:"introspection_endpoint_auth_methods_supported"`
	Revocation           string   `json:"revocation_endpoint"`
	RevocationMethods    []string `json:"revocation_endpoint_auth_methods_supported"`
}

// encodeMetadata returns the document and its entity tag.
func (e *Endpoints) encodeMetadata() (body []byte, etag string, err error) {
	origin := e.issuer.url.Scheme + "://" + e.issuer.url.Host
	body, err = json.Marshal(metadata{
		Issuer:        e.issuer.name,
		TokenEndpoint: origin + e.prefix + tokenPath,
		JWKS:          origin + e.prefix + jwksPath,
		ResponseTypes: []string{},
		GrantTypes:    []string{grantClientCredentials},
		AuthMethods:   []string{"client_secret_basic", "client_secret_post"},

		Introspection:        origin + e.prefix + introspectPath,
		IntrospectionMethods: []string{"client_secret_basic", "client_secret_post", "Bearer"},
		Revocation:           origin + e.prefix + revokePath,
		RevocationMethods:    []string{"client_secret_basic", "client_secret_post"},
	})
	if err != nil {
		return nil, "", fmt.Errorf("encoding the issuer's metadata: %w", err)
	}
	sum := sha256.Sum256(body)
	return body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, nil
}

// metadataPaths returns where the document is: beside the other endpoints,
// and, if the issuer has a path, where RFC 8414 §3.1 derives it from the
// issuer, the well-known part before that path.
func (e *Endpoints) metadataPaths() []string {
	paths := []string{e.prefix + metadataPath}
	if path := strings.TrimSuffix(e.issuer.url.Path, "/"); path != "" {
		paths = append(paths, metadataPath+path)
	}
	return paths
}

func (e *Endpoints) serveMetadata(w http.ResponseWriter, r *http.Request) {
	serveDocument(w, r, e.metadata, "application/json", e.metadataTag)
}
