// Package keystore knows what a key is and whether it may pass. It holds the
// record and its life cycle, the credentials, the cache that every request
// reads, the follower that keeps this cache true, and the interfaces of the
// stores behind it. It speaks neither HTTP nor Caddy.
package keystore

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"time"
)

type (
	// KeyID names a key for good: rotation and regeneration keep it.
	KeyID string
	// Number is the key's position in lists, given by the store on creation
	// and never reused.
	Number int64
	// Generation names the secret a credential came from. It is compared for
	// equality only. Zero is no generation.
	Generation uint64
	// Revision is the store-wide number of a change, in commit order.
	Revision int64
	// Mark is the random number of a log row. Two stores that share a
	// revision but not its mark have different histories.
	Mark uint64
	// AccessKey is the public half of a pair. Safe to log.
	AccessKey string
	// Digest is a secret key's HMAC-SHA-256 under the store's pepper.
	Digest [32]byte
	// LookupID is anything a record can be found by: its KeyID or one of its
	// access keys. The two cannot be confused: a KeyID holds an underscore.
	LookupID string
)

// Instant is a point in time in microseconds since 1970-01-01 UTC. It holds
// no pointer, which keeps cached records invisible to the collector. Zero
// means "not set"; as an expiry, "never".
type Instant int64

// InstantOf returns t at microsecond resolution. The zero time is not set; the
// epoch is, and becomes the instant after it: as an expiry, it must not read
// as "never".
func InstantOf(t time.Time) Instant {
	switch i := Instant(t.UnixMicro()); {
	case t.IsZero():
		return 0
	case i == 0:
		return 1
	default:
		return i
	}
}

// Time returns i in UTC, or the zero time if i is not set.
func (i Instant) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(i)).UTC()
}

// Passed reports whether i is set and not after now.
func (i Instant) Passed(now time.Time) bool { return i != 0 && int64(i) <= now.UnixMicro() }

// Type is the kind of a key.
type Type uint8

// The zero Type is none, and is refused by whatever asks for a type.
const (
	TypeUnknown Type = iota
	TypeStandard
	TypeTrial
)

var typeNames = [...]string{TypeUnknown: "unknown", TypeStandard: "standard", TypeTrial: "trial"}

func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return typeNames[TypeUnknown]
}

// ParseType is the inverse of Type.String for the types a key can have.
func ParseType(s string) (Type, error) {
	for t := TypeStandard; int(t) < len(typeNames); t++ {
		if typeNames[t] == s {
			return t, nil
		}
	}
	return TypeUnknown, fmt.Errorf("unknown key type %q", s)
}

// State is derived from a record, never stored. See Record.State.
type State uint8

// The zero State is none: no record has it.
const (
	StateUnknown State = iota
	StateBlocked
	StateExpired
	StateDeactivated
	StateActive
)

var stateNames = [...]string{
	StateUnknown: "unknown", StateBlocked: "blocked", StateExpired: "expired",
	StateDeactivated: "deactivated", StateActive: "active",
}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return stateNames[StateUnknown]
}

// ParseState is the inverse of State.String for the states a key can be in.
func ParseState(s string) (State, error) {
	for st := StateBlocked; int(st) < len(stateNames); st++ {
		if stateNames[st] == s {
			return st, nil
		}
	}
	return StateUnknown, fmt.Errorf("unknown key state %q", s)
}

// Pair is what is kept of an access/secret key pair, or of an imported
// credential, which has a name of the store's own instead of an access key:
// see Imported. The zero Pair is none.
type Pair struct {
	Generation Generation
	AccessKey  AccessKey
	Digest     Digest
}

