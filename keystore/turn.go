package keystore

import (
	"context"
	"time"
)

// Turn lets calls that write much at once do so one after the other. A store
// has one writer, for which all wait in line: so at most one such call stands
// before whoever blocks a key, however many are sent. The nil Turn lets all
// through. Safe for concurrent use.
type Turn chan struct{}

// turnWait is how long a call waits for its turn before it is to come again.
const turnWait = 5 * time.Second

// NewTurn returns a Turn that nobody has.
func NewTurn() Turn { return make(Turn, 1) }

// take waits for the turn, which end gives back. ErrUnavailable.
func (t Turn) take(ctx context.Context) (end func(), err error) {
	if t == nil {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
}
