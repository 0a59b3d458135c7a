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
	const changes, idle = 50, 3 * time.Second
	for _, size := range []int{10, 50} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newFleet(t, size, 10*time.Second)
			f.measure(fmt.Sprintf("%v without a change", idle), 1, func() { time.Sleep(idle) })
			f.measure("a change, and each node asked for the key", changes, func() {
				for range changes {
					f.change()
				}
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
	f.change()
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

// change changes the key, and waits until each node has applied that and found
// the key again.
func (f *fleet) change() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	f.record.Blocked = !f.record.Blocked
	revision, err := f.writer.Transact(ctx, func(tx keystore.Tx) error { return tx.PutKey(&f.record) })
	if err != nil {
		f.t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, n := range f.nodes {
		all.Go(func() {
			for n.follower.Applied().Revision < revision && ctx.Err() == nil {
				time.Sleep(time.Millisecond) // Await would ask for rounds of its own
			}
			if r, err := n.view.Record(ctx, keystore.LookupID(f.record.ID), time.Now()); err != nil || r.Blocked != f.record.Blocked {
				f.t.Errorf("a node has %+v, %v", r, err)
			}
		})
	}
	all.Wait()
}

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

// measure prints what something costs, divided by how often it happened.
func (f *fleet) measure(what string, times int, do func()) {
	f.t.Helper()
	before := f.cost()
	do()
	time.Sleep(1200 * time.Millisecond) // until the database has counted it all
	after := f.cost()
	per := func(n float64) float64 { return n / float64(times) }
	f.t.Logf("%d nodes, %s: %.1f ms, of processor time %.2f ms in the database and %.2f ms in the nodes; %.1f transactions; rounds: %.2f polled, %.2f hinted, %.2f asked; %d connections",
		len(f.nodes), what, per(milliseconds(after.at.Sub(before.at)-1200*time.Millisecond)),
		per(milliseconds(after.database-before.database)), per(milliseconds(after.nodes-before.nodes)),
		per(float64(after.transactions-before.transactions)),
		per(float64(after.polled-before.polled)), per(float64(after.hinted-before.hinted)), per(float64(after.asked-before.asked)), after.connectionsInUse)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
