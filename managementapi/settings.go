package managementapi

import (
	"errors"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// Settings are what the store, not the configuration, says for all nodes.
type Settings struct {
	SigningKeyIntervalDays int `json:"signing_key_interval_days"`
}

func (a *API) getSettings(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	return a.settings()
}

func (a *API) settings() (answer, error) {
	if a.SigningKeys == nil {
		return answer{}, errNoIssuer
	}
	ring, err := a.SigningKeys.Info()
	return answer{body: Settings{int(ring.Interval)}}, err
}

func (a *API) updateSettings(c *call) (answer, error) {
	const name = "signing_key_interval_days"
	var days field[int]
	if err := c.body.into(members{name: &days}); err != nil {
		return answer{}, err
	}
	if a.Rotation == nil {
		return answer{}, errNoIssuer
	}
	if days.present {
		interval := keystore.Days(days.value)
		if days.null {
			interval = tokenissuer.DefaultInterval
		}
		_, err := a.Rotation.SetInterval(c.Context(), c.caller.Attribution(c.route.operation), interval, c.now)
		if f, ok := errors.AsType[*keystore.FieldError](err); ok {
			err = &keystore.FieldError{Pointer: "/" + name, Reason: f.Reason}
		}
		if err != nil {
			return answer{}, err
		}
	}
	return a.settings()
}
