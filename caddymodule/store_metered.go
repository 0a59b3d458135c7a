package caddymodule

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warderhq/warder/keystore"
)

// metered counts the calls that the store failed to answer, by kind, and times
// look-ups. What the store refuses by the rules of the house, a name that is
// taken, is no failure.
type metered struct {
	keystore.Store
	failures storeErrors
	lookups  prometheus.Observer // in seconds
}

// storeErrors counts failures by operation.
type storeErrors map[string]prometheus.Counter

// storeOperations are the labels under which failures are counted.
var storeOperations = []string{"lookup", "list", "change", "feed", "snapshot", "audit", "usage", "heartbeat", "roll", "leave", "listen"}

func (e storeErrors) count(operation string) { e[operation].Inc() }

// of counts err if it is a failure, and returns it.
func (e storeErrors) of(operation string, err error) error {
	if errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrCorrupt) {
		e.count(operation)
	}
	return err
}

func (m metered) Lookup(ctx context.Context, id keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	began := time.Now()
	rec, at, err := m.Store.Lookup(ctx, id)
	m.lookups.Observe(time.Since(began).Seconds())
	return rec, at, m.failures.of("lookup", err)
}

func (m metered) List(ctx context.Context, q keystore.Query) (keystore.Page, error) {
	page, err := m.Store.List(ctx, q)
	return page, m.failures.of("list", err)
}

func (m metered) Count(ctx context.Context, q keystore.Query) (int, error) {
	n, err := m.Store.Count(ctx, q)
	return n, m.failures.of("list", err)
}

func (m metered) Transact(ctx context.Context, fn func(keystore.Tx) error) (keystore.Revision, error) {
	revision, err := m.Store.Transact(ctx, fn)
	return revision, m.failures.of("change", err)
}

func (m metered) Changes(ctx context.Context, after keystore.Position, limit int) (keystore.Batch, error) {
	batch, err := m.Store.Changes(ctx, after, limit)
	return batch, m.failures.of("feed", err)
}

func (m metered) Snapshot(ctx context.Context) (keystore.Snapshot, error) {
	snapshot, err := m.Store.Snapshot(ctx)
	return snapshot, m.failures.of("snapshot", err)
}

func (m metered) Audit(ctx context.Context, q keystore.AuditQuery) (keystore.AuditPage, error) {
	page, err := m.Store.Audit(ctx, q)
	return page, m.failures.of("audit", err)
}

func (m metered) AddUsage(ctx context.Context, batch keystore.UsageBatch) error {
	return m.failures.of("usage", m.Store.AddUsage(ctx, batch))
}

func (m metered) Usage(ctx context.Context, q keystore.UsageQuery) ([]keystore.UsageRow, error) {
	rows, err := m.Store.Usage(ctx, q)
	return rows, m.failures.of("usage", err)
}

func (m metered) LastUsed(ctx context.Context, keys []keystore.KeyID) ([]keystore.LastUse, error) {
	uses, err := m.Store.LastUsed(ctx, keys)
	return uses, m.failures.of("usage", err)
}

// meteredRegistry counts the same of a registry of nodes.
type meteredRegistry struct {
	keystore.Registry
	failures storeErrors
}

func (m meteredRegistry) Beat(ctx context.Context, n keystore.Node) error {
	return m.failures.of("heartbeat", m.Registry.Beat(ctx, n))
}

func (m meteredRegistry) Roll(ctx context.Context) (keystore.Roll, error) {
	roll, err := m.Registry.Roll(ctx)
	return roll, m.failures.of("roll", err)
}

func (m meteredRegistry) Leave(ctx context.Context, id keystore.NodeID) error {
	return m.failures.of("leave", m.Registry.Leave(ctx, id))
}

// Interface guards.
var (
	_ keystore.Store    = metered{}
	_ keystore.Registry = meteredRegistry{}
)
