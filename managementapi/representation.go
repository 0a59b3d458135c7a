package managementapi

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Key is a key as callers see it. A digest never is.
type Key struct {
	ID           keystore.KeyID  `json:"id"`
	Number       keystore.Number `json:"number"`
	Organization string          `json:"organization"`
	Name         string          `json:"name"`
	Type         string          `json:"type"`
	State        string          `json:"state"`
	AccessKey    AccessKey       `json:"access_key"`
	Imported     bool            `json:"imported"` // the credential is another system's, and has no access key
	Generation   uint64          `json:"generation"`
	Scopes       []string        `json:"scopes"`
	Permissions  []string        `json:"permissions"`
	Networks     []string        `json:"networks"`
	Limit        *string         `json:"limit"` // null: the organization's
	Metadata     json.RawMessage `json:"metadata"`
	CreatedAt    time.Time       `json:"created_at"`
	ExpiresAt    *time.Time      `json:"expires_at"`   // null: never
	Expires      string          `json:"expires"`      // the same for people
	LastUsedAt   *time.Time      `json:"last_used_at"` // of the current secret; null: not yet
	Deactivated  bool            `json:"deactivated"`
	Blocked      bool            `json:"blocked"`

	// Of the secret replaced last, whether or not it still passes.
	Previous *PreviousSecret `json:"previous,omitempty"`

	// While a rotated-out secret is still accepted: its generation, and
	// until when.
	PreviousGeneration uint64     `json:"previous_generation,omitempty"`
	GraceEnd           *time.Time `json:"grace_end,omitempty"`

	Revision keystore.Revision `json:"revision"`
}

// AccessKey is an access key, or null: an imported credential has none.
type AccessKey keystore.AccessKey

// MarshalJSON implements json.Marshaler.
func (k AccessKey) MarshalJSON() ([]byte, error) {
	if k == "" {
		return []byte("null"), nil
	}
	return encode(string(k))
}

