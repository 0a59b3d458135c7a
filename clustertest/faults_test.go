//go:build unix

package clustertest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"
)

// A fault happens to a storm, holds for a while, and is over. It returns the
// node that it happened to, or nobody if to all.
type fault struct {
	name   string
	happen func(f *weather, hold time.Duration) int
}

var faults = []fault{
	{"database stopped and started", func(f *weather, hold time.Duration) int {
		return f.down(hold, func() { f.cluster.server.Stop() })
	}},
	{"database stopped at once and started", func(f *weather, hold time.Duration) int {
		return f.down(hold, func() { f.cluster.server.StopImmediately() })
	}},
	{"database killed and started", func(f *weather, hold time.Duration) int {
		return f.down(hold, func() { f.cluster.server.Kill() })
	}},
	{"database restarted", func(f *weather, _ time.Duration) int {
		f.cluster.server.Restart()
		return nobody
	}},
	{"database halted", (*weather).halt},
	{"synchronous standby promoted", (*weather).failOver},
	{"asynchronous standby promoted, which lacks changes", (*weather).forget},
	{"database restored from an older dump", (*weather).restore},
	{"connections of all nodes broken", func(f *weather, _ time.Duration) int {
		for _, n := range f.cluster.nodes {
			n.link.breakAll()
		}
		return nobody
	}},
	{"a node cut off", func(f *weather, hold time.Duration) int {
		return f.cutOff(hold, (*link).cut)
	}},
	{"a node cut off silently", func(f *weather, hold time.Duration) int {
		return f.cutOff(hold, func(l *link) { l.swallow(true, true) })
	}},
	{"what a node says is lost silently", func(f *weather, hold time.Duration) int {
		return f.cutOff(hold, func(l *link) { l.swallow(true, false) })
	}},
	{"what the database says to a node is lost silently", func(f *weather, hold time.Duration) int {
		return f.cutOff(hold, func(l *link) { l.swallow(false, true) })
	}},
	{"all nodes cut off silently", (*weather).cutOffAll},
	{"a node halted", (*weather).freeze},
	{"a node killed and started", (*weather).killNode},
	{"the clock of a node wrong, and right again", (*weather).wrongClock},
	{"a node far away on a bad line", (*weather).badLine},
}

const (
	staleness     = 2 * time.Second
	recoveryTime  = 30 * time.Second // bounds what is to happen without help
	calm          = 500 * time.Millisecond
	faultVariable = "WARDER_FAULT_SEED"
)

// TestFaults: whatever happens, no node breaks the promise, and all recover.
func TestFaults(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv(faultVariable); text != "" {
		given, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", faultVariable, err)
		}
		seed = given
	}
	t.Logf("%s=%d", faultVariable, seed)
	c := newCluster(t, 3, staleness)
	s := newStorm(t, c, seed)
	f := &weather{storm: s, random: rand.New(rand.NewPCG(seed, 1000))}
	f.rest(2 * time.Second)
	before := f.goroutines()
	happened := make(map[string]bool)
	for until := time.Now().Add(*faultTime); time.Now().Before(until) && !t.Failed(); {
		for _, n := range f.random.Perm(len(faults)) {
			if time.Now().Before(until) && !t.Failed() {
				f.strike(faults[n])
				happened[faults[n].name] = true
			}
		}
	}
	for _, fault := range faults {
		if !happened[fault.name] {
			t.Logf("SKIPPED: %s; the time was over", fault.name)
		}
	}
	f.rest(2 * c.bound)
	f.checkLeftovers(before)
	s.end()
	t.Log(s.summary())
	s.judge()
	f.checkConnections()
}

// The weather is what happens to a storm.
type weather struct {
	*storm
	random *rand.Rand
}

func (f *weather) rest(d time.Duration) { time.Sleep(d) }

// strike has a fault happen, and waits until all have recovered.
func (f *weather) strike(fault fault) {
	f.t.Helper()
	began := f.cluster.now()
	hold := time.Duration(f.random.Int64N(int64(5 * f.cluster.bound / 2)))
	node := fault.happen(f, hold)
	over := f.cluster.now()
	f.recover(fault)
	until := f.cluster.now()
	f.disturbed(node, began, until)
	where := "all nodes"
	if node != nobody {
		where = fmt.Sprintf("node %d", node)
	}
	f.t.Logf("%7.1fs %s, %s: held for %.1fs, recovered after %.2fs", began.Seconds(), fault.name, where, (over - began).Seconds(), (until - over).Seconds())
	f.rest(calm)
}

// recover waits until each node makes changes that all have seen, and decides.
func (f *weather) recover(fault fault) {
	f.t.Helper()
	deadline := time.Now().Add(recoveryTime)
	client := newClient()
	defer client.CloseIdleConnections()
	for _, n := range f.cluster.nodes {
		for !f.recovered(n, client) {
			if time.Now().After(deadline) {
				f.t.Fatalf("%s: node %d does not recover: %s", fault.name, n.index, f.symptoms(n, client))
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (f *weather) recovered(n *node, client *http.Client) bool {
	status, k, err := n.manage(http.MethodPost, "/keys?wait=1s", `{}`)
	if err != nil || status/100 != 2 || !k.SeenByAll {
		return false
	}
	for _, every := range f.cluster.nodes {
		if every.ask(client, apiKey.authorization(k, "")) != active {
			return false
		}
	}
	status, _, err = n.manage(http.MethodDelete, "/keys/"+k.ID, "")
	return err == nil && status/100 == 2
}

func (f *weather) symptoms(n *node, client *http.Client) string {
	status, k, err := n.manage(http.MethodPost, "/keys?wait=1s", `{}`)
	text := fmt.Sprintf("a change: %d %s %v, seen by all: %t, pending: %q; gates:", status, k.Code, err, k.SeenByAll, k.Pending)
	for _, every := range f.cluster.nodes {
		text += " " + string(every.ask(client, apiKey.authorization(k, "")))
	}
	return text
}

func (f *weather) await(what string, happened func() bool) {
	f.t.Helper()
	await(f.t, what, happened)
}

// goroutines is how many each node has.
func (f *weather) goroutines() []int {
	f.t.Helper()
	var all []int
	for _, n := range f.cluster.nodes {
		all = append(all, n.goroutines())
	}
	return all
}

// checkLeftovers demands that nothing has piled up.
func (f *weather) checkLeftovers(before []int) {
	f.t.Helper()
	const slack = 25 // connections of clients come and go
	after := f.goroutines()
	f.t.Logf("goroutines before %d, after %d", before, after)
	for node := range after {
		if after[node] > before[node]+slack {
			f.t.Errorf("node %d has %d goroutines, and had %d", node, after[node], before[node])
		}
	}
	most := int64(len(f.cluster.nodes) * (poolSize + 1))
	if n := f.cluster.connections(); n > most {
		f.t.Errorf("%d connections to the database, more than %d", n, most)
	}
}

// checkConnections demands that nodes that end leave no connection.
func (f *weather) checkConnections() {
	f.t.Helper()
	for _, n := range f.cluster.nodes {
		n.stop()
	}
	f.await("all connections to be gone", func() bool { return f.cluster.connections() == 0 })
}
