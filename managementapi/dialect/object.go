package dialect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/warderhq/warder/keystore"
)

// object is a JSON object by its members' exact names: a body, or metadata.
type object map[string]json.RawMessage

// take reads a member into value; false if it is not there, or null. Members
// that nobody takes are ignored: these systems have more of them.
func (o object) take(name string, value any) (bool, error) {
	raw, ok := o[name]
	if !ok || string(raw) == "null" {
		return false, nil
	}
	if json.Unmarshal(raw, value) != nil {
		return false, &keystore.FieldError{Pointer: "/" + name, Reason: expectation(value)}
	}
	return true, nil
}

// has reports whether the member is there, be it null.
func (o object) has(name string) bool {
	_, ok := o[name]
	return ok
}

// only reports whether there are no other members than these.
func (o object) only(names ...string) bool {
	for name := range o {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

func expectation(value any) string {
	switch value.(type) {
	case *string:
		return "must be a string"
	case *bool:
		return "must be true or false"
	case *int:
		return "must be a whole number"
	case *float64:
		return "must be a number"
	case *[]string:
		return "must be an array of strings"
	default:
		return "must be a JSON object"
	}
}

// objectOf reads metadata, which is a JSON object or empty.
func objectOf(metadata string) (object, error) {
	o := object{}
	if metadata == "" {
		return o, nil
	}
	if err := json.Unmarshal([]byte(metadata), &o); err != nil {
		return nil, fmt.Errorf("decoding metadata: %w: %w", keystore.ErrCorrupt, err)
	}
	return o, nil
}

// put takes the named members over from another object: null takes one away.
func (o object) put(from object, names ...string) {
	for _, name := range names {
		raw, ok := from[name]
		switch {
		case !ok:
		case string(raw) == "null":
			delete(o, name)
		default:
			o[name] = raw
		}
	}
}

// metadata is the inverse of objectOf.
func (o object) metadata() (string, error) {
	if len(o) == 0 {
		return "", nil
	}
	text, err := encode(o)
	return string(bytes.TrimSpace(text)), err
}

// textMember returns a member of metadata that is a string, else "".
func textMember(metadata, name string) (text string) {
	if o, err := objectOf(metadata); err == nil {
		_, _ = o.take(name, &text)
	}
	return text
}

// encode keeps "<" as it is: a config is no longer than what was sent.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	return b.Bytes(), nil
}
