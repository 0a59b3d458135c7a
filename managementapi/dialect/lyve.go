package dialect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// Lyve Cloud: credentials for a time-bound token, service accounts, which are
// keys, and permissions.

// LyveTokenLife is how long the tokens of this dialect live.
const LyveTokenLife = 24 * time.Hour

const (
	lyveAccount    = "/service-accounts/{id}"
	lyvePermission = "/permissions/{id}"
)

var lyve = language{
	roots: []string{"/auth", "/service-accounts", "/permissions", "/usage"},
	routes: []route{
		{http.MethodPost, "/auth/token", needsNothing, "tokens.create", createToken, nil},
		{http.MethodGet, "/auth/token", needsCredential, "tokens.read", readToken, nil},

		{http.MethodPost, "/service-accounts", keystore.ScopeKeys, "keys.create", createServiceAccount, nil},
		{http.MethodGet, "/service-accounts", keystore.ScopeRead, "keys.list", listServiceAccounts, nil},
		{http.MethodGet, lyveAccount, keystore.ScopeRead, "keys.read", getServiceAccount, nil},
		{http.MethodPut, lyveAccount, keystore.ScopeKeys, "keys.update", updateServiceAccount, nil},
		{http.MethodDelete, lyveAccount, keystore.ScopeKeys, "keys.delete", deleteServiceAccount, nil},
		{http.MethodPut, lyveAccount + "/enabled", keystore.ScopeKeys, "keys.activate", enableServiceAccount, nil},
		{http.MethodDelete, lyveAccount + "/enabled", keystore.ScopeKeys, "keys.deactivate", disableServiceAccount, nil},

		{http.MethodPost, "/permissions", keystore.ScopeKeys, "permissions.create", createPermission, nil},
		{http.MethodGet, "/permissions", keystore.ScopeRead, "permissions.list", listPermissions, nil},
		{http.MethodGet, lyvePermission, keystore.ScopeRead, "permissions.read", getPermission, nil},
		{http.MethodPut, lyvePermission, keystore.ScopeKeys, "permissions.update", updatePermission, nil},
		{http.MethodDelete, lyvePermission, keystore.ScopeKeys, "permissions.delete", deletePermission, nil},

		{http.MethodGet, "/usage/current", keystore.ScopeRead, "usage.read", currentUsage, nil},
		{http.MethodGet, "/usage/monthly", keystore.ScopeRead, "usage.read", monthlyUsage, nil},
	},
	credential: onlyAuthorization,
	refuse:     lyveRefusal,
}

// createToken proves the pair in the body. The account is the organization.
// Which of the three is wrong, and why, nobody learns.
func createToken(d *Dialect, c *call) (any, error) {
	if d.Tokens == nil {
		return nil, errNoTokens
	}
	var account, access, secret string
	for _, part := range []struct {
		name  string
		value *string
	}{{"accountId", &account}, {"accessKey", &access}, {"secret", &secret}} { // in this order: one body, one answer
		given, err := c.body.take(part.name, part.value)
		if err != nil {
			return nil, err
		}
		if !given {
			return nil, &keystore.FieldError{Pointer: "/" + part.name, Reason: "is required"}
		}
	}
	principal, err := d.Authenticate(c.Request, keystore.Presented{
		Kind: keystore.CredentialKey, Access: keystore.AccessKey(access), Secret: secret,
	})
	if err == nil && principal.Record.Organization != account {
		err = keystore.ErrInvalid
	}
	if err != nil {
		return nil, deniedPair(err)
	}
	minted, err := d.Tokens.Mint(principal, principal.Scopes, c.now)
	if err != nil {
		return nil, deniedPair(err)
	}
	return map[string]string{"token": minted.Token.Reveal(), "expirationSec": strconv.FormatInt(minted.ExpiresIn(), 10)}, nil
}

// deniedPair tells a denial, of which there is one, from an outage.
func deniedPair(err error) error {
	err = &managementapi.CallerError{Err: err}
	if status := managementapi.ProblemOf(err).Status; status < http.StatusInternalServerError && status != http.StatusTooManyRequests {
		return errPair
	}
	return err
}

func readToken(d *Dialect, c *call) (any, error) {
	if d.Tokens == nil {
		return nil, errNoTokens
	}
	token, _ := cutScheme(c.authorization, "Bearer")
	ends, err := d.Tokens.Ends(token, c.now)
	if err != nil {
		return nil, &managementapi.CallerError{Err: err}
	}
	return map[string]string{"expirationSec": strconv.FormatInt(int64(ends.Sub(c.now)/time.Second), 10)}, nil
}

// serviceAccount is a key as it is shown here.
type serviceAccount struct {
	ID          keystore.KeyID `json:"id"`
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Enabled     bool           `json:"enabled"`
	Expires     string         `json:"expirationDate"`
	ReadyState  string         `json:"readyState"`
	Permissions []string       `json:"permissions"`
}

