package dialect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// F5 Distributed Cloud: API credentials and service credentials, which are
// keys found by their names.

const f5xcNamespace = "/api/web/namespaces/{namespace}/"

var f5xc = language{
	roots: []string{"/api/web"},
	routes: slices.Concat(
		credentials{"api_credentials", apiToken}.routes(),
		credentials{"service_credentials", serviceAPIToken}.routes(),
		[]route{{http.MethodGet, "/api/web/custom/namespaces/{namespace}/whoami", needsCredential, "self.read", whoami, nil}},
	),
	credential: f5xcCredential,
	refuse:     f5xcRefusal,
}

func f5xcCredential(h http.Header) (string, error) {
	authorization, err := onlyAuthorization(h)
	if token, ok := cutScheme(authorization, "APIToken"); ok {
		return "Bearer " + token, err
	}
	return authorization, err
}

// The types that are made here: all others are certificates.
const (
	apiToken        = "API_TOKEN" // what a key without a type is
	serviceAPIToken = "SERVICE_API_TOKEN"
)

// credentials is one of the two kinds, and the type that is made of it.
type credentials struct {
	path string
	kind string
}

func (k credentials) routes() []route {
	const read, write = keystore.ScopeRead, keystore.ScopeKeys
	return []route{
		{http.MethodPost, f5xcNamespace + k.path, write, "keys.create", k.create, nil},
		{http.MethodGet, f5xcNamespace + k.path, read, "keys.list", k.list, nil},
		{http.MethodGet, f5xcNamespace + k.path + "/{name}", read, "keys.read", k.get, nil},
		{http.MethodPost, f5xcNamespace + "renew/" + k.path, write, "keys.renew", k.renew, nil},
		{http.MethodPost, f5xcNamespace + "activate/" + k.path, write, "keys.activate", k.activate, nil},
		{http.MethodPost, f5xcNamespace + "revoke/" + k.path, write, "keys.delete", k.revoke, nil},
		{http.MethodPost, f5xcNamespace + "bulk_revoke/" + k.path, write, "keys.bulk_delete", k.bulkRevoke, nil},
	}
}

// f5xcMember is where the type of a service credential is kept.
const f5xcMember = "f5xc"

func f5xcType(r *keystore.Record) string {
	kind := apiToken
	if all, err := objectOf(r.Metadata); err == nil {
		own := object{}
		_, _ = all.take(f5xcMember, &own)
		_, _ = own.take("type", &kind)
	}
	return kind
}

func (k credentials) has(r *keystore.Record) bool {
	return (f5xcType(r) == serviceAPIToken) == (k.kind == serviceAPIToken)
}

func (k credentials) create(d *Dialect, c *call) (any, error) {
	org, err := f5xcOrganization(c)
	if err != nil {
		return nil, err
	}
	in := keystore.NewKey{Organization: org}
	if _, err := c.body.take("name", &in.Name); err != nil {
		return nil, err
	}
	if _, err := c.body.take("scopes", &in.Scopes); err != nil {
		return nil, err
	}
	if in.Metadata, err = k.asked(c.body); err != nil {
		return nil, err
	}
	days, given, err := expirationDays(c.body)
	if err != nil {
		return nil, err
	}
	if given {
		in.Expires = days.After(c.now)
	}
	once, err := c.once()
	if err != nil {
		return nil, err
	}
	issued, err := d.Service.CreateKey(c.Context(), c.attempt(), in, once, c.now)
	if err != nil {
		return nil, blame(err, "/expires_at", "/expiration_days")
	}
	return struct {
		Data    string `json:"data"`
		Name    string `json:"name"`
		Active  bool   `json:"active"`
		Expires stamp  `json:"expiration_timestamp"`
	}{issued.APIKey.Reveal(), f5xcName(&issued.Record), isActive(&issued.Record, c), stamp(issued.Record.Expires)}, nil
}

// asked reads the type, which has to be ours: absent means a certificate in
// this system. It returns the metadata that keeps it.
func (k credentials) asked(body object) (string, error) {
	spec, kind := object{}, ""
	if _, err := body.take("spec", &spec); err != nil {
		return "", err
	}
	inSpec, err := spec.take("type", &kind)
	if err == nil && !inSpec {
		_, err = body.take("type", &kind)
	}
	if err != nil || kind != k.kind {
		return "", &keystore.FieldError{Pointer: "/spec/type", Reason: "must be " + k.kind + "; certificates are not made here"}
	}
	if kind == apiToken {
		return "", nil
	}
	return object{f5xcMember: json.RawMessage(`{"type":"` + kind + `"}`)}.metadata()
}

// expirationDays reads a number of days, of which 0 is one.
func expirationDays(body object) (days keystore.Days, given bool, err error) {
	const pointer = "/expiration_days"
	var n int
	if given, err = body.take(pointer[1:], &n); err != nil {
		return 0, given, err
	}
	if n < 0 || n > int(keystore.MaximumDays) {
		return 0, given, &keystore.FieldError{Pointer: pointer, Reason: "must be 0 to 36525"}
	}
	return keystore.Days(n), given, nil
}