// Record is a key as the store holds it. The zero Record is no key, and
// denies. Records handed out by a View are shared and must not be changed.
type Record struct {
	ID           KeyID
	Number       Number
	Organization string
	Name         string // optional; unique among the organization's living keys
	Type         Type

	Current  Pair
	Previous Pair    // the one rotated out last; kept after GraceEnd to tell "superseded"
	GraceEnd Instant // until when Previous passes

	Created Instant
	Expires Instant // zero: never

	Deactivated bool // the owner's switch
	Blocked     bool // the administrator's switch

	Scopes      Scopes
	Permissions PermissionSet // empty: whatever the organization allows
	Networks    Networks      // from where it may be used; empty: from everywhere
	Limit       Limit         // zero: the organization's default
	Metadata    string        // a JSON object, compact; empty: none

	Revision Revision // of the last change
}

// State derives the state at now; the first match of blocked, expired,
// deactivated, active.
func (r *Record) State(now time.Time) State {
	switch {
	case r.Current.Generation == 0:
		return StateUnknown
	case r.Blocked:
		return StateBlocked
	case r.Expires.Passed(now):
		return StateExpired
	case r.Deactivated:
		return StateDeactivated
	default:
		return StateActive
	}
}

// Admit says whether a credential of generation gen may pass at now: nil, or
// ErrInvalid (no such key), ErrBlocked, ErrExpired, ErrDeactivated,
// ErrSuperseded. The zero Record denies, and so does generation zero.
func (r *Record) Admit(gen Generation, now time.Time) error {
	switch r.State(now) {
	case StateActive:
		return r.admitGeneration(gen, now)
	case StateBlocked:
		return ErrBlocked
	case StateExpired:
		return ErrExpired
	case StateDeactivated:
		return ErrDeactivated
	default:
		return ErrInvalid
	}
}

func (r *Record) admitGeneration(gen Generation, now time.Time) error {
	switch {
	case gen == 0:
		return ErrInvalid
	case gen == r.Current.Generation:
		return nil
	case gen == r.Previous.Generation && r.GraceEnd != 0 && !r.GraceEnd.Passed(now):
		return nil
	default:
		return ErrSuperseded
	}
}

// GenerationOf returns the generation that access and the digest of the
// presented secret prove, current or previous, or zero. It compares in
// constant time and compares with both pairs whatever the first says.
func (r *Record) GenerationOf(access AccessKey, d Digest) Generation {
	previous, current := r.Previous.prove(access, d), r.Current.prove(access, d)
	if current != 0 {
		return current
	}
	return previous
}

// prove returns the pair's generation if access and d are its own, else zero.
func (p *Pair) prove(access AccessKey, d Digest) Generation {
	same := p.Digest.same(&d)
	if p.AccessKey != access {
		same = 0
	}
	return p.Generation * Generation(same)
}

// same returns 1 if the digests are equal, else 0, in constant time: as
// subtle.ConstantTimeCompare, but by words.
func (d *Digest) same(other *Digest) uint64 {
	var differ uint64
	for i := 0; i < len(d); i += 8 {
		differ |= binary.NativeEndian.Uint64(d[i:]) ^ binary.NativeEndian.Uint64(other[i:])
	}
	return 1 ^ (differ|-differ)>>63
}

// CredentialEnd returns until when a credential of generation gen can pass at
// the latest: the key's expiry or the grace end, whichever is earlier. Zero
// means without end. It says nothing about whether it passes now.
func (r *Record) CredentialEnd(gen Generation) Instant {
	switch {
	case gen == r.Current.Generation:
		return r.Expires
	case r.Expires != 0 && r.Expires < r.GraceEnd:
		return r.Expires
	default:
		return max(r.GraceEnd, 1) // a lost grace end must not read as "without end"
	}
}

// Aliases returns every LookupID beside the KeyID under which the record is
// found: the current access key and, after a regeneration, the previous one.
func (r *Record) Aliases() []LookupID {
	var out []LookupID
	if r.Current.AccessKey != "" {
		out = append(out, LookupID(r.Current.AccessKey))
	}
	if p := r.Previous.AccessKey; p != "" && p != r.Current.AccessKey {
		out = append(out, LookupID(p))
	}
	return out
}

// FoundBy reports whether id is the record's KeyID or one of its aliases.
func (r *Record) FoundBy(id LookupID) bool {
	return id != "" && (string(id) == string(r.ID) ||
		string(id) == string(r.Current.AccessKey) || string(id) == string(r.Previous.AccessKey))
}

