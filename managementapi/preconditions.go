package managementapi

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/warderhq/warder/keystore"
)

// neverRevision matches no record.
const neverRevision keystore.Revision = -1

func etag(r keystore.Revision) string { return `"` + strconv.FormatInt(int64(r), 10) + `"` }

// ifMatch returns the revision that the edited thing must have for the call
// to go on (RFC 9110 §13.1.1); zero for any. Comparison is strong: a weak tag
// and one that this API cannot have given match nothing. current is asked
// only if the caller names several.
func (c *call) ifMatch(current func() (keystore.Revision, error)) (keystore.Revision, error) {
	values := c.Header.Values("If-Match")
	if len(values) == 0 {
		return 0, nil
	}
	list := strings.Join(values, ",")
	if strings.TrimSpace(list) == "*" {
		return 0, nil
	}
	revisions, ok := parseTags(list)
	switch {
	case !ok:
		return 0, &headerError{"If-Match", "must be entity tags as they stand in ETag, or *"}
	case len(revisions) == 0:
		return neverRevision, nil
	case len(revisions) == 1:
		return revisions[0], nil
	}
	now, err := current()
	if err != nil {
		return 0, err
	}
	if !slices.Contains(revisions, now) {
		return neverRevision, nil
	}
	return now, nil
}

// parseTags returns the revisions among a list of entity tags; false if it is
// not such a list.
func parseTags(list string) (revisions []keystore.Revision, ok bool) {
	for {
		list = strings.TrimLeft(list, " \t,")
		if list == "" {
			return revisions, ok
		}
		opaque, weak := strings.CutPrefix(list, "W/")
		tag, rest, closed := strings.Cut(strings.TrimPrefix(opaque, `"`), `"`)
		rest = strings.TrimLeft(rest, " \t")
		if !closed || opaque[0] != '"' || (rest != "" && rest[0] != ',') {
			return nil, false
		}
		if r, ours := parseTag(tag); ours && !weak {
			revisions = append(revisions, r)
		}
		list, ok = rest, true
	}
}

// parseTag is the inverse of etag, and accepts nothing else: a revision of
// zero would mean "any".
func parseTag(tag string) (keystore.Revision, bool) {
	n, err := strconv.ParseInt(tag, 10, 64)
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != tag {
		return 0, false
	}
	return keystore.Revision(n), true
}

// once makes the call repeatable if it carries an Idempotency-Key; else nil.
func (c *call) once() (*keystore.Once, error) {
	key, err := IdempotencyKey(c.Header)
	if err != nil || key == "" {
		return nil, err
	}
	body, err := c.body.digestible()
	if err != nil {
		return nil, err
	}
	return &keystore.Once{
		Key:     key,
		Route:   c.route.method + " " + c.route.pattern + " " + c.PathValue("id"),
		Request: sha256.Sum256(body),
	}, nil
}

// IdempotencyKey returns the header's value; empty if there is none.
func IdempotencyKey(h http.Header) (keystore.Secret, error) {
	const header = "Idempotency-Key"
	values := h.Values(header)
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || !isIdempotencyKey(values[0]) {
		return "", &headerError{header, "must be one value of 1 to 255 visible ASCII characters"}
	}
	return keystore.Secret(values[0]), nil
}

func isIdempotencyKey(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= keystore.MaximumIdempotencyKey
}
