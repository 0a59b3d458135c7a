package managementapi

import (
	"context"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// SigningKeys is the ring that signs access tokens, as this node knows it. A
// *tokenissuer.Keyring is one.
type SigningKeys interface {
	Info() (tokenissuer.RingInfo, error)
}

// Rotation changes that ring. A *tokenissuer.Rotation is one.
type Rotation interface {
	Rotate(ctx context.Context, by keystore.Attribution, now time.Time) (tokenissuer.Rotated, error)
	RotateEmergency(ctx context.Context, by keystore.Attribution, now time.Time) (tokenissuer.Rotated, error)
	SetInterval(ctx context.Context, by keystore.Attribution, days keystore.Days, now time.Time) (keystore.Revision, error)
}

// SigningRotation is the answer to a rotation.
type SigningRotation struct {
	KID      string            `json:"kid"`      // of the key that signs, or will
	SignsAt  time.Time         `json:"signs_at"` // since or from when
	Upcoming bool              `json:"upcoming"` // it does not sign yet: verifiers have to learn of it first
	Revision keystore.Revision `json:"revision"`
}

func (a *API) listSigningKeys(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	if a.SigningKeys == nil {
		return answer{}, errNoIssuer
	}
	ring, err := a.SigningKeys.Info()
	if err != nil {
		return answer{}, err
	}
	return answer{body: ring, revision: ring.Revision}, nil
}

func (a *API) rotateSigningKeys(c *call) (answer, error) {
	var emergency field[bool]
	if err := c.body.into(members{"emergency": &emergency}); err != nil {
		return answer{}, err
	}
	if a.Rotation == nil {
		return answer{}, errNoIssuer
	}
	rotate, operation := a.Rotation.Rotate, "signing_keys.rotate"
	if emergency.value {
		rotate, operation = a.Rotation.RotateEmergency, "signing_keys.emergency"
	}
	// A refusal of the ring is not yet noted, so this is no attempt in the sense of call.
	done, err := rotate(c.Context(), c.caller.Attribution(operation), c.now)
	if err != nil {
		return answer{}, err
	}
	return answer{body: SigningRotation{done.KID, done.SignsAt, done.Pending, done.Revision}}, nil
}

// Interface guards.
var (
	_ SigningKeys = (*tokenissuer.Keyring)(nil)
	_ Rotation    = (*tokenissuer.Rotation)(nil)
)