const ready = "ready" // in force is in force: there are no regions to wait for

func serviceAccountOf(r *keystore.Record) serviceAccount {
	return serviceAccount{
		ID: r.ID, Name: r.Name, Description: textMember(r.Metadata, "description"), Enabled: !r.Deactivated,
		Expires: expirationDate(r), ReadyState: ready, Permissions: append([]string{}, r.Permissions.List()...),
	}
}

func expirationDate(r *keystore.Record) string {
	if r.Expires == 0 {
		return ""
	}
	return r.Expires.Time().Truncate(time.Second).Format(time.RFC3339)
}

func createServiceAccount(d *Dialect, c *call) (any, error) {
	in := keystore.NewKey{Organization: c.organization()}
	if _, err := c.body.take("name", &in.Name); err != nil {
		return nil, err
	}
	if _, err := c.body.take("scopes", &in.Scopes); err != nil {
		return nil, err
	}
	var err error
	if in.Metadata, err = described("", c.body); err != nil {
		return nil, err
	}
	if in.Permissions, _, err = d.askedPermissions(c); err != nil {
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
	r := &issued.Record
	return map[string]any{
		"id": r.ID, "accessKey": r.Current.AccessKey, "secret": issued.SecretKey.Reveal(), "expirationDate": expirationDate(r),
	}, nil
}

// described returns metadata with the description that is in the body.
func described(metadata string, body object) (string, error) {
	var text string
	if _, err := body.take("description", &text); err != nil {
		return "", err
	}
	own, err := objectOf(metadata)
	if err != nil {
		return "", err
	}
	own.put(body, "description")
	return own.metadata()
}

// askedPermissions: an empty list would read as "nothing" in this system, but
// a key that refers to no permission may do what its organization allows.
func (d *Dialect) askedPermissions(c *call) (ids []string, given bool, err error) {
	if given, err = c.body.take("permissions", &ids); err != nil || !given {
		return nil, false, err
	}
	if len(ids) == 0 {
		return nil, false, &keystore.FieldError{Pointer: "/permissions", Reason: "must name at least one"}
	}
	for _, id := range ids {
		if _, err := d.Service.Permission(c.caller, id); err != nil {
			return nil, false, err
		}
	}
	return ids, true, nil
}

func listServiceAccounts(d *Dialect, c *call) (any, error) {
	all, err := d.keys(c, keystore.Query{Organization: c.organization()})
	if err != nil {
		return nil, err
	}
	list := make([]serviceAccount, 0, len(all))
	for i := range all {
		list = append(list, serviceAccountOf(&all[i]))
	}
	return list, nil
}

func getServiceAccount(d *Dialect, c *call) (any, error) {
	r, err := d.serviceAccount(c)
	if err != nil {
		return nil, err
	}
	return serviceAccountOf(&r), nil
}

func (d *Dialect) serviceAccount(c *call) (keystore.Record, error) {
	return d.Service.Key(c.Context(), c.caller, keystore.KeyID(c.path["id"]))
}

// updateServiceAccount changes what is there; null is the default.
func updateServiceAccount(d *Dialect, c *call) (any, error) {
	var name string
	if _, err := c.body.take("name", &name); err != nil {
		return nil, err
	}
	permissions, _, err := d.askedPermissions(c)
	if err != nil {
		return nil, err
	}
	_, err = d.Service.Update(c.Context(), c.attempt(), keystore.KeyID(c.path["id"]), 0, func(e *keystore.Editable) (err error) {
		if c.body.has("name") {
			e.Name = name
		}
		if c.body.has("permissions") {
			e.Permissions = permissions
		}
		e.Metadata, err = described(e.Metadata, c.body)
		return err
	})
	return nil, err
}

func deleteServiceAccount(d *Dialect, c *call) (any, error) {
	_, err := d.Service.DeleteKey(c.Context(), c.attempt(), keystore.KeyID(c.path["id"]), 0)
	return nil, err
}

func enableServiceAccount(d *Dialect, c *call) (any, error)  { return d.setEnabled(c, true) }
func disableServiceAccount(d *Dialect, c *call) (any, error) { return d.setEnabled(c, false) }

// setEnabled: in this system an expired account is told to be so, instead of
// being switched without effect.
func (d *Dialect) setEnabled(c *call, on bool) (any, error) {
	r, err := d.serviceAccount(c)
	if err != nil {
		return nil, err
	}
	if r.State(c.now) == keystore.StateExpired {
		return nil, keystore.ErrExpired
	}
	_, err = d.Service.SetDeactivated(c.Context(), c.attempt(), r.ID, !on, 0)
	return nil, err
}

// lyveMember is where a permission's fields are kept that only this system
// understands.
const lyveMember = "lyve"

// permissionFields are those fields: what a permission is about in this
// system. What it allows here, its policy says alone.
var permissionFields = []string{"type", "actions", "buckets", "prefix"}

func createPermission(d *Dialect, c *call) (any, error) {
	p := keystore.Permission{Organization: c.organization()}
	if err := editPermission(&p, c.body); err != nil {
		return nil, err
	}
	made, err := d.Service.CreatePermission(c.Context(), c.attempt(), p, c.now)
	if err != nil {
		return nil, blamePolicy(err)
	}
	return map[string]string{"id": made.ID}, nil
}

// editPermission changes what is there; null takes it away.
func editPermission(p *keystore.Permission, body object) error {
	for name, field := range map[string]*string{"name": &p.Name, "description": &p.Description} {
		var text string
		if _, err := body.take(name, &text); err != nil {
			return err
		}
		if body.has(name) {
			*field = text
		}
	}
	if body.has("policy") {
		rules, err := policyRules(body["policy"])
		if err != nil {
			return err
		}
		p.Rules = rules
	}
	return editPermissionFields(p, body)
}

func editPermissionFields(p *keystore.Permission, body object) error {
	all, err := objectOf(p.Metadata)
	if err != nil {
		return err
	}
	own := object{}
	if _, err := all.take(lyveMember, &own); err != nil {
		return err
	}
	own.put(body, permissionFields...)
	text, err := own.metadata()
	if err != nil {
		return err
	}
	if delete(all, lyveMember); text != "" {
		all[lyveMember] = json.RawMessage(text)
	}
	p.Metadata, err = all.metadata()
	return err
}

// policyRules reads {"rules": […]}, as such or in a string; null has none. It
// has one reading: a member that is not known could be meant to restrict, and
// so could one that is spelled otherwise or is there twice.
func policyRules(raw json.RawMessage) ([]keystore.Rule, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil && text != "" {
		raw = json.RawMessage(text)
	}
	if string(raw) == "null" {
		return nil, nil
	}
	policy, err := managementapi.ParseObject(raw)
	var list []object
	if err != nil || !object(policy).only("rules") || json.Unmarshal(policy["rules"], &list) != nil || list == nil {
		return nil, errPolicy
	}
	rules := make([]keystore.Rule, len(list))
	for i, in := range list {
		_, methods := in.take("methods", &rules[i].Methods)
		_, paths := in.take("paths", &rules[i].Paths)
		if methods != nil || paths != nil || !in.only("methods", "paths") {
			return nil, errPolicy
		}
	}
	return rules, nil
}

var errPolicy = &keystore.FieldError{Pointer: "/policy", Reason: `must be {"rules":[{"methods":["GET"],"paths":["/v1/*"]}]}`}

func permissionOf(p *keystore.Permission) (object, error) {
	shown := object{}
	if all, err := objectOf(p.Metadata); err == nil {
		own := object{}
		_, _ = all.take(lyveMember, &own)
		shown.put(own, permissionFields...)
	}
	fields := map[string]any{"id": p.ID, "name": p.Name, "description": p.Description, "readyState": ready}
	if len(p.Rules) > 0 {
		fields["policy"] = map[string]any{"rules": p.Rules}
	}
	for name, value := range fields {
		text, err := encode(value)
		if err != nil {
			return nil, err
		}
		shown[name] = bytes.TrimSpace(text)
	}
	return shown, nil
}

func listPermissions(d *Dialect, c *call) (any, error) {
	all, err := d.Service.Permissions(c.caller, c.organization())
	if err != nil {
		return nil, err
	}
	list := make([]object, len(all))
	for i := range all {
		if list[i], err = permissionOf(&all[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func getPermission(d *Dialect, c *call) (any, error) {
	p, err := d.Service.Permission(c.caller, c.path["id"])
	if err != nil {
		return nil, err
	}
	return permissionOf(&p)
}

func updatePermission(d *Dialect, c *call) (any, error) {
	_, err := d.Service.UpdatePermission(c.Context(), c.attempt(), c.path["id"], 0, func(p *keystore.Permission) error {
		return editPermission(p, c.body)
	})
	return nil, blamePolicy(err)
}

// blamePolicy makes an error of the core point into the policy, where the
// rules were sent.
func blamePolicy(err error) error {
	if f, ok := errors.AsType[*keystore.FieldError](err); ok && isBelow(f.Pointer, "/rules") {
		return &keystore.FieldError{Pointer: "/policy" + f.Pointer, Reason: f.Reason}
	}
	return err
}

func deletePermission(d *Dialect, c *call) (any, error) {
	_, err := d.Service.DeletePermission(c.Context(), c.attempt(), c.path["id"], 0)
	return nil, err
}

// monthUsage is one month of an organization.
type monthUsage struct {
	Month    string `json:"month"`
	Requests uint64 `json:"requests"` // all that named a key
	Refused  uint64 `json:"refused"`  // of those
	Keys     int    `json:"keys"`     // that were named
}

func currentUsage(d *Dialect, c *call) (any, error) {
	month := monthOf(c.now)
	return d.usage(c, month, month)
}

func monthlyUsage(d *Dialect, c *call) (any, error) {
	from, err := askedMonth(c, "fromMonth")
	if err != nil {
		return nil, err
	}
	to, err := askedMonth(c, "toMonth")
	if err != nil {
		return nil, err
	}
	return d.usage(c, from, to)
}

func askedMonth(c *call, name string) (time.Time, error) {
	month, err := time.Parse("2006-01", c.URL.Query().Get(name))
	if err != nil {
		return time.Time{}, errTimeRange
	}
	return month, nil
}

func monthOf(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}

// maxMonths bounds an answer, which has a line for each month.
const maxMonths = 120

func (d *Dialect) usage(c *call, from, to time.Time) (any, error) {
	months := (to.Year()-from.Year())*12 + int(to.Month()-from.Month()) + 1
	if months < 1 || months > maxMonths {
		return nil, errTimeRange
	}
	list := make([]monthUsage, 0, months)
	for i := range months {
		one, err := d.usageIn(c, from.AddDate(0, i, 0))
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return map[string]any{"usage": list}, nil
}

// usageIn asks for a month at a time: there is a row for each key.
func (d *Dialect) usageIn(c *call, month time.Time) (monthUsage, error) {
	number := keystore.DayOf(keystore.InstantOf(month)).Month()
	rows, err := d.Service.Usage(c.Context(), c.caller, keystore.UsageQuery{
		Organization: c.organization(), FromMonth: number, ToMonth: number, ByKey: true,
	}, c.now)
	sum := monthUsage{Month: month.Format("2006-01")}
	for i, row := range rows { // in the order of keys
		sum.Requests += row.Requests
		if row.Outcome != keystore.OutcomeAllowed {
			sum.Refused += row.Requests
		}
		if i == 0 || rows[i-1].Key != row.Key {
			sum.Keys++
		}
	}
	return sum, err
}

// lyveCodes say what this system calls a refusal; the first that fits.
var lyveCodes = []struct {
	err    error
	status int
	code   string
}{
	{errPair, http.StatusForbidden, "AuthenticationFailed"},
	{keystore.ErrForbidden, http.StatusForbidden, "AuthenticationFailed"},
	{errTimeRange, http.StatusBadRequest, "InvalidTimeRange"},
	{keystore.ErrNotInForce, http.StatusConflict, "%sNotReady"},
	{keystore.ErrKeyNotFound, http.StatusNotFound, "ServiceAccountNotFound"},
	{keystore.ErrPermissionNotFound, http.StatusNotFound, "PermissionNotFound"},
	{keystore.ErrExpired, http.StatusNotFound, "ServiceAccountExpired"},
	{keystore.ErrNameTaken, http.StatusConflict, "%sNameAlreadyExists"},
	{keystore.ErrPermissionInUse, http.StatusConflict, "%sNotReady"},
	{keystore.ErrLastKey, http.StatusConflict, "%sNotReady"},
	{keystore.ErrBlocked, http.StatusConflict, "%sNotReady"},
}

func lyveRefusal(no refusal, _ http.Header) (int, any) {
	status, code := lyveCode(no)
	if strings.HasPrefix(code, "%s") {
		kind := "ServiceAccount"
		if strings.HasPrefix(no.call.route.operation, "permissions.") {
			kind = "Permission"
		}
		code = fmt.Sprintf(code, kind)
	}
	return status, map[string]string{"code": code, "message": no.text()}
}

func lyveCode(no refusal) (int, string) {
	switch expired := no.is(keystore.ErrExpired) || no.is(keystore.ErrTokenExpired); {
	case no.ofCredential() && expired:
		return http.StatusBadRequest, "ExpiredToken"
	case no.ofCredential():
		return http.StatusBadRequest, "InvalidToken"
	}
	for _, row := range lyveCodes {
		if no.is(row.err) {
			return row.status, row.code
		}
	}
	switch status := no.problem.Status; status {
	case http.StatusNotFound:
		return status, "NotFound"
	case http.StatusMethodNotAllowed:
		return status, "MethodNotAllowed"
	case http.StatusForbidden:
		return status, "AuthenticationFailed"
	case http.StatusTooManyRequests:
		return status, "TooManyRequests"
	case http.StatusServiceUnavailable:
		return status, "ServiceNotReady"
	case http.StatusInternalServerError:
		return status, "InternalError"
	default:
		return http.StatusBadRequest, "InvalidArgument"
	}
}
