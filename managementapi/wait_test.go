package managementapi

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// registry is that of a store with more nodes than the one that is asked.
type registry struct {
	mu    sync.Mutex // guards all below
	roll  keystore.Roll
	err   error
	asked int
	heard func() // when a heartbeat is asked for
}

func (r *registry) Beat(context.Context, keystore.Node) error           { return nil }
func (r *registry) Leave(context.Context, keystore.NodeID) error        { return nil }
func (r *registry) Listen(context.Context, func(keystore.Notice)) error { return nil }

func (r *registry) Roll(context.Context) (keystore.Roll, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	roll := r.roll
	roll.Nodes = slices.Clone(roll.Nodes)
	return roll, r.err
}

func (r *registry) AskBeats(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.heard != nil {
		r.heard()
	}
	return r.err
}

// among makes the rig's node one of several. The log of the registry ends
// where the store's does, and far beyond.
func (g *rig) among(nodes ...keystore.Node) *registry {
	now := keystore.InstantOf(time.Now())
	r := &registry{roll: keystore.Roll{Now: now, Head: keystore.Position{Revision: 1000}}}
	for _, n := range nodes {
		n.Heartbeat += now
		r.roll.Nodes = append(r.roll.Nodes, n)
	}
	cfg := g.config
	cfg.Nodes = keystore.NewNodes(keystore.NodesConfig{
		Self: keystore.Node{ID: "nod_self"}, Follower: g.service.Follower, Registry: r, Notifier: r,
	})
	g.serve(cfg)
	return r
}

var (
	selfNode   = keystore.Node{ID: "nod_self", Address: "here", Version: "v1", Bound: 10 * time.Second}
	freshNode  = keystore.Node{ID: "nod_fresh", Applied: keystore.Position{Revision: 1000}, Bound: 10 * time.Second}
	behindNode = keystore.Node{ID: "nod_behind", Address: "there", Version: "v1", Bound: 10 * time.Second, Applied: keystore.Position{Revision: 1}}
	goneNode   = keystore.Node{ID: "nod_gone", Bound: 10 * time.Second, Applied: keystore.Position{Revision: 1}, Heartbeat: keystore.Instant(-11*time.Second) / 1000}
	silentNode = keystore.Node{ID: "nod_silent", Bound: 10 * time.Second, Applied: keystore.Position{Revision: 1}, Heartbeat: keystore.Instant(-6*time.Second) / 1000}
)

// seen reads what wait adds, and demands the status.
func seen(r reply, status int) Seen {
	r.t.Helper()
	return ok[Seen](r, status)
}

// Every route that changes something can wait, and answers with the same
// status and members as without, and those of Seen. The document is asked by
// the rig of every answer.
func TestEveryChangeCanWait(t *testing.T) {
	g := newRig(t)
	for _, rt := range routes {
		if !rt.changes() {
			g.send(rt.method, pathOf(rt, "key_x", "acme", "perm_x")+"?wait=1s", "").refused(400, "invalid_parameter", "wait")
			continue
		}
		path := g.pathTo(rt, g.changed(`{"expires_in_days":30}`, "rotate"))
		plain := g.send(rt.method, path, bodyFor(rt, "default"))
		if strings.HasPrefix(rt.operation, "organizations.create") || rt.operation == "permissions.create" || rt.method == http.MethodDelete {
			path = g.pathTo(rt, g.changed(`{"expires_in_days":30}`, "rotate"))
		}
		body := strings.Replace(bodyFor(rt, "default"), `"fresh"`, `"fresh-`+strings.ReplaceAll(rt.operation, ".", "-")+`"`, 1)
		waited := g.send(rt.method, path+"?wait=5s", body)
		got := seen(waited, plain.status)
		if !got.SeenByAll || got.Revision == 0 || got.Pending != nil || strings.Contains(string(waited.raw), `"pending"`) {
			t.Errorf("%s: %s", rt.operation, waited.raw)
		}
		before, after := ok[map[string]json.RawMessage](plain, plain.status), ok[map[string]json.RawMessage](waited, plain.status)
		for name := range before {
			if after[name] == nil {
				t.Errorf("%s: with wait there is no %s", rt.operation, name)
			}
		}
		if before["seen_by_all"] != nil {
			t.Errorf("%s: nobody has waited: %s", rt.operation, plain.raw)
		}
	}
}

func TestWaitIsBounded(t *testing.T) {
	g := newRig(t)
	key := g.make(`{}`)
	path := "/keys/" + string(key.ID) + "/block"
	for _, wait := range []string{"0s", "-1s", "60.001s", "61s", "1h", "5", "soon", "99999999999999h", ""} {
		g.send("POST", path+"?wait="+wait, "").refused(400, "invalid_parameter", "wait")
	}
	g.send("POST", path+"?wait=5s&wait=5s", "").refused(400, "invalid_parameter", "wait")
	if rec := g.record(key.ID); rec.Blocked {
		t.Error("a call that was refused has blocked the key")
	}
	for _, wait := range []string{"1ns", "60s", "1m"} {
		ok[Key](g.send("POST", path+"?wait="+wait, ""), 200)
	}
}

