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

	"github.com/warderhq/warder/keystore/postgres/postgrestest"
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
	for until := time.Now().Add(*faultTime); time.Now().Before(until) && !t.Failed(); {
		for _, n := range f.random.Perm(len(faults)) {
			if time.Now().Before(until) && !t.Failed() {
				f.strike(faults[n])
			}
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

func (f *weather) anyNode() *node { return f.cluster.nodes[f.random.IntN(len(f.cluster.nodes))] }

// down takes the database away for a while.
func (f *weather) down(hold time.Duration, end func()) int {
	end()
	from := f.cluster.now()
	f.rest(hold)
	f.isolated(nobody, from, f.cluster.now())
	f.cluster.server.Restart()
	return nobody
}

func (f *weather) halt(hold time.Duration) int {
	f.cluster.server.Pause()
	from := f.cluster.now()
	f.rest(hold)
	f.isolated(nobody, from, f.cluster.now())
	f.cluster.server.Resume()
	return nobody
}

// failOver replaces the database by a standby that has all that was ever
// acknowledged.
func (f *weather) failOver(hold time.Duration) int {
	old, standby := f.cluster.server, f.cluster.server.Standby(true)
	f.rest(f.cluster.bound) // changes go on, and wait for the standby
	f.replace(old.Kill, standby.Promote, hold)
	f.cluster.lead(standby)
	old.Remove()
	return nobody
}

// forget replaces the database by a standby that lacks the last changes.
func (f *weather) forget(hold time.Duration) int {
	old, standby := f.cluster.server, f.cluster.server.Standby(false)
	var b branch
	f.still(func() {
		f.await("the standby to have all", func() bool { return old.Lag() == 0 })
		standby.Detach()
		b = f.branchOff()
	})
	f.rest(f.cluster.bound) // these changes will be lost
	f.goBackTo(b, func() {
		f.replace(old.Kill, standby.Promote, hold)
		f.cluster.lead(standby)
	})
	old.Remove()
	return nobody
}

// goBackTo has the database go back to a branch. One node finds it first, and
// makes so many changes that the log is longer than it ever was before the
// others look: that theirs is another one they can only see by its mark.
func (f *weather) goBackTo(b branch, replace func()) {
	f.still(func() {
		began, head := f.cluster.now(), f.head()
		first := f.anyNode()
		for _, n := range f.cluster.nodes {
			if n != first {
				n.link.cut()
			}
		}
		replace()
		f.await("the new log to be longer than the old one", func() bool {
			status, k, err := first.manage(http.MethodPost, "/keys", `{}`)
			if err != nil || status != http.StatusCreated {
				return false
			}
			status, _, err = first.manage(http.MethodDelete, "/keys/"+k.ID, "")
			return err == nil && status/100 == 2 && k.Revision > head
		})
		for _, n := range f.cluster.nodes {
			n.link.heal()
		}
		f.t.Logf("%7.1fs lost %d changes, and made more than that", began.Seconds(), f.goBack(b, began))
	})
}

// head is the revision of the last change.
func (f *weather) head() int64 {
	f.t.Helper()
	return postgrestest.Count(f.t, postgrestest.At(f.cluster.database, f.cluster.server.Address()), "SELECT revision FROM warder.head")
}

func (f *weather) replace(kill, promote func(), hold time.Duration) {
	kill()
	from := f.cluster.now()
	f.rest(hold)
	f.isolated(nobody, from, f.cluster.now())
	promote()
}

func (f *weather) restore(time.Duration) int {
	var b branch
	var dump postgrestest.Dump
	server := f.cluster.server
	f.still(func() {
		dump = server.Dump(f.cluster.database)
		b = f.branchOff()
	})
	f.rest(f.cluster.bound) // these changes will be lost
	f.goBackTo(b, func() { server.Restore(dump) })
	return nobody
}

// cutOff takes the database away from one node.
func (f *weather) cutOff(hold time.Duration, cut func(*link)) int {
	n := f.anyNode()
	cut(n.link)
	from := f.cluster.now()
	f.rest(hold)
	f.isolated(n.index, from, f.cluster.now())
	n.link.heal()
	return n.index
}

func (f *weather) cutOffAll(hold time.Duration) int {
	for _, n := range f.cluster.nodes {
		n.link.swallow(true, true)
	}
	from := f.cluster.now()
	f.rest(hold)
	f.isolated(nobody, from, f.cluster.now())
	for _, n := range f.cluster.nodes {
		n.link.heal()
	}
	return nobody
}

// freeze halts a node for longer than its lease. What it was asked meanwhile
// it answers afterwards.
func (f *weather) freeze(hold time.Duration) int {
	n := f.anyNode()
	n.freeze()
	f.rest(f.cluster.bound + hold/2)
	n.thaw()
	return n.index
}

func (f *weather) killNode(hold time.Duration) int {
	n := f.anyNode()
	n.kill()
	f.rest(hold)
	n.start()
	return n.index
}

func (f *weather) wrongClock(hold time.Duration) int {
	n := f.anyNode()
	clock, err := clockOf(n.cmd.Process.Pid)
	if err != nil {
		f.t.Logf("no clock was set wrong: %v", err)
		return n.index
	}
	ahead := []time.Duration{-20 * time.Minute, -20 * time.Second, 20 * time.Second, 20 * time.Minute}[f.random.IntN(4)]
	if ahead.Abs() > time.Minute { // an access token from the future passes nowhere
		f.noTokens.Store(true)
		defer f.noTokens.Store(false)
		f.rest(calm)
	}
	for _, by := range []time.Duration{ahead, 0} {
		if err := clock.set(by); err != nil {
			f.t.Fatal(err)
		}
		f.rest(hold)
	}
	return n.index
}

// badLine is no fault of which a node may be unsure.
func (f *weather) badLine(hold time.Duration) int {
	n := f.anyNode()
	n.link.toStore.slow(20*time.Millisecond, 0.01)
	n.link.toNode.slow(20*time.Millisecond, 0.01)
	f.rest(hold)
	n.link.toStore.slow(0, 0)
	n.link.toNode.slow(0, 0)
	return n.index
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
