package keystore

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"time"
)

// AuditEntry says that somebody changed something, or tried to: one row for
// each object changed, in the transaction of the change, and one for each
// attempt refused. It holds no secret and no digest.
type AuditEntry struct {
	Number       Number // its place; given by the store
	At           Instant
	Actor        string // a key id, "local", or "warder" itself
	From         string // the address it came from; empty: this machine
	Operation    string // such as "keys.rotate"
	Kind         Kind   // of the object
	Object       string // its id, slug or name; empty: none was reached
	Organization string // of the object
	Refused      string // why nothing was changed; empty: it was
	Revision     Revision
	Before       string // what differs, as JSON objects; empty: there was, or is, none
	After        string
}

// AuditQuery selects entries. Zero fields do not restrict.
type AuditQuery struct {
	Organization string
	Actor        string
	Operation    string
	Object       string
	Refused      *bool   // only refused ones, or none of them
	Since, Until Instant // from, inclusive; to, exclusive
	Before       Number  // the page: entries of a lower number
	Limit        int     // at least 1
}

// AuditPage is a part of the audit log. More says that earlier entries match.
type AuditPage struct {
	Entries []AuditEntry
	More    bool
}

// Attribution says on whose behalf changes are made.
type Attribution struct {
	Actor     string
	From      string
	Operation string
}

// ActorWarder is what Warder does by itself.
const ActorWarder = "warder"

// Entry returns the entry for one object at now, still without what was.
func (a Attribution) Entry(kind Kind, object string, now time.Time) AuditEntry {
	return AuditEntry{
		At: InstantOf(now), Actor: a.Actor, From: a.From, Operation: a.Operation, Kind: kind, Object: object,
	}
}

// Audited returns tx with an entry written for whatever is changed through it:
// no operation can forget to.
func Audited(tx Tx, by Attribution, now time.Time) Tx { return &auditedTx{tx, by, now} }

type auditedTx struct {
	Tx
	by  Attribution
	now time.Time
}

func (t *auditedTx) PutKey(r *Record) error {
	var before Record
	if r.Number != 0 {
		var err error
		if before, err = t.Tx.Key(r.ID); err != nil {
			return err
		}
	}
	if err := t.Tx.PutKey(r); err != nil || r.Revision == before.Revision {
		return err
	}
	return t.append(KindKey, string(r.ID), r.Organization, r.Revision, auditKey(&before), auditKey(r))
}

func (t *auditedTx) DeleteKey(id KeyID) error {
	before, err := t.Tx.Key(id)
	if err != nil {
		return err
	}
	if err := t.Tx.DeleteKey(id); err != nil {
		return err
	}
	return t.append(KindKey, string(id), before.Organization, 0, auditKey(&before), nil)
}

func (t *auditedTx) PutOrganization(o *Organization) error {
	var before Organization
	if o.Number != 0 {
		var err error
		if before, err = t.Tx.Organization(o.Slug); err != nil {
			return err
		}
	}
	if err := t.Tx.PutOrganization(o); err != nil || o.Revision == before.Revision {
		return err
	}
	return t.append(KindOrganization, o.Slug, o.Slug, o.Revision, auditOrganization(&before), auditOrganization(o))
}

func (t *auditedTx) DeleteOrganization(slug string) error {
	before, err := t.Tx.Organization(slug)
	if err != nil {
		return err
	}
	if err := t.Tx.DeleteOrganization(slug); err != nil {
		return err
	}
	return t.append(KindOrganization, slug, slug, 0, auditOrganization(&before), nil)
}

func (t *auditedTx) PutDocument(d *Document) error {
	before, err := t.Tx.Document(d.Kind, d.Name)
	if err != nil {
		return err
	}
	if err := t.Tx.PutDocument(d); err != nil {
		return err
	}
	return t.append(d.Kind, d.Name, "", d.Revision, auditDocument(&before), auditDocument(d))
}

