package dialect

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/warderhq/warder/keystore"
)

// ricloud: the keys of organizations, known by their numbers. Its clients
// repeat what is answered with 5xx.

var ricloud = language{
	roots: []string{"/keys", "/key"},
	routes: []route{
		{http.MethodPost, "/keys", keystore.ScopeKeys, "keys.create", createRicloudKey, withoutTrailingComma},
		{http.MethodGet, "/keys", keystore.ScopeRead, "keys.list", listRicloudKeys, nil},
		{http.MethodGet, "/key", needsCredential, "self.read", getCallingKey, nil},
		{http.MethodGet, "/keys/{id}", keystore.ScopeRead, "keys.read", getRicloudKey, nil},
		{http.MethodPost, "/keys/{id}", keystore.ScopeKeys, "keys.update", updateRicloudKey, nil},
		{http.MethodPost, "/keys/{id}/rotate", keystore.ScopeKeys, "keys.rotate", rotateRicloudKey, nil},
	},
	credential: onlyAuthorization,
	refuse:     ricloudRefusal,
}

// The members of metadata that this system calls configs of a key.
const (
	storageConfig = "storage_config"
	webhookConfig = "webhook_config"
)

type ricloudKey struct {
	ID            keystore.Number `json:"id"`
	Resource      string          `json:"resource"`
	Organisation  keystore.Number `json:"organisation"`
	Type          string          `json:"type"`
	StorageConfig json.RawMessage `json:"storage_config"`
	WebhookConfig json.RawMessage `json:"webhook_config"`
	Token         string          `json:"token"`
	State         string          `json:"state"`
	Created       stamp           `json:"date_created"`
	Expires       stamp           `json:"date_expires"`
}

// ricloudKey shows the effective configs: the key's own laid over its
// organization's. token empty is the masked one.
func (d *Dialect) ricloudKey(c *call, r *keystore.Record, token keystore.Secret) ricloudKey {
	key := ricloudKey{
		ID: r.Number, Resource: "key", Type: r.Type.String(), State: r.State(c.now).String(),
		Token: token.Reveal(), Created: stamp(r.Created), Expires: stamp(r.Expires),
	}
	if token == "" {
		key.Token = d.masked(r)
	}
	effective := r.Metadata
	if org := d.Service.Directory.Organization(r.Organization); org != nil {
		key.Organisation = org.Number
		// Both were checked when they were written: this cannot fail any more.
		effective, _ = keystore.OverlayMetadata(org.Metadata, r.Metadata)
	}
	configs, _ := objectOf(effective)
	key.StorageConfig, key.WebhookConfig = configs[storageConfig], configs[webhookConfig]
	return key
}

// masked ends with what is public anyway: of the secret only a digest is kept.
func (d *Dialect) masked(r *keystore.Record) string {
	const shown = 4
	public := string(r.Current.AccessKey)
	if r.Current.Imported() || len(public) < shown {
		return "…"
	}
	return d.Service.Policy.Prefix + "_…" + public[len(public)-shown:]
}

func createRicloudKey(d *Dialect, c *call) (any, error) {
	in, err := d.newRicloudKey(c)
	if err != nil {
		return nil, err
	}
	once, err := c.once()
	if err != nil {
		return nil, err
	}
	issued, err := d.Service.CreateKey(c.Context(), c.attempt(), in, once, c.now)
	if err != nil {
		return nil, err
	}
	return d.ricloudKey(c, &issued.Record, issued.APIKey), nil
}

// newRicloudKey also reads what only an administrator may ask for.
func (d *Dialect) newRicloudKey(c *call) (in keystore.NewKey, err error) {
	own := object{}
	own.put(c.body, storageConfig, webhookConfig)
	if in.Metadata, err = own.metadata(); err != nil {
		return in, err
	}
	if _, err := c.body.take("scopes", &in.Scopes); err != nil {
		return in, err
	}
	var kind string
	given, err := c.body.take("type", &kind)
	if err == nil && given {
		if in.Type, err = keystore.ParseType(kind); err != nil {
			err = &keystore.FieldError{Pointer: "/type", Reason: "must be standard or trial"}
		}
	}
	if err != nil {
		return in, err
	}
	in.Organization, err = d.numberedOrganization(c)
	return in, err
}

func (d *Dialect) numberedOrganization(c *call) (string, error) {
	var number int
	given, err := c.body.take("organisation", &number)
	if err != nil || !given {
		return c.organization(), err
	}
	for _, org := range d.Service.Directory.Organizations() {
		if org.Number == keystore.Number(number) {
			return org.Slug, nil
		}
	}
	return "", keystore.ErrOrganizationNotFound
}

func listRicloudKeys(d *Dialect, c *call) (any, error) {
	q, err := ricloudQuery(c)
	if err != nil {
		return nil, err
	}
	page, err := d.Service.ListKeys(c.Context(), c.caller, q)
	if err != nil {
		return nil, err
	}
	total, err := d.Service.CountKeys(c.Context(), c.caller, q)
	if err != nil {
		return nil, err
	}
	data := make([]ricloudKey, 0, len(page.Records))
	for i := range page.Records {
		data = append(data, d.ricloudKey(c, &page.Records[i], ""))
	}
	return struct {
		Resource string       `json:"resource"`
		URL      string       `json:"url"`
		Data     []ricloudKey `json:"data"`
		HasMore  bool         `json:"has_more"`
		Total    int          `json:"total_count"`
	}{"list", "/keys", data, page.More, total}, nil
}

