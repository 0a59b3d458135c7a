package keystore

import (
	"context"
	"time"
)

// A store that several processes write keeps a registry of them, and tells
// each of what the others wrote. Neither is part of the log.

// NodeID names one run of a sidecar; every start makes a new one.
type NodeID string

// Node is a running sidecar as the registry shows it.
type Node struct {
	ID      NodeID
	Address string // where an operator finds it, such as its host name
	Version string
	Applied Position // as of the last heartbeat

	// Bound is how long after a heartbeat the node may still decide on what
	// it knew then: the largest staleness that it allows itself, and how long
	// it goes on serving after that.
	Bound time.Duration

	// By the store's clock:
	Heartbeat Instant
	Behind    Instant // when the first change after Applied was committed; zero: it has applied all
}

// Roll is the registry as of one moment.
type Roll struct {
	Now   Instant // by the store's clock
	Head  Position
	Nodes []Node // in the order of their registration
}

// Registry keeps the nodes that follow a store.
type Registry interface {
	// Beat registers n, or records that it lives, at the store's clock.
	// Heartbeat and Behind of n are not read. A position that the log does
	// not hold counts as nothing applied: after a failover a revision of the
	// lost branch says nothing.
	Beat(ctx context.Context, n Node) error
	// Roll returns all nodes. One that has been silent for long after its
	// bound may have been left out.
	Roll(ctx context.Context) (Roll, error)
	// Leave removes a node that has ceased to decide. One that is not there
	// is left so.
	Leave(ctx context.Context, id NodeID) error
}

// Notifier carries hints between the nodes. They may be lost, repeated or
// made up by whoever may use the database, and the log is the truth: a hint
// can only make a node look earlier, or read again what it knew.
type Notifier interface {
	// Listen calls heard for each hint until ctx ends or the connection is
	// lost, which is the error. As soon as it listens it calls heard with the
	// zero Notice: what was told before, nobody told this node.
	Listen(ctx context.Context, heard func(Notice)) error
	// AskBeats asks every node for a heartbeat once it has applied what is in
	// the log now.
	AskBeats(ctx context.Context) error
}

// Notice is a hint that the log may have grown.
type Notice struct {
	Keys []KeyID // of those that changed, as many as a notification holds
	Beat bool    // a heartbeat is asked for
}

// Pending reports whether n may at now still decide without r: it has not
// shown that it applied r, and its bound, with a tenth of it more for clocks
// that run apart, is not over.
func (n Node) Pending(r Revision, now Instant) bool {
	bound := microseconds(n.Bound)
	return n.Applied.Revision < r && now < n.Heartbeat+bound+(bound+9)/10
}

// LeaseLeft returns how long at now n may still decide on what it knew at its
// last heartbeat.
func (n Node) LeaseLeft(now Instant) time.Duration {
	return max(time.Duration(n.Heartbeat+microseconds(n.Bound)-now)*time.Microsecond, 0)
}

// microseconds rounds up: nobody is thought to have ceased too early.
func microseconds(d time.Duration) Instant {
	whole := Instant(max(d, 0) / time.Microsecond)
	if d%time.Microsecond > 0 {
		whole++
	}
	return whole
}