func (t *auditedTx) DeleteDocument(kind Kind, name string) error {
	before, err := t.Tx.Document(kind, name)
	if err != nil || before.Revision == 0 {
		return err
	}
	if err := t.Tx.DeleteDocument(kind, name); err != nil {
		return err
	}
	return t.append(kind, name, "", 0, auditDocument(&before), nil)
}

func (t *auditedTx) append(kind Kind, object, organization string, revision Revision, before, after auditFields) error {
	e := t.by.Entry(kind, object, t.now)
	e.Organization, e.Revision = organization, revision
	for _, f := range []auditFields{before, after} {
		if of, ok := f["organization"].(string); ok && organization == "" {
			e.Organization = of // of a document that belongs to one
		}
	}
	var err error
	if e.Before, e.After, err = difference(before, after); err != nil {
		return fmt.Errorf("describing a change of %s %s: %w", kind, object, err)
	}
	return t.Tx.AppendAudit(&e)
}

// auditFields is an object as the audit log shows it; nil: there is none.
type auditFields map[string]any

// difference returns what two states do not have in common.
func difference(before, after auditFields) (was, is string, err error) {
	if before != nil && after != nil {
		before, after = maps.Clone(before), maps.Clone(after)
		for name, value := range before {
			if other, ok := after[name]; ok && reflect.DeepEqual(value, other) {
				delete(before, name)
				delete(after, name)
			}
		}
	}
	if was, err = before.text(); err != nil {
		return "", "", err
	}
	is, err = after.text()
	return was, is, err
}

func (f auditFields) text() (string, error) {
	if f == nil {
		return "", nil
	}
	text, err := json.Marshal(f)
	return string(text), err
}

// auditKey leaves out digests, and of a credential's name what is no access key.
func auditKey(r *Record) auditFields {
	if r.ID == "" {
		return nil
	}
	f := auditFields{
		"organization": r.Organization, "type": r.Type.String(), "generation": r.Current.Generation,
		"created": r.Created.Time(), "deactivated": r.Deactivated, "blocked": r.Blocked,
	}
	f.set("name", r.Name)
	f.set("scopes", string(r.Scopes))
	f.set("permissions", string(r.Permissions))
	f.set("networks", string(r.Networks))
	f.set("limit", r.Limit.String())
	f.set("metadata", r.Metadata)
	f.setTime("expires", r.Expires)
	f.setTime("grace_end", r.GraceEnd)
	if r.Current.Imported() {
		f["imported"] = true
	} else {
		f["access_key"] = r.Current.AccessKey
	}
	return f
}

func auditOrganization(o *Organization) auditFields {
	if o.Number == 0 {
		return nil
	}
	f := auditFields{"created": o.Created.Time()}
	if o.DefaultExpiry != 0 {
		f["default_expiry_days"] = o.DefaultExpiry
	}
	if o.MaximumExpiry != 0 {
		f["maximum_expiry_days"] = o.MaximumExpiry
	}
	if o.Grace != 0 {
		f["grace"] = o.Grace.String()
	}
	if o.AllowedScopes != nil {
		f["allowed_scopes"] = o.AllowedScopes
	}
	if o.AllowedPermissions != nil {
		f["allowed_permissions"] = o.AllowedPermissions
	}
	f.set("limit", o.Limit.String())
	f.set("metadata", o.Metadata)
	return f
}

// auditDocument shows the bodies that hold no secret; of the others, that
// there is one.
func auditDocument(d *Document) auditFields {
	f := auditFields{}
	switch {
	case d.Revision == 0:
		return nil
	case d.Kind == KindPermission || d.Kind == KindSettings:
		if json.Unmarshal(d.Body, &f) != nil {
			return auditFields{}
		}
	}
	return f
}

func (f auditFields) set(name, value string) {
	if value != "" {
		f[name] = value
	}
}

func (f auditFields) setTime(name string, i Instant) {
	if i != 0 {
		f[name] = i.Time()
	}
}

// Interface guards.
var _ Tx = (*auditedTx)(nil)