// ricloudQuery reads the parameters. A cursor is a place: whether the key with
// this number still exists makes no difference.
func ricloudQuery(c *call) (q keystore.Query, err error) {
	params := c.URL.Query()
	q = keystore.Query{Now: c.now, Limit: 10}
	if text := params.Get("limit"); params.Has("limit") {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > 1000 {
			return q, &keystore.FieldError{Pointer: "/limit", Reason: "must be 1 to 1000"}
		}
	}
	if params.Has("type") {
		if q.Type, err = keystore.ParseType(params.Get("type")); err != nil {
			return q, &keystore.FieldError{Pointer: "/type", Reason: "must be standard or trial"}
		}
	}
	if params.Has("state") {
		if q.State, err = keystore.ParseState(params.Get("state")); err != nil {
			return q, &keystore.FieldError{Pointer: "/state", Reason: "must be active, deactivated, blocked or expired"}
		}
	}
	if params.Has("after_id") && params.Has("before_id") {
		return q, &keystore.FieldError{Pointer: "/before_id", Reason: "cannot stand beside after_id"}
	}
	for name, place := range map[string]*keystore.Number{"after_id": &q.After, "before_id": &q.Before} {
		if !params.Has(name) {
			continue
		}
		if *place, err = numberOf(params.Get(name)); err != nil {
			return q, &keystore.FieldError{Pointer: "/" + name, Reason: "must be the id of a key"}
		}
	}
	return q, nil
}

// getCallingKey is for every key, whatever it may do.
func getCallingKey(d *Dialect, c *call) (any, error) {
	r, known, err := d.Service.Self(c.Context(), c.caller)
	if err == nil && !known {
		err = keystore.ErrKeyNotFound
	}
	if err != nil {
		return nil, err
	}
	return d.ricloudKey(c, &r, ""), nil
}

func getRicloudKey(d *Dialect, c *call) (any, error) {
	r, err := d.numbered(c)
	if err != nil {
		return nil, err
	}
	return d.ricloudKey(c, &r, ""), nil
}

// updateRicloudKey: a config that is there replaces the key's, null leaves it
// with the organization's.
func updateRicloudKey(d *Dialect, c *call) (any, error) {
	r, err := d.numbered(c)
	if err != nil {
		return nil, err
	}
	r, err = d.Service.Update(c.Context(), c.attempt(), r.ID, 0, func(e *keystore.Editable) error {
		own, err := objectOf(e.Metadata)
		if err != nil {
			return err
		}
		own.put(c.body, storageConfig, webhookConfig)
		e.Metadata, err = own.metadata()
		return err
	})
	if err != nil {
		return nil, err
	}
	return d.ricloudKey(c, &r, ""), nil
}

func rotateRicloudKey(d *Dialect, c *call) (any, error) {
	var how keystore.Rotation
	if _, err := c.body.take("force", &how.Force); err != nil {
		return nil, err
	}
	once, err := c.once()
	if err != nil {
		return nil, err
	}
	r, err := d.numbered(c)
	if err != nil {
		return nil, err
	}
	issued, err := d.Service.Rotate(c.Context(), c.attempt(), r.ID, how, once, c.now)
	if err != nil {
		return nil, err
	}
	return d.ricloudKey(c, &issued.Record, issued.APIKey), nil
}

// numbered finds the key of the path.
func (d *Dialect) numbered(c *call) (keystore.Record, error) {
	n, err := numberOf(c.path["id"])
	if err != nil {
		return keystore.Record{}, keystore.ErrKeyNotFound
	}
	page, err := d.Service.ListKeys(c.Context(), c.caller, keystore.Query{After: n - 1, Limit: 1})
	if err != nil {
		return keystore.Record{}, err
	}
	if len(page.Records) == 0 || page.Records[0].Number != n {
		return keystore.Record{}, keystore.ErrKeyNotFound
	}
	return page.Records[0], nil
}

func numberOf(text string) (keystore.Number, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if n < 1 || strconv.FormatInt(n, 10) != text {
		return 0, strconv.ErrSyntax
	}
	return keystore.Number(n), nil
}

// withoutTrailingComma forgives one comma before a closing bracket: the
// published example of this call has it.
func withoutTrailingComma(text []byte) []byte {
	if json.Valid(text) {
		return text
	}
	inString, comma, found := false, -1, -1
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case inString && b == '\\':
			i++
		case b == '"':
			inString, comma = !inString, -1
		case inString || b == ' ' || b == '\t' || b == '\r' || b == '\n':
		case (b == '}' || b == ']') && comma >= 0:
			comma, found = -1, comma
		case b == ',':
			comma = i
		default:
			comma = -1
		}
	}
	if found < 0 {
		return text
	}
	return append(bytes.Clone(text[:found]), text[found+1:]...)
}

// ricloudRefusal: 5xx only where nothing was done.
func ricloudRefusal(no refusal, _ http.Header) (int, any) {
	status, params := no.problem.Status, map[string]string{}
	if no.is(keystore.ErrNotInForce) {
		status = http.StatusConflict
	}
	if p := no.problem.Pointer; p != "" {
		params[p[1:]] = no.problem.Detail
	}
	return status, struct {
		Error   string            `json:"error"`
		Message string            `json:"message"`
		Params  map[string]string `json:"params"`
	}{no.problem.Code, no.text(), params}
}
