package dialect

import (
	"net/http"
	"strings"

	"github.com/warderhq/warder/keystore"
)

// onlyAuthorization returns the one Authorization header; more than one is
// keystore.ErrMalformed.
func onlyAuthorization(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", keystore.ErrMalformed
	}
}

// cutScheme returns what follows an authentication scheme, which is
// case-insensitive.
func cutScheme(authorization, scheme string) (string, bool) {
	first, rest, found := strings.Cut(authorization, " ")
	return rest, found && strings.EqualFold(first, scheme)
}
