//go:build unix

package clustertest

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// A cluster is several nodes on one database.
type cluster struct {
	t         testing.TB
	server    *postgrestest.Server // the primary
	database  string               // its URL, at the server that was the first primary
	upstream  string               // the API behind the gates
	masterKey string
	bound     time.Duration // max_staleness
	nodes     []*node
	began     time.Time
}

// newCluster starts nodes on a database of their own, all at once. Whether
// they come up on an empty one is a part of every test.
func newCluster(t testing.TB, nodes int, bound time.Duration) *cluster {
	t.Helper()
	c := prepareCluster(t, bound)
	for range nodes {
		c.add().launch()
	}
	for _, n := range c.nodes {
		n.awaitServing()
	}
	return c
}

// prepareCluster makes a cluster that has no nodes yet.
func prepareCluster(t testing.TB, bound time.Duration) *cluster {
	t.Helper()
	c := &cluster{t: t, server: postgrestest.Start(t, postgrestest.Options{}), bound: bound, began: time.Now()}
	c.database = c.server.Database()
	c.masterKey = keystore.NewMasterKey().Text().Reveal()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(api.Close)
	c.upstream = api.Listener.Addr().String()
	return c
}

// add makes one more node, with a link of its own.
func (c *cluster) add() *node {
	c.t.Helper()
	n := newNode(c.t, len(c.nodes), c, newLink(c.t, c.server.Address()))
	c.nodes = append(c.nodes, n)
	return n
}

// databaseAt is how a node finds the database.
func (c *cluster) databaseAt(l *link) string { return postgrestest.At(c.database, l.address()) }

// now is the time of the histories.
func (c *cluster) now() moment { return time.Since(c.began) }

// lead has every node find another server from now on.
func (c *cluster) lead(s *postgrestest.Server) {
	c.server = s
	for _, n := range c.nodes {
		n.link.lead(s.Address())
	}
}

// connections is how many connections the nodes have at the primary.
func (c *cluster) connections() int64 {
	c.t.Helper()
	return c.server.Count("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'warder\\_%' AND backend_type = 'client backend'")
}
