package managementapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/warderhq/warder/keystore"
)

// field is a member of a request body: absent, null, or a value. Null stands
// for the default.
type field[T any] struct {
	present bool
	null    bool
	value   T
}

func (f *field[T]) take(raw json.RawMessage) error {
	f.present = true
	if string(raw) == "null" {
		f.null = true
		return nil
	}
	if json.Unmarshal(raw, &f.value) != nil {
		return errors.New(expectation(any(f.value)))
	}
	return nil
}

// applyTo puts the value, or for null the default, where it is to stand.
func (f *field[T]) applyTo(target *T) {
	if f.present {
		*target = f.value
	}
}

// given reports whether there is a value.
func (f *field[T]) given() bool { return f.present && !f.null }

func expectation(value any) string {
	switch value.(type) {
	case string:
		return "must be a string"
	case bool:
		return "must be true or false"
	case int:
		return "must be a whole number"
	case []string:
		return "must be an array of strings"
	case []object:
		return "must be an array of JSON objects"
	case []keystore.KeyID:
		return "must be an array of ids"
	case keystore.Secret:
		return "must be a string"
	case sum:
		return "must be a SHA-256 in 64 hexadecimal digits"
	case moment:
		return "must be a time as in RFC 3339, after 1970"
	default:
		return "must be a JSON object"
	}
}

// moment is a time that was asked for. It is never the zero Instant, which
// would read as "not asked for".
type moment keystore.Instant

func (m *moment) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("decoding a time: %w", err)
	}
	var err error
	*m, err = parseMoment(text)
	return err
}

func parseMoment(text string) (moment, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, fmt.Errorf("parsing a time: %w", err)
	}
	m := moment(keystore.InstantOf(t))
	if m <= 0 {
		return 0, errors.New("before 1970")
	}
	return m, nil
}

// free is a JSON object that only its owner understands, compact.
type free string

func (f *free) UnmarshalJSON(raw []byte) error {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return fmt.Errorf("compacting: %w", err)
	}
	if b.Len() == 0 || b.Bytes()[0] != '{' {
		return errors.New("not an object")
	}
	*f = free(b.String())
	return nil
}

// stored is the form in which keystore holds metadata: none is empty.
func (f free) stored() string {
	if f == "{}" {
		return ""
	}
	return string(f)
}

// patched returns current with the merge patch f applied (RFC 7396).
func (f free) patched(current string) (string, error) {
	target, err := decodeObject(current)
	if err != nil {
		return "", err
	}
	patch, err := decodeObject(string(f))
	if err != nil {
		return "", err
	}
	text, err := encode(keystore.MergePatch(target, patch))
	if err != nil {
		return "", err
	}
	return free(bytes.TrimSpace(text)).stored(), nil
}

func decodeObject(text string) (v any, err error) {
	if text == "" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber() // a number keeps its spelling
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("decoding metadata: %w", err)
	}
	return v, nil
}

// parseLimit reads a limit: absent and null are none of its own. The empty text
// would say that in a second way.
func parseLimit(f field[string]) (keystore.Limit, error) {
	if f.given() && f.value == "" {
		return keystore.Limit{}, &keystore.FieldError{Pointer: "/limit", Reason: "must not be empty; null is the default"}
	}
	return keystore.ParseLimit(f.value)
}

// expiry is how a body says until when a key lives: one of the two, or
// neither for the organization's default.
type expiry struct {
	at   field[moment]
	days field[int]
}

func (e *expiry) members(into members) members {
	into["expires_at"], into["expires_in_days"] = &e.at, &e.days
	return into
}

// asked returns the instant, zero for the default.
func (e *expiry) asked(now time.Time) (keystore.Instant, error) {
	const pointer = "/expires_in_days"
	switch {
	case e.at.given() && e.days.given():
		return 0, &keystore.FieldError{Pointer: pointer, Reason: "cannot stand beside expires_at"}
	case e.at.given():
		return keystore.Instant(e.at.value), nil
	case !e.days.given():
		return 0, nil
	case e.days.value < 1 || e.days.value > int(keystore.MaximumDays):
		return 0, &keystore.FieldError{Pointer: pointer, Reason: "must be 1 to 36525"}
	default:
		return keystore.Days(e.days.value).After(now), nil
	}
}

// blame makes an error of the core point at the field that was sent.
func (e *expiry) blame(err error) error {
	if f, ok := errors.AsType[*keystore.FieldError](err); ok && f.Pointer == "/expires_at" && e.days.given() {
		return &keystore.FieldError{Pointer: "/expires_in_days", Reason: f.Reason}
	}
	return err
}
