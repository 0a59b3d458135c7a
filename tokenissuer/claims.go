package tokenissuer

import (
	"math"
	"strconv"
	"strings"
)

// claims is the payload of an access token (RFC 9068 §2.2). It is written and
// read in one order, without white space and without any escape: one set of
// claims has one spelling, and what is spelled otherwise is not ours.
type claims struct {
	issuer       string
	subject      string // the key's id
	audience     audience
	client       string // the access key at minting
	issued       int64  // seconds since 1970
	expires      int64
	id           string
	organization string
	generation   uint64
	scope        string // empty: the member is absent
}

const maxSeconds = 253_402_300_799 // the year 9999

// plain reports whether s is spelled in JSON as it is: printable ASCII without
// quote and backslash. It is the alphabet of scopes (RFC 6749 §3.3) and space.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// wellFormed reports whether c can be written and read again.
func (c *claims) wellFormed() bool {
	for _, s := range [...]string{c.issuer, c.subject, c.client, c.id, c.organization, c.scope} {
		if !plain(s) {
			return false
		}
	}
	return c.issuer != "" && c.subject != "" && c.audience.wellFormed() && c.id != "" && c.generation != 0 &&
		c.issued >= 0 && c.issued <= maxSeconds && c.expires >= 0 && c.expires <= maxSeconds
}

// append writes c, which must be well-formed.
func (c *claims) append(b []byte) []byte {
	b = append(append(b, `{"iss":"`...), c.issuer...)
	b = append(append(b, `","sub":"`...), c.subject...)
	b = append(append(b, `","aud":`...), c.audience...)
	b = append(append(b, `,"client_id":"`...), c.client...)
	b = strconv.AppendInt(append(b, `","iat":`...), c.issued, 10)
	b = strconv.AppendInt(append(b, `,"exp":`...), c.expires, 10)
	b = append(append(b, `,"jti":"`...), c.id...)
	b = append(append(b, `","org":"`...), c.organization...)
	b = strconv.AppendUint(append(b, `","gen":`...), c.generation, 10)
	if c.scope != "" {
		b = append(append(b, `,"scope":"`...), c.scope...)
		b = append(b, '"')
	}
	return append(b, '}')
}

// decodeClaims reads exactly what append writes. The strings of the result
// point into payload.
func decodeClaims(payload string) (claims, bool) {
	r := claimReader{rest: payload, ok: true}
	c := claims{
		issuer:       r.text(`{"iss":"`),
		subject:      r.text(`,"sub":"`),
		audience:     r.audience(`,"aud":`),
		client:       r.text(`,"client_id":"`),
		issued:       int64(r.number(`,"iat":`, maxSeconds)),
		expires:      int64(r.number(`,"exp":`, maxSeconds)),
		id:           r.text(`,"jti":"`),
		organization: r.text(`,"org":"`),
		generation:   r.number(`,"gen":`, math.MaxUint64),
	}
	if r.rest != "}" {
		c.scope = r.text(`,"scope":"`)
		r.ok = r.ok && c.scope != ""
	}
	return c, r.ok && r.rest == "}" && c.wellFormed()
}

// claimReader takes members off the front of a payload. Once something is not
// as it must be, ok stays false.
type claimReader struct {
	rest string
	ok   bool
}

func (r *claimReader) skip(literal string) {
	rest, found := strings.CutPrefix(r.rest, literal)
	r.rest, r.ok = rest, r.ok && found
}

// text reads a string whose opening quote ends before; characters that would
// need an escape, or are one, are found by wellFormed.
func (r *claimReader) text(before string) string {
	r.skip(before)
	s, rest, found := strings.Cut(r.rest, `"`)
	r.rest, r.ok = rest, r.ok && found
	return s
}

// audience reads a string or an array of strings; whether it is one is found
// by wellFormed.
func (r *claimReader) audience(before string) audience {
	r.skip(before)
	end := `"`
	if strings.HasPrefix(r.rest, `[`) {
		end = `"]`
	}
	start := min(len(end), len(r.rest))
	n := strings.Index(r.rest[start:], end)
	if n < 0 {
		r.ok = false
		return ""
	}
	n += start + len(end)
	a := audience(r.rest[:n])
	r.rest = r.rest[n:]
	return a
}

// number reads an integer in its one canonical spelling.
func (r *claimReader) number(before string, most uint64) uint64 {
	r.skip(before)
	digits := 0
	for digits < len(r.rest) && '0' <= r.rest[digits] && r.rest[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseUint(r.rest[:digits], 10, 64)
	if err != nil || n > most || (digits > 1 && r.rest[0] == '0') {
		r.ok = false
	}
	r.rest = r.rest[digits:]
	return n
}
