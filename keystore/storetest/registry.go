package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// registry: nodes are kept as they say, in the order in which they came, with
// the store's own view of when they lived and how far they are.
func registry(t *testing.T, h Harness) {
	if !h.Shared {
		t.Skip("the store is not shared")
	}
	t.Run("Fields", func(t *testing.T) { nodeFields(open(t, h)) })
	t.Run("Positions", func(t *testing.T) { nodePositions(open(t, h)) })
	t.Run("Behind", func(t *testing.T) { nodeBehind(open(t, h)) })
	t.Run("Leave", func(t *testing.T) { nodesLeave(open(t, h)) })
	t.Run("Ended", func(t *testing.T) { registryEnded(open(t, h)) })
}

func (b *bench) registry() keystore.Registry {
	b.Helper()
	r, ok := b.store.(keystore.Registry)
	if !ok {
		b.Fatalf("%T is no registry", b.store)
	}
	return r
}

func (b *bench) beat(n keystore.Node) {
	b.Helper()
	if err := b.registry().Beat(b.Context(), n); err != nil {
		b.Fatalf("Beat(%s): %v", n.ID, err)
	}
}

func (b *bench) roll() keystore.Roll {
	b.Helper()
	roll, err := b.registry().Roll(b.Context())
	if err != nil {
		b.Fatalf("Roll: %v", err)
	}
	return roll
}

// node returns the registered node of that id.
func (b *bench) node(id keystore.NodeID) keystore.Node {
	b.Helper()
	nodes := b.roll().Nodes
	at := slices.IndexFunc(nodes, func(n keystore.Node) bool { return n.ID == id })
	if at < 0 {
		b.Fatalf("%s is not among %+v", id, nodes)
	}
	return nodes[at]
}

func nodeFields(b *bench) {
	if roll := b.roll(); len(roll.Nodes) != 0 || roll.Head != b.head() || roll.Now == 0 {
		b.Errorf("a fresh registry: %+v", roll)
	}
	head := b.head()
	first := keystore.Node{
		ID: "zzz-ü", Address: "host-a:8080 ü", Version: "v1.2.3", Applied: head, Bound: 90*time.Second + time.Microsecond,
		Heartbeat: 12345, Behind: 678, // the store's own: not read
	}
	before := b.roll().Now
	b.beat(first)
	b.beat(keystore.Node{ID: "aaa"})
	roll := b.roll()
	if len(roll.Nodes) != 2 || roll.Nodes[0].ID != "zzz-ü" || roll.Nodes[1].ID != "aaa" {
		b.Fatalf("not in the order of registration: %+v", roll.Nodes)
	}
	got := roll.Nodes[0]
	if got.Heartbeat < before || got.Heartbeat > roll.Now {
		b.Errorf("heartbeat at %d, between %d and %d", got.Heartbeat, before, roll.Now)
	}
	first.Heartbeat, first.Behind = got.Heartbeat, 0
	if got != first {
		b.Errorf("got %+v\nwant %+v", got, first)
	}
	if bare := roll.Nodes[1]; bare.Bound != 0 || bare.Applied != (keystore.Position{}) || bare.Address != "" || bare.Behind == 0 {
		b.Errorf("a node that says nothing: %+v", bare)
	}
	again := keystore.Node{ID: "zzz-ü", Address: "host-b", Version: "v2", Applied: head, Bound: time.Second}
	b.beat(again)
	roll = b.roll()
	got = roll.Nodes[0]
	if len(roll.Nodes) != 2 || got.Heartbeat < first.Heartbeat {
		b.Errorf("after another heartbeat: %+v", roll.Nodes)
	}
	again.Heartbeat = got.Heartbeat
	if got != again {
		b.Errorf("got %+v\nwant %+v", got, again)
	}
}

// nodePositions: what the log does not hold counts as nothing.
func nodePositions(b *bench) {
	first := b.head()
	b.put(key("a"))
	head := b.head()
	for what, c := range map[string]struct{ at, want keystore.Position }{
		"the head":           {head, head},
		"an earlier one":     {first, first},
		"nothing":            {},
		"a wrong mark":       {keystore.Position{Revision: head.Revision, Mark: head.Mark + 1}, keystore.Position{}},
		"another row's mark": {keystore.Position{Revision: head.Revision, Mark: first.Mark}, keystore.Position{}},
		"beyond the head":    {keystore.Position{Revision: head.Revision + 1, Mark: head.Mark}, keystore.Position{}},
	} {
		b.beat(keystore.Node{ID: "n", Applied: c.at})
		if got := b.node("n").Applied; got != c.want {
			b.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// nodeBehind: since the first change that a node has not applied.
func nodeBehind(b *bench) {
	b.beat(keystore.Node{ID: "n", Applied: b.head()})
	if behind := b.node("n").Behind; behind != 0 {
		b.Errorf("nothing is missing, yet behind since %d", behind)
	}
	before := b.roll().Now
	b.put(key("a"))
	after := b.roll().Now
	middle := b.head()
	since := b.node("n").Behind
	if since < before || since > after {
		b.Errorf("behind since %d, the change was between %d and %d", since, before, after)
	}
	b.put(key("b"))
	if again := b.node("n").Behind; again != since {
		b.Errorf("a second change moved it from %d to %d", since, again)
	}
	b.beat(keystore.Node{ID: "n", Applied: middle})
	if again := b.node("n").Behind; again <= since {
		b.Errorf("the first change is applied, yet behind since %d, was %d", again, since)
	}
	b.beat(keystore.Node{ID: "n", Applied: b.head()})
	if roll := b.roll(); roll.Nodes[0].Behind != 0 || roll.Head != roll.Nodes[0].Applied {
		b.Errorf("all is applied: %+v", roll)
	}
}

func nodesLeave(b *bench) {
	head := b.head()
	b.beat(keystore.Node{ID: "a"})
	b.beat(keystore.Node{ID: "b"})
	for _, id := range []keystore.NodeID{"a", "a", "never"} {
		if err := b.registry().Leave(b.Context(), id); err != nil {
			b.Errorf("Leave(%s): %v", id, err)
		}
	}
	if nodes := b.roll().Nodes; len(nodes) != 1 || nodes[0].ID != "b" {
		b.Errorf("after one has left: %+v", nodes)
	}
	b.beat(keystore.Node{ID: "a"})
	if nodes := b.roll().Nodes; len(nodes) != 2 || nodes[1].ID != "a" {
		b.Errorf("after it came back: %+v", nodes)
	}
	if b.head() != head {
		b.Error("nodes are in the log of changes")
	}
}

func registryEnded(b *bench) {
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	beatErr := b.registry().Beat(ctx, keystore.Node{ID: "n"})
	_, rollErr := b.registry().Roll(ctx)
	leaveErr := b.registry().Leave(ctx, "n")
	askErr := b.store.(keystore.Notifier).AskBeats(ctx)
	listenErr := b.store.(keystore.Notifier).Listen(ctx, func(keystore.Notice) { b.Error("heard something") })
	for what, err := range map[string]error{"Beat": beatErr, "Roll": rollErr, "Leave": leaveErr, "AskBeats": askErr, "Listen": listenErr} {
		if !errors.Is(err, context.Canceled) {
			b.Errorf("%s: %v", what, err)
		}
	}
}
