package managementapi

import (
	"net/http"
	"net/url"
	"strings"
)

// CheckOrigin refuses what a browser sends on behalf of another site, for
// every method: a page elsewhere must neither change nor read anything here
// through somebody's browser. Clients that are no browsers send neither
// header.
func CheckOrigin(r *http.Request) error {
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" { // none: typed by the user
			return errCrossOrigin
		}
	}
	for _, origin := range r.Header.Values("Origin") {
		if !sameOrigin(origin, r) {
			return errCrossOrigin
		}
	}
	return nil
}

// sameOrigin compares an Origin (RFC 6454) with the host the request is for.
// Behind a proxy that ends TLS the scheme cannot be known, so plain HTTP here
// accepts both; under TLS here a page loaded without it is foreign.
func sameOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return false
	}
	if u.Scheme != "https" && (u.Scheme != "http" || r.TLS != nil) {
		return false
	}
	return strings.EqualFold(u.Host, r.Host)
}
