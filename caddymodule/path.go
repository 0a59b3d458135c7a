package caddymodule

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// normalise brings the request's path into the one form that the rules here
// and the API behind both see: no empty and no dot segments, percent-encoding
// only where RFC 3986 §6.2.2 leaves it. What has no such form, because
// parsers are known to disagree about it, is errPath: dot segments, "%2f"
// (unless allowed), "%5c", "\", "#", NUL and other controls, "..;".
//
// Applications behind FastCGI are told the URI as it came in, before any
// rewrite; so that one is brought into its normal form, too.
func normalise(r *http.Request, allowEncodedSlash bool) error {
	if strings.IndexByte(r.RequestURI, '#') >= 0 {
		return errPath
	}
	if err := normaliseURL(r.URL, allowEncodedSlash); err != nil {
		return err
	}
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return normaliseURL(original.URL, allowEncodedSlash)
	}
	return nil
}

func normaliseURL(u *url.URL, allowEncodedSlash bool) error {
	if u.Path == "" && u.Scheme != "" && u.Opaque == "" {
		u.Path = "/" // "GET http://host" (RFC 9110 §4.2.3)
	}
	p := u.Path
	if p == "" || p[0] != '/' || u.Opaque != "" {
		return errPath
	}
	empty, ok := inspect(p)
	if !ok {
		return errPath
	}
	if u.RawPath == "" && !empty {
		return nil // nearly always
	}
	raw, slash := normalEncoding(mergeSlashes(u.EscapedPath()))
	if slash && !allowEncodedSlash {
		return errPath
	}
	u.Path, u.RawPath = mergeDecoded(raw), ""
	if u.EscapedPath() != raw {
		u.RawPath = raw
	}
	return nil
}

// inspect walks a decoded path: whether it has empty segments, and whether it
// has a normal form at all.
func inspect(p string) (empty, ok bool) {
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\' || c < ' ' || c == 0x7f:
			return false, false
		case c == '/':
			if i+1 < len(p) && p[i+1] == '/' {
				empty = true
			}
			if isDotSegment(p[i+1:]) {
				return false, false
			}
		}
	}
	return empty, true
}

// isDotSegment reports whether rest begins with "." or ".." as a whole
// segment, or with path parameters behind, which some servers cut off.
func isDotSegment(rest string) bool {
	for range 2 {
		if rest == "" || rest[0] != '.' {
			return false
		}
		rest = rest[1:]
		if rest == "" || rest[0] == '/' || rest[0] == ';' {
			return true
		}
	}
	return false
}

func mergeSlashes(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

// normalEncoding decodes unreserved characters and writes the rest of the
// escapes in upper case. slash: an encoded slash is among them.
func normalEncoding(escaped string) (normal string, slash bool) {
	var b strings.Builder
	b.Grow(len(escaped))
	for i := 0; i < len(escaped); i++ {
		if escaped[i] != '%' {
			b.WriteByte(escaped[i])
			continue
		}
		c := unhex(escaped[i+1])<<4 | unhex(escaped[i+2]) // EscapedPath is well formed
		switch {
		case isUnreserved(c):
			b.WriteByte(c)
		default:
			b.WriteString(strings.ToUpper(escaped[i : i+3]))
			slash = slash || c == '/'
		}
		i += 2
	}
	return b.String(), slash
}

// mergeDecoded decodes a normal encoding.
func mergeDecoded(normal string) string {
	return decodeExcept(normal, 0)
}

// rulePath is what path rules are matched against: the decoded normal form,
// in which an encoded slash, where allowed, stays "%2F" and is no separator.
func rulePath(r *http.Request) string {
	if r.URL.RawPath == "" {
		return r.URL.Path
	}
	return decodeExcept(r.URL.RawPath, '/')
}

func decodeExcept(normal string, kept byte) string {
	var b strings.Builder
	b.Grow(len(normal))
	for i := 0; i < len(normal); i++ {
		c := normal[i]
		if c == '%' {
			if d := unhex(normal[i+1])<<4 | unhex(normal[i+2]); d != kept || kept == 0 {
				c = d
				i += 2
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}
