//go:build unix

package clustertest

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// TestFleet: what many nodes on one database cost. The nodes are those parts
// of a sidecar that talk to it. Printed, for two sizes, so that one sees what
// grows with the nodes; demanded is only that all see every change.
func TestFleet(t *testing.T) {
	const changes, seconds = 50, 5
	for _, size := range []int{10, 50} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newFleet(t, size, 10*time.Second)
			f.measure("a second without a change", seconds, 0, func() { time.Sleep(seconds * time.Second) })
			f.measure("a change, and each node asked for the key", changes, settling, func() {
				for range changes {
					f.see(f.change())
				}
			})
			f.measure("one of many changes in a row", changes, settling, func() {
				var last keystore.Revision
				for range changes {
					last = f.change()
				}
				f.see(last)
			})
		})
	}
}

// A fleet is many nodes within this process, and a writer.
type fleet struct {
	t      *testing.T
	server *postgrestest.Server
	writer *postgres.Store
	record keystore.Record
	nodes  []*fleetNode
}

// A fleetNode is what of a sidecar talks to the database.
type fleetNode struct {
	store    *postgres.Store
	view     *keystore.View
	follower *keystore.Follower
}

func newFleet(t *testing.T, size int, staleness time.Duration) *fleet {
	t.Helper()
	f := &fleet{t: t, server: postgrestest.Start(t, postgrestest.Options{})}
	url := keystore.Secret(f.server.Database())
	master := keystore.NewMasterKey()
	open := func() *postgres.Store {
		store, err := postgres.Open(t.Context(), postgres.Config{URL: url, PoolSize: postgres.MinPoolSize}, keystore.SealedGenesis(master))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		return store
	}
	f.writer = open()
	f.record = keystore.Record{
		ID: "key_fleet", Organization: keystore.DefaultOrganization, Type: keystore.TypeStandard, Created: keystore.InstantOf(time.Now()),
		Current: keystore.Pair{Generation: 1, AccessKey: "fleet00000000000000000", Digest: keystore.Digest{1}},
	}
	began := time.Now()
	for range size {
		f.nodes = append(f.nodes, f.startNode(open(), keystore.Freshness{MaxStaleness: staleness}))
	}
	t.Logf("%d nodes up after %v", size, time.Since(began).Round(time.Millisecond))
	f.see(f.change())
	time.Sleep(settling)
	return f
}

func (f *fleet) startNode(store *postgres.Store, fresh keystore.Freshness) *fleetNode {
	f.t.Helper()
	lease := new(keystore.Lease)
	presence := keystore.NewPresence(store, keystore.Node{ID: keystore.NewNodeID(), Address: "localhost", Version: "test"})
	n := &fleetNode{store: store, view: keystore.NewView(store, lease, 1000)}
	n.follower = keystore.NewFollower(keystore.FollowerConfig{
		Store: store, Lease: lease, Presence: presence, Appliers: []keystore.Applier{n.view},
		Failed: func(err error) { f.t.Logf("a round failed: %v", err) },
	})
	if err := n.follower.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	if _, err := presence.Promise(f.t.Context(), fresh); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { n.follower.Run(ctx) })
	loops.Go(func() {
		for ctx.Err() == nil {
			_ = store.Listen(ctx, n.heard) // lost only when the test ends
		}
	})
	f.t.Cleanup(func() { cancel(); loops.Wait() })
	return n
}

func (n *fleetNode) heard(notice keystore.Notice) {
	n.view.Forget(notice.Keys...)
	n.follower.Hear(notice)
}

// change changes the key.
func (f *fleet) change() keystore.Revision {
	f.t.Helper()
	f.record.Blocked = !f.record.Blocked
	revision, err := f.writer.Transact(f.t.Context(), func(tx keystore.Tx) error { return tx.PutKey(&f.record) })
	if err != nil {
		f.t.Fatal(err)
	}
	return revision
}

// see waits until each node has applied the last change and found the key
// again.
func (f *fleet) see(last keystore.Revision) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	var all sync.WaitGroup
	for _, n := range f.nodes {
		all.Go(func() {
			for n.follower.Applied().Revision < last && ctx.Err() == nil {
				time.Sleep(time.Millisecond) // Await would ask for rounds of its own
			}
			if r, err := n.view.Record(ctx, keystore.LookupID(f.record.ID), time.Now()); err != nil || r.Blocked != f.record.Blocked {
				f.t.Errorf("a node has %+v, %v", r, err)
			}
		})
	}
	all.Wait()
}

// settling is how long the database takes at most until it has counted what
// it did.
const settling = 1500 * time.Millisecond

// cost is what was used up to now.
type cost struct {
	at               time.Time
	nodes, database  time.Duration // of processor time
	transactions     int64
	polled, hinted   uint64
	asked            uint64
	connectionsInUse int64
}

func (f *fleet) cost() cost {
	f.t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		f.t.Fatal(err)
	}
	c := cost{
		at: time.Now(), nodes: time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), database: f.server.CPU(),
		transactions:     f.server.Count("SELECT sum(xact_commit)::bigint FROM pg_stat_database WHERE datname LIKE 'warder\\_%'"),
		connectionsInUse: f.server.Count("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'warder\\_%'"),
	}
	for _, n := range f.nodes {
		rounds := n.follower.Rounds()
		c.polled, c.hinted, c.asked = c.polled+rounds.Polled, c.hinted+rounds.Hinted, c.asked+rounds.Asked
	}
	return c
}

// measure prints what something costs, divided by how often it happened. The
// database may be given time to count it.
func (f *fleet) measure(what string, times int, settling time.Duration, do func()) {
	f.t.Helper()
	before := f.cost()
	do()
	took := time.Since(before.at)
	time.Sleep(settling)
	after := f.cost()
	per := func(n float64) float64 { return n / float64(times) }
	f.t.Logf("%d nodes, %s: %.1f ms, of processor time %.2f ms in the database and %.2f ms in the nodes; %.1f transactions; rounds: %.2f polled, %.2f hinted, %.2f asked; %d connections",
		len(f.nodes), what, per(milliseconds(took)),
		per(milliseconds(after.database-before.database)), per(milliseconds(after.nodes-before.nodes)),
		per(float64(after.transactions-before.transactions)),
		per(float64(after.polled-before.polled)), per(float64(after.hinted-before.hinted)), per(float64(after.asked-before.asked)), after.connectionsInUse)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
