package keystore

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// The life cycle as pure functions on a record. Each says from which states it
// is legal; a refused one changes nothing. Drivers run them inside a
// transaction, and no rule about keys stands anywhere else.

// DefaultGrace is how long a rotated-out secret passes unless told otherwise.
const DefaultGrace = 6 * time.Hour

// MaximumGrace bounds the grace period that an organization may ask for.
const MaximumGrace = 365 * 24 * time.Hour

// TrialLife is how long a trial key lives.
const TrialLife Days = 14

// Rotate replaces the secret under the same access key. The replaced one
// passes until now+grace, never past the key's expiry; without a grace it is
// dead for good, whatever clocks say. Only one previous secret is kept:
// rotating again ends an older grace period. Refused with ErrBlocked or
// ErrExpired.
func (r *Record) Rotate(digest Digest, grace time.Duration, now time.Time) error {
	return r.rotate(Pair{AccessKey: r.Current.AccessKey, Digest: digest}, grace, now)
}

// RotateImported replaces an imported credential by a pair of ours, as Rotate
// replaces a secret.
func (r *Record) RotateImported(access AccessKey, digest Digest, grace time.Duration, now time.Time) error {
	return r.rotate(Pair{AccessKey: access, Digest: digest}, grace, now)
}

func (r *Record) rotate(next Pair, grace time.Duration, now time.Time) error {
	switch r.State(now) {
	case StateBlocked:
		return ErrBlocked
	case StateExpired:
		return ErrExpired
	}
	var end Instant
	if grace > 0 {
		end = InstantOf(now.Add(grace))
		if r.Expires != 0 {
			end = min(end, r.Expires)
		}
	}
	r.succeed(next, end)
	return nil
}

// MoveGraceEnd moves until when the replaced secret passes: later, earlier, or
// to an end at once and for good, if end is now or before; never past the key's
// expiry. One that has run out by itself can so be revived. Refused with
// ErrNoGracePeriod if no secret was replaced, or if the replaced one was ended
// for good: by force, by a regeneration, or by this.
func (r *Record) MoveGraceEnd(end Instant, now time.Time) error {
	switch {
	case r.Previous.Generation == 0 || r.GraceEnd == 0:
		return ErrNoGracePeriod
	case end > MaximumDays.After(now):
		return &FieldError{"/grace_end", "is more than a hundred years away"}
	case end.Passed(now):
		r.GraceEnd = 0 // for good: a time that has passed would not do
	case r.Expires != 0:
		r.GraceEnd = min(end, r.Expires)
	default:
		r.GraceEnd = end
	}
	return nil
}

// Regenerate replaces access key and secret and starts the key's life anew
// with expires. Everything older is dead for good. Refused with ErrBlocked.
func (r *Record) Regenerate(access AccessKey, digest Digest, expires Instant) error {
	if r.Blocked {
		return ErrBlocked
	}
	r.succeed(Pair{AccessKey: access, Digest: digest}, 0)
	r.Expires = expires
	return nil
}

// succeed makes next the current pair. graceEnd zero: the one before it never
// passes again. A time that has passed would not do: clocks are set back.
func (r *Record) succeed(next Pair, graceEnd Instant) {
	next.Generation = r.Current.Generation + 1
	r.Previous, r.GraceEnd, r.Current = r.Current, graceEnd, next
}

// Renew moves the expiry to now+days; it may shorten, and it revives an
// expired key. The secret stays. Refused with ErrBlocked, ErrNeverExpires, or
// a *FieldError for days below 1 or beyond the organization's maximum.
func (r *Record) Renew(days Days, org *Organization, now time.Time) error {
	switch {
	case r.Blocked:
		return ErrBlocked
	case r.Expires == 0:
		return ErrNeverExpires
	case days < 1 || days > MaximumDays:
		return &FieldError{"/days", "must be 1 to 36525"}
	}
	expires := days.After(now)
	if err := org.permitExpiry("/days", r.Type, expires, now); err != nil {
		return err
	}
	r.Expires = expires
	return nil
}

// Expire ends the key's life now. An expired key keeps its earlier end.
// Refused with ErrBlocked.
func (r *Record) Expire(now time.Time) error {
	if r.Blocked {
		return ErrBlocked
	}
	if !r.Expires.Passed(now) {
		r.Expires = InstantOf(now)
	}
	return nil
}

// SetDeactivated sets the owner's switch. It never touches the other one.
func (r *Record) SetDeactivated(on bool) { r.Deactivated = on }

