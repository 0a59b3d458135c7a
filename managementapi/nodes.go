package managementapi

import (
	"context"
	"math"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Nodes are the processes that follow the store. A *keystore.Nodes is one.
type Nodes interface {
	// Await returns when every node has applied all up to r, or, when ctx
	// ends, with those that may not have. ErrUnavailable: it is not known.
	// ErrPositionLost: the store has lost the change.
	Await(ctx context.Context, r keystore.Revision) (pending []keystore.NodeID, err error)
	// Report returns how all nodes are.
	Report(ctx context.Context) (keystore.NodeReport, error)
}

// Node is a node as callers see it.
type Node struct {
	ID      keystore.NodeID `json:"id"`
	Address string          `json:"address"`
	Version string          `json:"version"`
	State   string          `json:"state"`
	Self    bool            `json:"self"` // this one answers

	// As of its last heartbeat.
	AppliedRevision keystore.Revision `json:"applied_revision"`
	LagRevisions    int64             `json:"lag_revisions"`
	LagMilliseconds int64             `json:"lag_milliseconds"`
	HeartbeatAt     time.Time         `json:"heartbeat_at"`

	// How long it may at most go on deciding without another heartbeat; null:
	// for good, because it is the store's only writer.
	LeaseMilliseconds *int64 `json:"lease_milliseconds"`
}

// NodeList is all nodes, in the order of their registration.
type NodeList struct {
	Nodes []Node            `json:"nodes"`
	Head  keystore.Revision `json:"head"` // the last change that the store holds
}

// What the state of a node can be.
const (
	nodeFresh  = "fresh"  // has applied all there is
	nodeBehind = "behind" // lives, and has not
	nodeSilent = "silent" // gives no sign of life, and may still decide on what it knew
	nodeGone   = "gone"   // was silent for so long that nobody waits for it any more
)

// silentAfter is how old the last heartbeat of a node may be that was just
// asked for one; half of its lease, if that is shorter.
const silentAfter = 5 * time.Second

func (a *API) listNodes(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	report, err := a.Nodes.Report(c.Context())
	if err != nil {
		return answer{}, err
	}
	out := NodeList{Nodes: []Node{}, Head: report.Head.Revision}
	for i := range report.Nodes {
		out.Nodes = append(out.Nodes, nodeOf(&report.Nodes[i], report.Now))
	}
	return answer{body: out}, nil
}

func nodeOf(s *keystore.NodeState, now keystore.Instant) Node {
	n := Node{
		ID: s.ID, Address: s.Address, Version: s.Version, State: nodeState(s, now), Self: s.Self,
		AppliedRevision: s.Applied.Revision, LagRevisions: int64(s.Revisions), LagMilliseconds: s.Lag.Milliseconds(),
		HeartbeatAt: s.Heartbeat.Time(),
	}
	if left := s.LeaseLeft.Milliseconds(); s.LeaseLeft > 0 || s.Stale { // else it has no end
		n.LeaseMilliseconds = &left
	}
	return n
}

func nodeState(s *keystore.NodeState, now keystore.Instant) string {
	const never = math.MaxInt64
	switch silence := now.Time().Sub(s.Heartbeat.Time()); {
	case !s.Self && !s.Pending(never, now):
		return nodeGone
	case !s.Self && silence > min(silentAfter, s.Bound/2):
		return nodeSilent
	case s.Revisions > 0:
		return nodeBehind
	default:
		return nodeFresh
	}
}

// Interface guards.
var _ Nodes = (*keystore.Nodes)(nil)