// f5xcItem is a credential in a list.
type f5xcItem struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	UID       string `json:"uid"`
	Type      string `json:"type"`
	Created   stamp  `json:"create_timestamp"`
	Expires   stamp  `json:"expiry_timestamp"`
	Email     string `json:"user_email"` // nobody's: a key belongs to its organization
	Active    bool   `json:"active"`
}

func (k credentials) list(d *Dialect, c *call) (any, error) {
	org, err := f5xcOrganization(c)
	if err != nil {
		return nil, err
	}
	all, err := d.keys(c, keystore.Query{Organization: org})
	if err != nil {
		return nil, err
	}
	items := make([]f5xcItem, 0, len(all))
	for i := range all {
		r := &all[i]
		if !k.has(r) {
			continue
		}
		items = append(items, f5xcItem{
			Name: f5xcName(r), Namespace: c.path["namespace"], UID: string(r.ID), Type: f5xcType(r),
			Created: stamp(r.Created), Expires: stamp(r.Expires), Active: isActive(r, c),
		})
	}
	return map[string]any{"items": items}, nil
}

func (k credentials) get(d *Dialect, c *call) (any, error) {
	r, err := k.named(d, c, c.path["name"])
	if err != nil {
		return nil, err
	}
	return map[string]any{"object": map[string]any{
		"metadata": map[string]any{
			"name": f5xcName(&r), "namespace": c.path["namespace"], "uid": r.ID, "labels": struct{}{},
			"annotations": struct{}{}, "description": textMember(r.Metadata, "description"), "disable": r.Deactivated,
		},
		"system_metadata": map[string]any{
			"uid": r.ID, "tenant": r.Organization, "creation_timestamp": stamp(r.Created),
		},
		"spec": map[string]any{"gc_spec": map[string]any{
			"type": f5xcType(&r), "users": []string{}, "digest": f5xcDigest(&r),
			"created_timestamp": stamp(r.Created), "expiration_timestamp": stamp(r.Expires), "active": isActive(&r, c),
		}},
	}}, nil
}

// f5xcDigest tells credentials apart by their public halves. Of the secret no
// digest is shown.
func f5xcDigest(r *keystore.Record) string {
	if r.Current.Imported() {
		return ""
	}
	sum := sha256.Sum256([]byte(r.Current.AccessKey))
	return hex.EncodeToString(sum[:])
}

// renew also ends a credential: in 0 days.
func (k credentials) renew(d *Dialect, c *call) (any, error) {
	days, given, err := expirationDays(c.body)
	if err == nil && !given {
		err = &keystore.FieldError{Pointer: "/expiration_days", Reason: "is required"}
	}
	return k.transit(d, c, err, func(r *keystore.Record) error {
		if f5xcType(r) != k.kind {
			return &keystore.FieldError{Pointer: "/name", Reason: "must name one of type " + k.kind}
		}
		if days == 0 {
			_, err := d.Service.Expire(c.Context(), c.attempt(), r.ID, 0, c.now)
			return err
		}
		_, err := d.Service.Renew(c.Context(), c.attempt(), r.ID, days, 0, c.now)
		return blame(err, "/days", "/expiration_days")
	})
}

func (k credentials) activate(d *Dialect, c *call) (any, error) {
	return k.transit(d, c, nil, func(r *keystore.Record) error {
		_, err := d.Service.SetDeactivated(c.Context(), c.attempt(), r.ID, false, 0)
		return err
	})
}

func (k credentials) revoke(d *Dialect, c *call) (any, error) {
	return k.transit(d, c, nil, func(r *keystore.Record) error {
		_, err := d.Service.DeleteKey(c.Context(), c.attempt(), r.ID, 0)
		return err
	})
}

// transit is what the calls on one credential that is named in the body have
// in common. Without a name they touch nothing.
func (k credentials) transit(d *Dialect, c *call, err error, do func(*keystore.Record) error) (any, error) {
	if err != nil {
		return nil, err
	}
	var name string
	if _, err := c.body.take("name", &name); err != nil {
		return nil, err
	}
	if name == "" {
		return nil, &keystore.FieldError{Pointer: "/name", Reason: "is required"}
	}
	r, err := k.named(d, c, name)
	if err != nil {
		return nil, err
	}
	if err := do(&r); err != nil {
		return nil, err
	}
	return map[string]bool{"status": true}, nil
}

// bulkRevoked is the answer of bulkRevoke, which fails only as a whole.
type bulkRevoked struct {
	Marked  []string `json:"credentials_marked_for_deletion"`
	Failed  []string `json:"credentials_failed"`
	Message string   `json:"error_message"`
}

func (b *bulkRevoked) fail(name string, err error) {
	if b.Message != "" {
		b.Message += "; "
	}
	b.Failed = append(b.Failed, name)
	b.Message += name + ": " + managementapi.ProblemOf(err).Detail
}

