package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// storeClock is the time of the database, in microseconds: of all nodes the
// same, whatever theirs is.
const storeClock = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

// mayDecide is whether a node may still decide on what it knew at its last
// heartbeat: until its bound is over, and a tenth more for clocks that do not
// run alike.
const mayDecide = "nodes.heartbeat + nodes.bound + nodes.bound / 10 > " + storeClock

// forgottenAfter is how much longer than its bound a silent node is shown, or
// for as long as it may decide, if that is longer.
const forgottenAfter = 24 * time.Hour

const nodeColumns = "nodes.id, nodes.address, nodes.version, nodes.revision, nodes.mark, nodes.bound, nodes.heartbeat"

func nodeTargets(n *keystore.Node) []any {
	return []any{
		text(&n.ID), text(&n.Address), text(&n.Version), number(&n.Applied.Revision), number(&n.Applied.Mark),
		micros{&n.Bound}, number(&n.Heartbeat),
	}
}

// beat counts a position only if the log holds it, and forgets who has been
// silent for very long.
const beat = "WITH forgotten AS (DELETE FROM nodes WHERE id = ANY (ARRAY(" +
	"SELECT id FROM nodes WHERE heartbeat + bound + greatest($7::bigint, bound / 10) < " + storeClock + " AND id <> $1 FOR UPDATE SKIP LOCKED)))" +
	" INSERT INTO nodes AS known (id, address, version, revision, mark, bound, registered, heartbeat)" +
	" SELECT $1, $2, $3, coalesce(log.revision, 0), coalesce(log.mark, 0), $6, clock.now, clock.now" +
	" FROM (SELECT " + storeClock + " AS now) AS clock LEFT JOIN log ON log.revision = $4 AND log.mark = $5" +
	" ON CONFLICT (id) DO UPDATE SET address = excluded.address, version = excluded.version," +
	" revision = excluded.revision, mark = excluded.mark, bound = excluded.bound, heartbeat = excluded.heartbeat"

// Beat implements keystore.Registry. It is one statement, and so one
// transaction.
func (s *Store) Beat(ctx context.Context, n keystore.Node) error {
	return s.ask(ctx, s.feed, "recording a heartbeat", func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, beat, string(n.ID), written(n.Address), written(n.Version),
			int64(n.Applied.Revision), int64(n.Applied.Mark), roundedUp(n.Bound), forgottenAfter.Microseconds())
		return err
	})
}

// roundedUp is in microseconds: nobody is thought to have ceased too early.
func roundedUp(d time.Duration) int64 { return (d + time.Microsecond - 1).Microseconds() }

// roll gives a row though there be no node. A node is behind since the first
// change that it lacks, or that is left of those.
const roll = "SELECT " + headColumns + ", clock.now, " + nodeColumns +
	", (SELECT log.at FROM log WHERE log.revision > nodes.revision ORDER BY log.revision LIMIT 1)" +
	" FROM head CROSS JOIN (SELECT " + storeClock + " AS now) AS clock LEFT JOIN nodes ON true ORDER BY nodes.registered, nodes.id"

// Roll implements keystore.Registry, in one statement.
func (s *Store) Roll(ctx context.Context) (out keystore.Roll, err error) {
	err = s.ask(ctx, s.rolls, "calling the roll of nodes", func(ctx context.Context, conn *pgx.Conn) error {
		out = keystore.Roll{}
		err := eachRow(func() (pgx.Rows, error) { return conn.Query(ctx, roll) }, func(rows pgx.Rows) error {
			var h head
			var v verdict
			var n keystore.Node
			to := append(h.targets(&v), number(&out.Now))
			if err := rows.Scan(append(append(to, nodeTargets(&n)...), number(&n.Behind))...); err != nil {
				return err
			}
			out.Head = h.Position
			if n.ID != "" {
				out.Nodes = append(out.Nodes, n)
			}
			return v.err()
		})
		if err == nil && out.Now == 0 {
			err = errNoHead
		}
		return err
	})
	if err != nil {
		return keystore.Roll{}, err
	}
	return out, nil
}

// Leave implements keystore.Registry.
func (s *Store) Leave(ctx context.Context, id keystore.NodeID) error {
	return s.ask(ctx, s.feed, "leaving the registry", func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "DELETE FROM nodes WHERE id = $1", string(id))
		return err
	})
}
