//go:build unix

package clustertest

import (
	"net/http"
	"time"

	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

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
