package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/warderhq/warder/managementapi"
)

// examineIssuer asks the issuer where clients find it, as they would.
func (d *doctor) examineIssuer(ctx context.Context) {
	const check = "issuer"
	if d.config.App.Issuer == nil {
		d.ok(check, "none is configured: there are no access tokens")
		return
	}
	issuer := d.config.issuerURL()
	switch {
	case !d.config.serves("warder_issuer"):
		d.hint(check, "no site has the directive warder_issuer", "add it to the one that clients reach as "+issuer)
		return
	case d.server == nil:
		d.hint(check, issuer+" was not asked, because no server runs", "start it, and look again")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	if err := askIssuer(ctx, issuer); err != nil {
		d.wrong(check, oneLine(err), "the URL of the option issuer has to be that under which clients reach warder_issuer, byte for byte; if they do and this machine does not, look from where they are")
		return
	}
	d.ok(check, "%s answers as itself, with its keys", issuer)
}

func askIssuer(ctx context.Context, issuer string) error {
	place, err := metadataURL(issuer)
	if err != nil {
		return err
	}
	raw, err := managementapi.Fetch(ctx, place)
	if err != nil {
		return fmt.Errorf("GET %s: %w", place, err)
	}
	var metadata struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(raw, &metadata); err != nil {
		return fmt.Errorf("reading the metadata of %s: %w", issuer, err)
	}
	if metadata.Issuer != issuer {
		return fmt.Errorf("what answers at %s calls itself %q", place, metadata.Issuer)
	}
	if raw, err = managementapi.Fetch(ctx, metadata.JWKS); err != nil {
		return fmt.Errorf("GET %s: %w", metadata.JWKS, err)
	}
	var keys struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &keys); err != nil || len(keys.Keys) == 0 {
		return fmt.Errorf("there are no keys at %s", metadata.JWKS)
	}
	return nil
}

// metadataURL is where RFC 8414 §3.1 has clients look: before the issuer's path.
func metadataURL(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", fmt.Errorf("reading the issuer's URL: %w", err)
	}
	return u.Scheme + "://" + u.Host + "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.Path, "/"), nil
}