func (k credentials) bulkRevoke(d *Dialect, c *call) (any, error) {
	var byName, byExpiry object
	named, err := c.body.take("name_selector", &byName)
	if err != nil {
		return nil, err
	}
	expired, err := c.body.take("expired_selector", &byExpiry)
	switch {
	case err != nil:
		return nil, err
	case named == expired:
		return nil, &keystore.FieldError{Pointer: "/name_selector", Reason: "must be there, or expired_selector, but not both"}
	case expired:
		return k.revokeExpired(d, c)
	}
	var names []string
	if _, err := byName.take("names", &names); err != nil {
		return nil, err
	}
	return k.revokeNamed(d, c, names)
}

func (k credentials) revokeNamed(d *Dialect, c *call, names []string) (any, error) {
	if len(names) < 1 || len(names) > keystore.MaximumBulk {
		return nil, &keystore.FieldError{Pointer: "/name_selector/names", Reason: "must be 1 to 200 names"}
	}
	done := bulkRevoked{Marked: []string{}, Failed: []string{}}
	nameOf := make(map[keystore.KeyID]string)
	var ids []keystore.KeyID
	for _, name := range names {
		r, err := k.named(d, c, name)
		if errors.Is(err, keystore.ErrKeyNotFound) {
			done.fail(name, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, twice := nameOf[r.ID]; !twice {
			nameOf[r.ID], ids = name, append(ids, r.ID)
		}
	}
	if len(ids) == 0 {
		return done, nil
	}
	deleted, err := d.Service.DeleteKeys(c.Context(), c.attempt(), keystore.BulkDelete{IDs: ids}, c.now)
	if err != nil {
		return nil, err
	}
	for _, id := range deleted.Deleted {
		done.Marked = append(done.Marked, nameOf[id])
	}
	for _, f := range deleted.Failed {
		done.fail(nameOf[f.ID], f.Err)
	}
	return done, nil
}

// revokeExpired deletes each as it was seen: one that is renewed meanwhile
// stays. What has been deleted is said even if something fails then.
func (k credentials) revokeExpired(d *Dialect, c *call) (any, error) {
	org, err := f5xcOrganization(c)
	if err != nil {
		return nil, err
	}
	all, err := d.keys(c, keystore.Query{Organization: org, State: keystore.StateExpired, Now: c.now})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r keystore.Record) bool { return !k.has(&r) })
	done := bulkRevoked{Marked: []string{}, Failed: []string{}}
	ctx := context.WithoutCancel(c.Context())
	for i := range all[:min(len(all), keystore.MaximumBulk)] {
		name := f5xcName(&all[i])
		switch _, err := d.Service.DeleteKey(ctx, c.attempt(), all[i].ID, all[i].Revision); {
		case err == nil:
			done.Marked = append(done.Marked, name)
		case !errors.Is(err, keystore.ErrStaleEdit):
			done.fail(name, err)
		}
	}
	if more := len(all) - keystore.MaximumBulk; more > 0 {
		done.Message = strings.TrimPrefix(done.Message+fmt.Sprintf("; %d more have expired: call again", more), "; ")
	}
	return done, nil
}

func whoami(d *Dialect, c *call) (any, error) {
	org, err := f5xcOrganization(c)
	if err != nil {
		return nil, err
	}
	return map[string]string{"name": c.caller.Actor, "email": "", "namespace": c.path["namespace"], "tenant": org}, nil
}

// f5xcOrganization: the path decides, and names nothing but the caller's own.
func f5xcOrganization(c *call) (string, error) {
	own := c.organization()
	if ns := c.path["namespace"]; ns != "system" && ns != own {
		return "", keystore.ErrOrganizationNotFound
	}
	return own, nil
}

// named finds a credential of this kind.
func (k credentials) named(d *Dialect, c *call, name string) (keystore.Record, error) {
	org, err := f5xcOrganization(c)
	if err != nil {
		return keystore.Record{}, err
	}
	page, err := d.Service.ListKeys(c.Context(), c.caller, keystore.Query{Organization: org, Name: name, Limit: 1})
	if err != nil {
		return keystore.Record{}, err
	}
	var r keystore.Record
	if len(page.Records) > 0 {
		r = page.Records[0]
	} else if r, err = d.Service.Key(c.Context(), c.caller, keystore.KeyID(name)); err != nil {
		return keystore.Record{}, err
	}
	if r.Organization != org || !k.has(&r) {
		return keystore.Record{}, keystore.ErrKeyNotFound
	}
	return r, nil
}

// f5xcName: in this system everything has a name. A key without one goes by
// its id.
func f5xcName(r *keystore.Record) string {
	if r.Name == "" {
		return string(r.ID)
	}
	return r.Name
}

func isActive(r *keystore.Record, c *call) bool { return r.State(c.now) == keystore.StateActive }

// f5xcRefusal: the body is a JSON string.
func f5xcRefusal(no refusal, _ http.Header) (int, any) {
	status := no.problem.Status
	switch {
	case no.is(keystore.ErrNotInForce):
		status = http.StatusConflict
	case no.is(context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	case no.is(keystore.ErrNeverExpires):
		status = http.StatusBadRequest
	}
	return status, no.text()
}