// A node that is behind is named when the time is over. Who is not, and who
// has been silent for longer than it may decide, is not waited for.
func TestPendingNodesAreNamed(t *testing.T) {
	g := newRig(t)
	r := g.among(selfNode, freshNode, behindNode, silentNode, goneNode)
	key := g.make(`{}`)
	began := time.Now()
	answer := g.send("POST", "/keys/"+string(key.ID)+"/block?wait=100ms", "")
	blocked := ok[Key](answer, 200)
	got := seen(answer, 200)
	if got.SeenByAll || !slices.Equal(got.Pending, []keystore.NodeID{"nod_behind", "nod_silent"}) || got.Revision != blocked.Revision || !blocked.Blocked {
		t.Errorf("%s", answer.raw)
	}
	if time.Since(began) < 100*time.Millisecond || r.asked == 0 {
		t.Errorf("answered after %s, and %d heartbeats were asked for", time.Since(began), r.asked)
	}
	// Members without a revision of their own name that which was waited for.
	deleted := g.send("POST", "/keys/delete?wait=1ms", `{"ids":["key_x"]}`)
	if got := seen(deleted, 200); got.SeenByAll || got.Revision != blocked.Revision {
		t.Errorf("%s", deleted.raw)
	}
}

// The answer comes as soon as the last one has seen the change.
func TestWaitEndsWhenAllHaveSeen(t *testing.T) {
	g := newRig(t)
	r := g.among(selfNode, behindNode)
	r.heard = func() { r.roll.Nodes[1].Applied = keystore.Position{Revision: 1000} }
	began := time.Now()
	answer := g.send("POST", "/keys?wait=1m", `{"name":"seen"}`, "Idempotency-Key", "one")
	if got := seen(answer, 201); !got.SeenByAll || got.Pending != nil || time.Since(began) > 30*time.Second {
		t.Errorf("%s", answer.raw)
	}
	// An answer given again is about the same change, and waits for it, too.
	r.mu.Lock()
	r.heard, r.roll.Nodes[1].Applied = nil, keystore.Position{Revision: 1}
	r.mu.Unlock()
	again := g.send("POST", "/keys?wait=10ms", `{"name":"seen"}`, "Idempotency-Key", "one")
	if got := seen(again, 201); got.SeenByAll || again.header.Get("Idempotent-Replayed") != "true" || ok[IssuedKey](again, 201).APIKey != ok[IssuedKey](answer, 201).APIKey {
		t.Errorf("%s", again.raw)
	}
}

// The change is made, whatever becomes of the waiting; only a store that has
// lost it is a failure.
func TestWaitWithoutRegistry(t *testing.T) {
	g := newRig(t)
	r := g.among(selfNode)
	key := g.make(`{}`)
	r.err = errLate
	answer := g.send("POST", "/keys/"+string(key.ID)+"/block?wait=20ms", "")
	if got := seen(answer, 200); got.SeenByAll || !strings.Contains(string(answer.raw), `"pending":[]`) {
		t.Errorf("%s", answer.raw)
	}
	if logged := g.takeLog(); len(logged) != 1 || !strings.Contains(logged[0], "disk") {
		t.Errorf("the log says %q", logged)
	}
	g.send("GET", "/nodes", "").refused(503, "unavailable", "")
	r.mu.Lock()
	r.err, r.roll.Head = nil, keystore.Position{Revision: 1}
	r.mu.Unlock()
	g.send("POST", "/keys/"+string(key.ID)+"/unblock?wait=1s", "").refused(503, "unavailable", "")
}

// What is refused does not wait.
func TestRefusalsDoNotWait(t *testing.T) {
	g := newRig(t)
	r := g.among(selfNode, behindNode)
	g.send("POST", "/keys/key_x/block?wait=1m", "").refused(404, "key_not_found", "")
	g.send("POST", "/keys?wait=1m", `{"odd":1}`).refused(400, "unknown_field", "/odd")
	if r.asked != 0 {
		t.Error("heartbeats were asked for")
	}
}

func TestNodes(t *testing.T) {
	g := newRig(t)
	only := ok[NodeList](g.send("GET", "/nodes", ""), 200)
	n := only.Nodes[0]
	if len(only.Nodes) != 1 || n.ID != "nod_self" || n.Address != "here" || n.Version != "test" || !n.Self || n.State != nodeFresh ||
		n.LeaseMilliseconds != nil || n.LagRevisions != 0 || n.AppliedRevision != only.Head || only.Head == 0 || time.Since(n.HeartbeatAt) > time.Minute {
		t.Errorf("%+v", only)
	}
	r := g.among(selfNode, freshNode, behindNode, silentNode, goneNode)
	r.roll.Nodes[2].Behind = r.roll.Now - keystore.Instant(1500*time.Millisecond)/1000
	all := ok[NodeList](g.send("GET", "/nodes", ""), 200)
	var states []string
	for _, n := range all.Nodes {
		states = append(states, n.State)
	}
	if want := []string{nodeBehind, nodeFresh, nodeBehind, nodeSilent, nodeGone}; !slices.Equal(states, want) {
		t.Errorf("%v, want %v", states, want)
	}
	if behind := all.Nodes[2]; behind.LagRevisions != 999 || behind.LagMilliseconds != 1500 || *behind.LeaseMilliseconds != 10_000 || behind.Self || behind.Address != "there" {
		t.Errorf("%+v", behind)
	}
	if gone := all.Nodes[4]; *gone.LeaseMilliseconds != 0 {
		t.Errorf("%+v", gone)
	}
	g.send("GET", "/nodes?limit=1", "").refused(400, "invalid_parameter", "limit")
}
