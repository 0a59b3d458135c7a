package caddymodule

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

// defaultIdentityPrefix begins the names of the headers that tell the API
// behind who calls.
const defaultIdentityPrefix = "X-Warder-"

// identityHeaders are the canonical header names under one prefix.
type identityHeaders struct {
	prefix string         // folded; see fold
	names  identityValues // in the order of the values
}

func newIdentityHeaders(prefix string) identityHeaders {
	ih := identityHeaders{
		prefix: foldName(prefix),
		names:  identityValues{"Key-Id", "Key-Name", "Key-Type", "Organization", "Scope", "Credential", "Metadata"},
	}
	for i, suffix := range ih.names {
		ih.names[i] = http.CanonicalHeaderKey(prefix + suffix)
	}
	return ih
}

// strip removes what a client must not say: every header that the API behind
// could take for one of ours however it folds names (X_Warder_Key_Id,
// X.Warder.Key.Id), all but two options of Connection, with which a client
// could have ours dropped on the next hop, and request trailers.
func (ih *identityHeaders) strip(r *http.Request) {
	for name, values := range r.Header {
		switch {
		case foldedPrefix(name, ih.prefix), name == "Trailer":
			delete(r.Header, name)
		case name == "Connection":
			stripConnection(r.Header, values)
		}
	}
	if r.Trailer != nil {
		r.Trailer = nil
	}
}

func stripConnection(h http.Header, values []string) {
	if len(values) == 1 && values[0] == "keep-alive" { // as nearly always
		delete(h, "Connection")
		return
	}
	var kept []string
	for _, value := range values {
		for option := range strings.SplitSeq(value, ",") {
			switch option = strings.TrimSpace(option); strings.ToLower(option) {
			case "close", "upgrade":
				kept = append(kept, option)
			}
		}
	}
	if kept == nil {
		delete(h, "Connection")
		return
	}
	h["Connection"] = []string{strings.Join(kept, ", ")}
}

// identityValues is where the values of one request's identity headers stand.
type identityValues [7]string

// set names the principal to the API behind.
func (ih *identityHeaders) set(h http.Header, values *identityValues, p *keystore.Principal, metadata string) {
	*values = identityValues{
		string(p.Record.ID), percentEncode(p.Record.Name), p.Record.Type.String(), p.Record.Organization,
		string(p.Scopes), credentialName(p.Kind), metadata,
	}
	for i, name := range ih.names {
		if values[i] != "" {
			h[name] = values[i : i+1 : i+1]
		}
	}
}

// credentialName is what the API behind is told of a credential: a key is a
// key to it, whichever system made it.
func credentialName(kind keystore.CredentialKind) string {
	if kind == keystore.CredentialImported {
		kind = keystore.CredentialKey
	}
	return kind.String()
}

// percentEncode makes any text safe in a header and leaves plain ASCII as it
// is. It can be reversed: "%" is encoded, too.
func percentEncode(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && isPlain(s[i])
	}
	if plain {
		return s
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

func isPlain(c byte) bool { return ' ' <= c && c <= '~' && c != '%' }

// fold maps a byte of a header name to what lenient servers make of it: lower
// case, and everything that is no letter or digit is a hyphen.
func fold(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	default:
		return '-'
	}
}

func foldName(name string) string {
	folded := make([]byte, len(name))
	for i := range folded {
		folded[i] = fold(name[i])
	}
	return string(folded)
}

// foldedPrefix reports whether name, folded, begins with prefix.
func foldedPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if fold(name[i]) != prefix[i] {
			return false
		}
	}
	return true
}

// admission is what the first warder of a chain leaves for the next one, and
// for placeholders: whom it has admitted. It is all that a request costs in
// memory beside the request itself.
type admission struct {
	principal keystore.Principal
	values    identityValues
}

// admissionVar is where an admission stands among Caddy's variables of the
// request. Whatever else may be written there, by a configuration or a
// template, is no admission: its type has no name outside of this package.
const admissionVar = "warder_admission"

// String is what {http.vars.*} shows: no more than identity headers say.
func (a *admission) String() string { return string(a.principal.Record.ID) }

func principalOf(r *http.Request) *keystore.Principal {
	if admitted, ok := caddyhttp.GetVar(r.Context(), admissionVar).(*admission); ok {
		return &admitted.principal
	}
	return nil
}

// Placeholders of an admitted caller, and of one that was recognised and yet
// refused.
const (
	userPlaceholders      = "http.auth.user."
	candidatePlaceholders = "http.auth.candidate."
)

// providePlaceholders answers {http.auth.user.id} and its siblings when they
// are asked for, which costs less than setting them.
func providePlaceholders(r *http.Request, prefix string, p *keystore.Principal) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	repl.Map(func(key string) (any, bool) {
		name, ok := strings.CutPrefix(key, prefix)
		if !ok {
			return nil, false
		}
		return placeholder(p, name)
	})
}

func placeholder(p *keystore.Principal, name string) (any, bool) {
	switch name {
	case "id":
		return string(p.Record.ID), true
	case "organization":
		return p.Record.Organization, true
	case "key_name":
		return p.Record.Name, true
	case "key_type":
		return p.Record.Type.String(), true
	case "scope":
		return string(p.Scopes), true
	case "credential":
		return credentialName(p.Kind), true
	default:
		return nil, false
	}
}
