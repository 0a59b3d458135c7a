package managementapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Seen is what ?wait adds to the answer of a change. A body that has a
// revision of its own keeps it: the one that ETag and If-Match mean.
type Seen struct {
	Revision  keystore.Revision `json:"revision,omitzero"` // that was waited for
	SeenByAll bool              `json:"seen_by_all"`       // every registered node has applied it

	// The nodes that may not have; there if not seen by all. Empty: the
	// registry could not be read.
	Pending []keystore.NodeID `json:"pending,omitzero"`
}

const (
	waitParameter = "wait"
	maximumWait   = time.Minute
)

// parameters are those that the row understands: whatever changes something
// can wait until it is seen.
func (rt *route) parameters() []string {
	if rt.changes() {
		return append(slices.Clone(rt.query), waitParameter)
	}
	return rt.query
}

// waitOf returns how long the caller is willing to wait; zero: it did not ask.
func waitOf(p map[string]string) (time.Duration, error) {
	text, ok := p[waitParameter]
	if !ok {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait <= 0 || wait > maximumWait {
		return 0, &parameterError{waitParameter, "must be a length of time such as 500ms or 5s, at most 60s"}
	}
	return wait, nil
}

// await holds an answer until every node has applied what this one has: the
// change itself, and that which an answer given again is about. The change is
// made, so that an outage of the store is no failure here; that the store has
// lost it is: ErrPositionLost.
func (a *API) await(c *call) (*Seen, error) {
	seen := Seen{Revision: a.Service.Follower.Applied().Revision}
	ctx, cancel := context.WithTimeout(c.Context(), c.wait)
	defer cancel()
	pending, err := a.Nodes.Await(ctx, seen.Revision)
	if errors.Is(err, keystore.ErrPositionLost) {
		return nil, err
	}
	if err != nil && a.Log != nil {
		a.Log(c.Request, fmt.Errorf("waiting for all nodes: %w", err))
	}
	if seen.SeenByAll = err == nil && len(pending) == 0; !seen.SeenByAll {
		seen.Pending = append([]keystore.NodeID{}, pending...)
	}
	return &seen, nil
}

// joined returns the members of an answer and those of seen in one object.
func joined(body []byte, seen Seen) ([]byte, error) {
	var own struct{ Revision keystore.Revision }
	if err := json.Unmarshal(body, &own); err != nil {
		return nil, fmt.Errorf("adding to an answer: %w", err)
	}
	if own.Revision != 0 {
		seen.Revision = 0
	}
	added, err := encode(seen)
	if err != nil {
		return nil, err
	}
	body = bytes.TrimSuffix(bytes.TrimSpace(body), []byte("}"))
	return slices.Concat(body, []byte(","), bytes.TrimPrefix(added, []byte("{"))), nil
}
