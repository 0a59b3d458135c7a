package managementapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/warderhq/warder/keystore"
)

// What one request may cost before its meaning is known.
const (
	maxBody     = 1 << 20
	maxDepth    = 32
	bodyTimeout = 10 * time.Second
	maxPointer  = 256 // bytes of a caller's own names that are sent back
)

const (
	jsonType       = "application/json"
	mergePatchType = "application/merge-patch+json"
)

// object is a request body by its members' exact names: encoding/json would
// match them whatever their case.
type object map[string]json.RawMessage

// readObject reads the body of r. No body is an empty object.
func readObject(w http.ResponseWriter, r *http.Request) (object, error) {
	raw, err := ReadBody(w, r)
	if err != nil {
		return nil, err
	}
	if len(raw) > 0 && !declaresJSON(r) {
		return nil, errMediaType
	}
	return ParseObject(raw)
}

// ReadBody reads the body of r, at most 1 MiB of it, in bounded time.
func ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	deadline := http.NewResponseController(w)
	if deadline.SetReadDeadline(time.Now().Add(bodyTimeout)) == nil { // else the server's own has to do
		defer func() { _ = deadline.SetReadDeadline(time.Time{}) }()
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, errBodyTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBodyUnread, err)
	}
	return raw, nil
}

// declaresJSON is a guard, too: no page can send these types to another site
// without asking it first.
func declaresJSON(r *http.Request) bool {
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil {
		return false
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return false
	}
	return media == jsonType || (media == mergePatchType && r.Method == http.MethodPatch)
}

// ParseObject reads one JSON object and refuses what two readers could
// understand differently: members named twice on any level, trailing data,
// bytes that are not UTF-8. Nothing but white space is an empty object.
func ParseObject(raw []byte) (map[string]json.RawMessage, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return object{}, nil
	}
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, errNotJSON
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := inspect(d, nil, 0); err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil || o == nil {
		return nil, errNotJSON
	}
	return o, nil
}

// place is a way into a document. It becomes text only when it is needed:
// text at each step would cost the square of the body.
type place struct {
	parent *place
	name   string
}

func (p *place) pointer() string {
	var names []string
	for ; p != nil; p = p.parent {
		names = append(names, pointerTo(p.name))
	}
	slices.Reverse(names)
	return truncate(strings.Join(names, ""))
}

// pointerTo returns the JSON pointer to a member of the document itself.
func pointerTo(name string) string {
	return truncate("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

func truncate(pointer string) string {
	if len(pointer) <= maxPointer {
		return pointer
	}
	return strings.ToValidUTF8(pointer[:maxPointer], "")
}

// inspect walks one value.
func inspect(d *json.Decoder, at *place, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	token, err := d.Token()
	if err != nil {
		return errNotJSON
	}
	switch token {
	case json.Delim('{'):
		err = inspectMembers(d, at, depth)
	case json.Delim('['):
		for i := 0; err == nil && d.More(); i++ {
			err = inspect(d, &place{at, strconv.Itoa(i)}, depth+1)
		}
	default:
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return errNotJSON
	}
	return nil
}

func inspectMembers(d *json.Decoder, at *place, depth int) error {
	seen := make(map[string]struct{})
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errNotJSON
		}
		here := &place{at, name}
		if _, twice := seen[name]; twice {
			return fmt.Errorf("%w: %w", errDuplicateField, &keystore.FieldError{Pointer: here.pointer(), Reason: "is there twice"})
		}
		seen[name] = struct{}{}
		if err := inspect(d, here, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// members are the fields that a route knows, by name.
type members map[string]member

type member interface {
	// take reads the value; the error is the reason for the caller.
	take(raw json.RawMessage) error
}

// into reads the body into the given fields. A field that is not among them
// is refused: what a caller says must not be ignored.
func (o object) into(known members) error {
	for name, raw := range o {
		m, ok := known[name]
		if !ok {
			return fmt.Errorf("%w: %w", errUnknownField, &keystore.FieldError{Pointer: pointerTo(name), Reason: "is unknown"})
		}
		if err := m.take(raw); err != nil {
			return &keystore.FieldError{Pointer: pointerTo(name), Reason: err.Error()}
		}
	}
	return nil
}

// digestible returns the body in one spelling, so that a retry that orders or
// spaces it differently is still the same request.
func (o object) digestible() ([]byte, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encoding a body again: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("decoding a body again: %w", err)
	}
	return encode(v)
}