// PreviousSecret is the secret that the last rotation or regeneration
// replaced. It tells who still uses the old one.
type PreviousSecret struct {
	Generation uint64     `json:"generation"`
	GraceEnd   *time.Time `json:"grace_end"` // until when it passes, or passed; null: it is dead for good
	Imported   bool       `json:"imported"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

// IssuedKey is a key with its secret: the only time that it is shown.
type IssuedKey struct {
	Key
	APIKey    Shown `json:"api_key"`
	SecretKey Shown `json:"secret_key"`
}

// Shown is a secret on its way to its owner. It goes into JSON, and nowhere
// else by accident.
type Shown string

func (Shown) String() string   { return "[secret]" }
func (Shown) GoString() string { return "[secret]" }

// Reveal returns the text itself.
func (s Shown) Reveal() string { return string(s) }

// KeyPage is a part of a list. Next, if not null, is the cursor of what
// follows, for after; Previous that of what goes before, for before.
type KeyPage struct {
	Keys     []Key   `json:"keys"`
	Next     *string `json:"next"`
	Previous *string `json:"previous"`
}

// DeletedKey is the answer to a deletion.
type DeletedKey struct {
	ID       keystore.KeyID    `json:"id"`
	Deleted  bool              `json:"deleted"`
	Revision keystore.Revision `json:"revision"`
}

// Organization is an organization as callers see it.
type Organization struct {
	Slug              string          `json:"slug"`
	Number            keystore.Number `json:"number"`
	DefaultExpiryDays *int            `json:"default_expiry_days"` // null: never
	MaximumExpiryDays *int            `json:"maximum_expiry_days"` // null: none
	GraceSeconds      *int            `json:"grace_seconds"`       // null: as the configuration says
	Limit             *string         `json:"limit"`               // of keys without one; null: none
	AllowedScopes     []string        `json:"allowed_scopes"`      // null: every scope but warder:*

	// Null: any, and a key that refers to none may do everything.
	AllowedPermissions []string `json:"allowed_permissions"`

	Metadata  json.RawMessage   `json:"metadata"`
	CreatedAt time.Time         `json:"created_at"`
	Revision  keystore.Revision `json:"revision"`
}

// DeletedOrganization is the answer to a deletion.
type DeletedOrganization struct {
	Slug     string            `json:"slug"`
	Deleted  bool              `json:"deleted"`
	Revision keystore.Revision `json:"revision"`
}

// OrganizationPage is a part of a list.
type OrganizationPage struct {
	Organizations []Organization `json:"organizations"`
	Next          *string        `json:"next"`
}

// uses is when secrets were last used, by key and generation.
type uses map[keystore.KeyID]map[keystore.Generation]keystore.Instant

func usesOf(list []keystore.LastUse) uses {
	u := make(uses, len(list))
	for _, last := range list {
		if u[last.Key] == nil {
			u[last.Key] = make(map[keystore.Generation]keystore.Instant, 2)
		}
		u[last.Key][last.Generation] = last.At
	}
	return u
}

func keyOf(r *keystore.Record, last uses, now time.Time) Key {
	k := Key{
		ID: r.ID, Number: r.Number, Organization: r.Organization, Name: r.Name,
		Type: r.Type.String(), State: r.State(now).String(),
		Imported: r.Current.Imported(), Generation: uint64(r.Current.Generation),
		Scopes: listed(r.Scopes.List()), Permissions: listed(r.Permissions.List()), Networks: listed(r.Networks.List()),
		Limit: limitText(r.Limit), Metadata: metadataOf(r.Metadata),
		CreatedAt: r.Created.Time(), ExpiresAt: timeOf(r.Expires), Expires: expiryText(r.Expires, now),
		LastUsedAt: timeOf(last[r.ID][r.Current.Generation]), Deactivated: r.Deactivated, Blocked: r.Blocked, Revision: r.Revision,
	}
	if !k.Imported {
		k.AccessKey = AccessKey(r.Current.AccessKey)
	}
	if r.Previous.Generation != 0 {
		k.Previous = &PreviousSecret{
			Generation: uint64(r.Previous.Generation), GraceEnd: timeOf(r.GraceEnd), Imported: r.Previous.Imported(),
			LastUsedAt: timeOf(last[r.ID][r.Previous.Generation]),
		}
		if r.GraceEnd != 0 && !r.GraceEnd.Passed(now) {
			k.PreviousGeneration, k.GraceEnd = k.Previous.Generation, k.Previous.GraceEnd
		}
	}
	return k
}

func issuedKeyOf(i *keystore.Issued, last uses, now time.Time) IssuedKey {
	return IssuedKey{
		Key:    keyOf(&i.Record, last, now),
		APIKey: Shown(i.APIKey.Reveal()), SecretKey: Shown(i.SecretKey.Reveal()),
	}
}

func organizationOf(o *keystore.Organization) Organization {
	return Organization{
		Slug: o.Slug, Number: o.Number,
		DefaultExpiryDays: numberOf(int(o.DefaultExpiry)), MaximumExpiryDays: numberOf(int(o.MaximumExpiry)),
		GraceSeconds: numberOf(int(o.Grace / time.Second)), Limit: limitText(o.Limit),
		AllowedScopes: o.AllowedScopes, AllowedPermissions: o.AllowedPermissions, Metadata: metadataOf(o.Metadata),
		CreatedAt: o.Created.Time(), Revision: o.Revision,
	}
}

// expiryText is how people read an expiry. Days are rounded up.
func expiryText(expires keystore.Instant, now time.Time) string {
	const day = 24 * time.Hour
	switch {
	case expires == 0:
		return "Never Expires"
	case expires.Passed(now):
		return "Expired"
	default:
		return fmt.Sprintf("Expires in: %d days", (expires.Time().Sub(now)+day-1)/day)
	}
}

func metadataOf(stored string) json.RawMessage {
	if stored == "" {
		return json.RawMessage("{}")
	}
	return json.RawMessage(stored)
}

func timeOf(i keystore.Instant) *time.Time {
	if i == 0 {
		return nil
	}
	t := i.Time()
	return &t
}

func numberOf(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

func limitText(l keystore.Limit) *string { return textOf(l.String()) }

func textOf(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// listed makes of none an empty list, which is not null.
func listed(items []string) []string { return append([]string{}, items...) }
