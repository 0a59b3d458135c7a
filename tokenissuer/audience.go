package tokenissuer

import (
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"
)

// audience is the aud of a token as its JSON value, which has one spelling for
// one set of names: a single one as a string, several as an array in ascending
// order (RFC 7519 §4.1.3). In this form it costs one pointer in a proof, and
// the common one is told by one comparison.
type audience string

// newAudience returns the audience of the names, which must be plain and not
// empty.
func newAudience(names ...string) audience {
	if len(names) == 1 {
		return audience(`"` + names[0] + `"`)
	}
	set := slices.Compact(slices.Sorted(slices.Values(names)))
	if len(set) == 1 {
		return newAudience(set...)
	}
	return audience(`["` + strings.Join(set, `","`) + `"]`)
}

// names iterates over the audience, without allocating. Plain names hold no
// quote, so that what separates them cannot be in them.
func (a audience) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		rest, one, more := strings.Trim(string(a), `[]`), "", true
		if len(rest) < 2 {
			return
		}
		for rest = rest[1 : len(rest)-1]; more; {
			one, rest, more = strings.Cut(rest, `","`)
			if !yield(one) {
				return
			}
		}
	}
}

// wellFormed reports whether a is what newAudience makes.
func (a audience) wellFormed() bool {
	count, last := 0, ""
	for name := range a.names() {
		if name <= last || !plain(name) { // the empty one is not greater than anything
			return false
		}
		count, last = count+1, name
	}
	switch count {
	case 0:
		return false
	case 1:
		return len(a) == len(last)+len(`""`) && a[0] == '"' && a[len(a)-1] == '"'
	default:
		return strings.HasPrefix(string(a), `["`) && strings.HasSuffix(string(a), `"]`)
	}
}

// ErrTarget: a resource was asked for that is none of the issuer's (RFC 8707
// §2).
var ErrTarget = errors.New("resource is not one of the issuer's")

// maxResources bounds the audiences of one issuer beside its own.
const maxResources = 32

// parseResources checks the resources of a configuration.
func parseResources(resources []string) error {
	if len(resources) > maxResources {
		return fmt.Errorf("resources: at most %d", maxResources)
	}
	for i, resource := range resources {
		if !validResource(resource) {
			return fmt.Errorf("resource %q: must be an absolute URI without fragment, of at most %d printable ASCII characters without space, quote and backslash", resource, maxClaim)
		}
		if slices.Contains(resources[:i], resource) {
			return fmt.Errorf("resource %q stands twice", resource)
		}
	}
	return nil
}

// validResource reports whether s is an absolute URI without fragment (RFC
// 8707 §2).
func validResource(s string) bool {
	if len(s) > maxClaim || !plain(s) || strings.ContainsAny(s, " #") {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && u.IsAbs() && (u.Host != "" || u.Opaque != "" || u.Path != "")
}

// target returns the audience of a token for the resources, the issuer's own
// if none are asked for. ErrTarget for any that is not byte for byte one of
// the issuer's: no two spellings of a URI are taken for one.
func (i *Issuer) target(resources []string) (audience, error) {
	if len(resources) == 0 {
		return i.own, nil
	}
	for _, resource := range resources {
		if !validResource(resource) || !slices.Contains(i.audiences, resource) {
			return "", ErrTarget
		}
	}
	return newAudience(resources...), nil
}

// Own returns the Issuer as it is for what speaks of keys itself: it accepts
// only tokens for its own audience. Whoever serves another one has seen those
// for that, and could use them here.
func (i *Issuer) Own() *Issuer {
	own := *i
	own.audiences = i.audiences[:1]
	return &own
}

// isFor reports whether an accepted token is for the issuer's own audience.
func (i *Issuer) isFor(token string) bool {
	c, ok := i.read(token)
	if !ok {
		return false
	}
	for name := range c.audience.names() {
		if name == i.audiences[0] {
			return true
		}
	}
	return false
}

// accepts reports whether a token for a is meant for one of the issuer's
// audiences.
func (i *Issuer) accepts(a audience) bool {
	if a == i.own {
		return true
	}
	for name := range a.names() {
		if slices.Contains(i.audiences, name) {
			return true
		}
	}
	return false
}
