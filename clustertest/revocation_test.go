//go:build unix

package clustertest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An operation ends what a credential may do.
type operation struct{ name, method, path, body string }

var revocations = []operation{
	{"deactivate", http.MethodPost, "/deactivate", ""},
	{"block", http.MethodPost, "/block", ""},
	{"expire", http.MethodPost, "/expire", ""},
	{"rotate by force", http.MethodPost, "/rotate", `{"force":true}`},
	{"regenerate", http.MethodPost, "/regenerate", `{}`},
	{"delete", http.MethodDelete, "", ""},
}

// do has a node make the change.
func (o operation) do(n *node, k key, query string) (int, key, error) {
	return n.manage(o.method, "/keys/"+k.ID+o.path+query, o.body)
}

// TestRevocation: a key is revoked on node 0 while all nodes are asked for it.
// How long after the answer the others still accept it is printed; that it is
// never for longer than the bound, never again afterwards, and never once all
// have seen it, is demanded.
func TestRevocation(t *testing.T) {
	c := newCluster(t, 3, 2*time.Second)
	far := c.nodes[1].link
	t.Run("loopback", func(t *testing.T) { newRevoker(t, c).run(*cycles, "") })
	t.Run("seen by all", func(t *testing.T) { newRevoker(t, c).run((*cycles+2)/3, "?wait=5s") })
	t.Run("20 ms to node 1", func(t *testing.T) {
		far.toStore.slow(20*time.Millisecond, 0)
		far.toNode.slow(20*time.Millisecond, 0)
		newRevoker(t, c).run((*cycles+2)/3, "")
	})
	t.Run("20 ms to node 1, seen by all", func(t *testing.T) { newRevoker(t, c).run((*cycles+5)/6, "?wait=5s") })
	t.Run("1 percent of segments to node 1 lost", func(t *testing.T) {
		far.toStore.slow(0, 0.01)
		far.toNode.slow(0, 0.01)
		newRevoker(t, c).run((*cycles+2)/3, "")
	})
}

// A revoker makes keys and revokes them, one after another.
type revoker struct {
	t       *testing.T
	cluster *cluster
	clients []*http.Client // one for each node
	dead    []string       // what nobody may accept ever again
	elapsed []lags         // of each node
}

func newRevoker(t *testing.T, c *cluster) *revoker {
	r := &revoker{t: t, cluster: c, elapsed: make([]lags, len(c.nodes))}
	for range c.nodes {
		r.clients = append(r.clients, newClient())
	}
	t.Cleanup(func() {
		for _, client := range r.clients {
			client.CloseIdleConnections()
		}
	})
	return r
}

func (r *revoker) run(cycles int, query string) {
	for range cycles {
		for _, o := range revocations {
			for _, k := range kinds {
				r.revoke(o, k, query)
			}
		}
	}
	for _, node := range r.cluster.nodes[1:] {
		r.t.Logf("node %d, begun after the answer and accepted: %v", node.index, r.elapsed[node.index])
	}
	r.askTheDead()
}

// revoke is one cycle: a key, asked for on every node, and its end.
func (r *revoker) revoke(o operation, kind kind, query string) {
	r.t.Helper()
	first := r.cluster.nodes[0]
	of := &credential{name: fmt.Sprintf("%s, %s", o.name, kind)}
	made := change{began: r.cluster.now(), seen: never, to: active}
	k := first.mustManage(http.MethodPost, "/keys", `{}`)
	made.ended = r.cluster.now()
	token := ""
	if kind == accessToken {
		var err error
		if token, err = first.token(k); err != nil {
			r.t.Fatal(err)
		}
	}
	shown := kind.authorization(k, token)

	load := r.load(shown)
	load.await(r.t, "the key to be accepted", func(a answer) bool { return a.saw == active })
	ended := change{began: r.cluster.now(), seen: never, to: dead}
	status, answered, err := o.do(first, k, query)
	ended.ended = r.cluster.now()
	if err != nil || status/100 != 2 {
		r.t.Fatalf("%s: %d %s %v", o.name, status, answered.Code, err)
	}
	if query != "" {
		if ended.seen = ended.ended; !answered.SeenByAll || len(answered.Pending) > 0 {
			r.t.Fatalf("%s: not seen by %q", o.name, answered.Pending)
		}
	}
	load.await(r.t, "the key to be refused", func(a answer) bool { return a.saw != active && a.began > ended.ended })
	of.changes, of.answers = []change{made, ended}, load.stop()
	r.judge(of)
	r.dead = append(r.dead, shown)
}

func (r *revoker) judge(c *credential) {
	r.t.Helper()
	h := history{nodes: len(r.cluster.nodes), bound: r.cluster.bound, credentials: []*credential{c}}
	for _, wrong := range h.check() {
		r.t.Error(wrong)
	}
	late := make([]time.Duration, len(r.cluster.nodes))
	for _, a := range c.answers {
		if a.saw == active {
			late[a.node] = max(late[a.node], a.began-c.changes[1].ended)
		}
	}
	for node := range r.cluster.nodes {
		if !h.linearizable(c, node) {
			r.t.Errorf("porcupine does not believe node %d: %+v", node, c)
		}
		r.elapsed[node] = append(r.elapsed[node], late[node])
	}
}

// askTheDead shows every revoked credential to every node once more.
func (r *revoker) askTheDead() {
	r.t.Helper()
	for _, node := range r.cluster.nodes {
		for _, shown := range r.dead {
			if saw := node.ask(r.clients[node.index], shown); !dead.explains(saw) {
				r.t.Errorf("node %d says of a revoked credential: %s", node.index, saw)
			}
		}
	}
}

// A load asks every node for one credential, again and again.
type load struct {
	nodes   int
	ending  atomic.Bool
	working sync.WaitGroup

	mu      sync.Mutex // guards answers
	answers []answer
}

// pause between two requests to a node: so fine is what is measured, and so
// much is left of the machine to all others.
const pause = 300 * time.Microsecond

func (r *revoker) load(shown string) *load {
	l := &load{nodes: len(r.cluster.nodes)}
	for _, n := range r.cluster.nodes {
		l.working.Go(func() {
			for !l.ending.Load() {
				a := answer{node: n.index, began: r.cluster.now()}
				a.saw = n.ask(r.clients[n.index], shown)
				a.ended = r.cluster.now()
				l.mu.Lock()
				l.answers = append(l.answers, a)
				l.mu.Unlock()
				time.Sleep(pause)
			}
		})
	}
	r.t.Cleanup(func() { l.stop() })
	return l
}

// await waits until each node has given several such answers one after another.
func (l *load) await(t *testing.T, what string, such func(answer) bool) {
	t.Helper()
	const enough = 3
	await(t, what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, inARow := range l.inARow(such) {
			if inARow < enough {
				return false
			}
		}
		return true
	})
}

// inARow is how many such answers each node gave last.
func (l *load) inARow(such func(answer) bool) []int {
	n := make([]int, l.nodes)
	for _, a := range l.answers {
		if n[a.node]++; !such(a) {
			n[a.node] = 0
		}
	}
	return n
}

// stop ends the load and returns all answers in the order in which they began.
func (l *load) stop() []answer {
	l.ending.Store(true)
	l.working.Wait()
	slices.SortFunc(l.answers, func(a, b answer) int { return cmp.Compare(a.began, b.began) })
	return l.answers
}
