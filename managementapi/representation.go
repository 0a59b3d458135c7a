package managementapi

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Key is a key as callers see it. A digest never is.
type Key struct {
	ID           keystore.KeyID     `json:"id"`
	Number       keystore.Number    `json:"number"`
	Organization string             `json:"organization"`
	Name         string             `json:"name"`
	Type         string             `json:"type"`
	State        string             `json:"state"`
	AccessKey    keystore.AccessKey `json:"access_key"`
	Generation   uint64             `json:"generation"`
	Scopes       []string           `json:"scopes"`
	Metadata     json.RawMessage    `json:"metadata"`
	CreatedAt    time.Time          `json:"created_at"`
	ExpiresAt    *time.Time         `json:"expires_at"` // null: never
	Expires      string             `json:"expires"`    // the same for people
	Deactivated  bool               `json:"deactivated"`
	Blocked      bool               `json:"blocked"`

	// While a rotated-out secret is still accepted: its generation, and
	// until when.
	PreviousGeneration uint64     `json:"previous_generation,omitempty"`
	GraceEnd           *time.Time `json:"grace_end,omitempty"`

	Revision keystore.Revision `json:"revision"`
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

// KeyPage is a part of a list. Next, if not null, is the cursor of what follows.
type KeyPage struct {
	Keys []Key   `json:"keys"`
	Next *string `json:"next"`
}

// DeletedKey is the answer to a deletion.
type DeletedKey struct {
	ID       keystore.KeyID    `json:"id"`
	Deleted  bool              `json:"deleted"`
	Revision keystore.Revision `json:"revision"`
}

// Organization is an organization as callers see it.
type Organization struct {
	Slug              string            `json:"slug"`
	Number            keystore.Number   `json:"number"`
	DefaultExpiryDays *int              `json:"default_expiry_days"` // null: never
	MaximumExpiryDays *int              `json:"maximum_expiry_days"` // null: none
	AllowedScopes     []string          `json:"allowed_scopes"`      // null: every scope but warder:*
	Metadata          json.RawMessage   `json:"metadata"`
	CreatedAt         time.Time         `json:"created_at"`
	Revision          keystore.Revision `json:"revision"`
}

// OrganizationPage is a part of a list.
type OrganizationPage struct {
	Organizations []Organization `json:"organizations"`
	Next          *string        `json:"next"`
}

func keyOf(r *keystore.Record, now time.Time) Key {
	k := Key{
		ID: r.ID, Number: r.Number, Organization: r.Organization, Name: r.Name,
		Type: r.Type.String(), State: r.State(now).String(),
		AccessKey: r.Current.AccessKey, Generation: uint64(r.Current.Generation),
		Scopes: append([]string{}, r.Scopes.List()...), Metadata: metadataOf(r.Metadata),
		CreatedAt: r.Created.Time(), ExpiresAt: timeOf(r.Expires), Expires: expiryText(r.Expires, now),
		Deactivated: r.Deactivated, Blocked: r.Blocked, Revision: r.Revision,
	}
	if r.Previous.Generation != 0 && r.GraceEnd != 0 && !r.GraceEnd.Passed(now) {
		k.PreviousGeneration, k.GraceEnd = uint64(r.Previous.Generation), timeOf(r.GraceEnd)
	}
	return k
}

func issuedKeyOf(i *keystore.Issued, now time.Time) IssuedKey {
	return IssuedKey{
		Key:    keyOf(&i.Record, now),
		APIKey: Shown(i.APIKey.Reveal()), SecretKey: Shown(i.SecretKey.Reveal()),
	}
}

func organizationOf(o *keystore.Organization) Organization {
	return Organization{
		Slug: o.Slug, Number: o.Number,
		DefaultExpiryDays: daysOf(o.DefaultExpiry), MaximumExpiryDays: daysOf(o.MaximumExpiry),
		AllowedScopes: o.AllowedScopes, Metadata: metadataOf(o.Metadata),
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

func daysOf(d keystore.Days) *int {
	if d == 0 {
		return nil
	}
	n := int(d)
	return &n
}
