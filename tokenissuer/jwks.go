package tokenissuer

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// encodeJWKS returns the JWK Set (RFC 7517 §5) of keys, and its entity tag.
func encodeJWKS(keys []*verifyingKey) (body []byte, etag string, err error) {
	set := jwk.NewSet()
	for _, key := range keys {
		published, err := key.published()
		if err != nil {
			return nil, "", err
		}
		if err := set.AddKey(published); err != nil {
			return nil, "", fmt.Errorf("adding signing key %s to the JWKS: %w", key.kid, err)
		}
	}
	if body, err = json.Marshal(set); err != nil {
		return nil, "", fmt.Errorf("encoding the JWKS: %w", err)
	}
	sum := sha256.Sum256(body)
	return body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, nil
}

var documentCacheControl = "public, max-age=" + strconv.Itoa(int(jwksMaxAge/time.Second))

// serveJWKS answers with every key that verifies now or will. A node that
// cannot know them answers 503: it may hold one that is distrusted by now.
func (e *Endpoints) serveJWKS(w http.ResponseWriter, r *http.Request) {
	if e.fresh != nil {
		if err := e.fresh(r.Context(), time.Now()); err != nil {
			e.refuse(w, r, refusedUnavailable.because(err))
			return
		}
	}
	ring := e.issuer.keyring.current.Load()
	if ring == nil {
		e.refuse(w, r, refusedUnavailable.because(errNoRing))
		return
	}
	serveDocument(w, r, ring.jwks, "application/jwk-set+json", ring.etag)
}

// serveDocument answers GET and HEAD with bytes that anybody may keep, and
// If-None-Match with 304 (RFC 9110 §13.1.2).
func serveDocument(w http.ResponseWriter, r *http.Request, body []byte, contentType, etag string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", documentCacheControl)
	h.Set("Etag", etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}
