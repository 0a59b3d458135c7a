package tokenissuer

import "time"

// Ends returns when an access token ends that Verify accepts; errors as there.
func (i *Issuer) Ends(token string, now time.Time) (time.Time, error) {
	if _, err := i.Verify(token, now); err != nil {
		return time.Time{}, err
	}
	c, ok := i.read(token)
	if !ok {
		return time.Time{}, errTokenClaims
	}
	return time.Unix(c.expires, 0).UTC(), nil
}