// SetBlocked sets the administrator's switch. It never touches the other one.
func (r *Record) SetBlocked(on bool) { r.Blocked = on }

// ExpiryOf returns when a key of type t made or regenerated at now expires:
// as asked (zero: not asked), else as the organization defaults, else never.
// An organization with a maximum has no immortal keys: without a default its
// maximum is the default. A trial key lives TrialLife unless asked for less.
// Refused with a *FieldError when asked for the past or beyond the maximum.
func (o *Organization) ExpiryOf(t Type, asked Instant, now time.Time) (Instant, error) {
	if asked != 0 {
		if asked.Passed(now) {
			return 0, &FieldError{"/expires_at", "must be in the future"}
		}
		return asked, o.permitExpiry("/expires_at", t, asked, now)
	}
	life := o.DefaultExpiry
	if life == 0 {
		life = o.MaximumExpiry
	}
	if t == TypeTrial && (life == 0 || life > TrialLife) {
		life = TrialLife
	}
	if life == 0 {
		return 0, nil
	}
	return life.After(now), nil
}

func (o *Organization) permitExpiry(pointer string, t Type, expires Instant, now time.Time) error {
	if t == TypeTrial && expires > TrialLife.After(now) {
		return &FieldError{pointer, "a trial key lives at most 14 days"}
	}
	if expires > MaximumDays.After(now) {
		return &FieldError{pointer, "is more than a hundred years away"}
	}
	if o.MaximumExpiry != 0 && expires > o.MaximumExpiry.After(now) {
		return &FieldError{pointer, "is beyond the organization's maximum expiry"}
	}
	return nil
}

// Validate refuses, with a *FieldError, an organization that contradicts itself.
func (o *Organization) Validate() error {
	switch {
	case !validSlug(o.Slug):
		return &FieldError{"/slug", "must be 1 to 63 of a-z, 0-9 and inner hyphens"}
	case o.DefaultExpiry < 0 || o.DefaultExpiry > MaximumDays:
		return &FieldError{"/default_expiry_days", "must be 1 to 36525, or null for never"}
	case o.MaximumExpiry < 0 || o.MaximumExpiry > MaximumDays:
		return &FieldError{"/maximum_expiry_days", "must be 1 to 36525, or null for none"}
	case o.MaximumExpiry != 0 && o.DefaultExpiry > o.MaximumExpiry:
		return &FieldError{"/default_expiry_days", "is beyond maximum_expiry_days"}
	}
	if o.Grace < 0 || o.Grace > MaximumGrace || o.Grace%time.Second != 0 {
		return &FieldError{"/grace_seconds", "must be 1 to 31536000, or null for the configuration's"}
	}
	if _, err := NewScopes("/allowed_scopes", o.AllowedScopes); err != nil {
		return err
	}
	if len(o.AllowedPermissions) > maxAllowedPermissions {
		return &FieldError{"/allowed_permissions", "at most 256 permissions"}
	}
	if err := o.Limit.Validate(); err != nil {
		return err
	}
	return validateMetadata(o.Metadata, MaximumOrganizationMetadata)
}

func validSlug(s string) bool {
	for i := range len(s) {
		c := s[i]
		inner := c == '-' && i > 0 && i < len(s)-1
		if !inner && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// Bounds of a metadata object, in bytes of compact JSON. A key's laid over its
// organization's goes upstream in one header, in base64: 4 KiB of it.
const (
	MaximumMetadata             = 2 << 10
	MaximumOrganizationMetadata = 1 << 10
)

const maxNameLength = 128

// Validate refuses, with a *FieldError, a record whose free fields are out of
// bounds, before it gets near a store.
func (r *Record) Validate() error {
	if !validName(r.Name) {
		return &FieldError{"/name", "must be at most 128 bytes of UTF-8 without control characters"}
	}
	if err := r.Limit.Validate(); err != nil {
		return err
	}
	return validateMetadata(r.Metadata, MaximumMetadata)
}

func validName(s string) bool {
	if len(s) > maxNameLength || !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return false
		}
	}
	return true
}

func validateMetadata(m string, most int) error {
	if len(m) > most {
		return &FieldError{"/metadata", fmt.Sprintf("must be at most %d bytes of JSON", most)}
	}
	var object map[string]json.RawMessage
	if m != "" && (json.Unmarshal([]byte(m), &object) != nil || object == nil) {
		return &FieldError{"/metadata", "must be a JSON object"}
	}
	return nil
}
