package managementapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Health is what is said of a node that is well. Of one that is not a Problem
// says why; see NotReadyError.
type Health struct {
	Status string `json:"status"`
}

// What the status of a node can be.
const (
	HealthOK    = "ok"
	HealthStale = "stale" // decides on what may be too old, by on_stale serve
)

// Why a node is not ready, beside keystore.ErrStale and ErrUnavailable.
var (
	ErrStarting = errors.New("configuration is starting")
	ErrStopping = errors.New("server is stopping")
)

// NotReadyError is why a node may not decide.
type NotReadyError struct{ Err error }

func (e *NotReadyError) Error() string { return "not ready: " + e.Err.Error() }

// Unwrap makes errors.Is see the reason.
func (e *NotReadyError) Unwrap() error { return e.Err }

func (a *API) health(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	stale, err := a.Ready(c.Context(), time.Now())
	if err != nil {
		return answer{}, &NotReadyError{err}
	}
	return answer{body: healthOf(stale)}, nil
}

func healthOf(stale bool) Health {
	if stale {
		return Health{HealthStale}
	}
	return Health{HealthOK}
}

// WriteHealth answers as the route does, for a mount that has no API.
func WriteHealth(w http.ResponseWriter, stale bool, err error) {
	if err != nil {
		WriteError(w, &NotReadyError{err})
		return
	}
	body, err := encode(healthOf(stale))
	if err != nil {
		WriteError(w, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // who has gone cannot be told
}