// ChangedAliases returns the aliases that appear or disappear between two
// states of a record, either of which may be the zero Record.
func ChangedAliases(before, after *Record) []LookupID {
	var out []LookupID
	for _, a := range before.Aliases() {
		if !after.FoundBy(a) {
			out = append(out, a)
		}
	}
	for _, a := range after.Aliases() {
		if !before.FoundBy(a) {
			out = append(out, a)
		}
	}
	return out
}

// compact returns r with all its strings in one piece of memory of their own,
// so that the collector meets two objects per cached record, not eight, and
// no record keeps a larger buffer alive.
func (r Record) compact() Record {
	fields := [...]*string{
		(*string)(&r.ID), &r.Organization, &r.Name, (*string)(&r.Current.AccessKey),
		(*string)(&r.Previous.AccessKey), (*string)(&r.Scopes), (*string)(&r.Permissions), (*string)(&r.Networks), &r.Metadata,
	}
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(*f)
	}
	rest := b.String()
	for _, f := range fields {
		n := len(*f)
		*f, rest = rest[:n], rest[n:]
	}
	return r
}

// Organization is a tenant: it owns keys and sets their defaults.
type Organization struct {
	Slug          string
	Number        Number
	DefaultExpiry Days          // of new keys; zero: never
	MaximumExpiry Days          // zero: no maximum
	Grace         time.Duration // after a rotation, whole seconds; zero: as the configuration says
	Limit         Limit         // of keys without one of their own; zero: none
	AllowedScopes []string      // nil: every scope but warder:*

	// AllowedPermissions are the ids of those that its keys may refer to. With
	// nil, keys may refer to any, and one that refers to none may do
	// everything; else one that refers to none has all of these.
	AllowedPermissions []string

	Metadata string // a JSON object; the key's is laid over it
	Created  Instant
	Revision Revision
}

// Replaces says whether o changes anything where before stands (zero: nothing
// does), and refuses what must not be written there or would not be read back
// as it is: ErrOrganizationExists, ErrOrganizationNotFound. One that changes
// nothing gets the revision of before.
func (o *Organization) Replaces(before Organization) (changes bool, err error) {
	switch found := before.Number != 0; {
	case o.Number == 0 && found:
		return false, fmt.Errorf("creating organization %s: %w", o.Slug, ErrOrganizationExists)
	case o.Number != 0 && !found:
		return false, fmt.Errorf("writing organization %s: %w", o.Slug, ErrOrganizationNotFound)
	case o.Number != before.Number:
		return false, fmt.Errorf("writing organization %s: its number is %d, not %d", o.Slug, before.Number, o.Number)
	}
	same := *o
	same.Revision = before.Revision
	if before.Number != 0 && reflect.DeepEqual(same, before) { // tells a nil list from an empty one
		o.Revision = before.Revision
		return false, nil
	}
	if err := o.Limit.Validate(); err != nil {
		return false, fmt.Errorf("writing organization %s: %w", o.Slug, err)
	}
	if o.Grace%time.Second != 0 {
		return false, fmt.Errorf("writing organization %s: its grace period of %v is not in whole seconds", o.Slug, o.Grace)
	}
	return true, nil
}

// DefaultOrganization always exists.
const DefaultOrganization = "default"

// Days is a length of life in whole days of 24 hours.
type Days int

// MaximumDays bounds every number of days a caller may name: a hundred years.
const MaximumDays Days = 36_525

// After returns the instant d days after now.
func (d Days) After(now time.Time) Instant {
	return InstantOf(now.Add(time.Duration(d) * 24 * time.Hour))
}

// keyIDPrefix begins every KeyID. No access key holds its underscore.
const keyIDPrefix = "key_"

// NewKeyID returns a fresh id of at least 128 random bits.
func NewKeyID() KeyID { return KeyID(keyIDPrefix + strings.ToLower(rand.Text())) }
