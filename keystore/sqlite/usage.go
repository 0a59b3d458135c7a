//go:build unix

package sqlite

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/warderhq/warder/keystore"
)

// AddUsage implements keystore.UsageLog, in one transaction.
func (s *Store) AddUsage(ctx context.Context, batch keystore.UsageBatch) error {
	_, err := s.transact(ctx, func(t *tx) error {
		for i := range batch.Counts {
			if err := t.addCount(&batch.Counts[i]); err != nil {
				return err
			}
		}
		for i := range batch.Last {
			if err := t.moveLastUse(&batch.Last[i]); err != nil {
				return err
			}
		}
		if batch.Oldest == 0 {
			return nil
		}
		return t.exec("dropping old days of usage", t.store.write.dropDays, int64(batch.Oldest))
	})
	return err
}

func (t *tx) addCount(c *keystore.UsageCount) error {
	if c.Requests == 0 { // a row would say that the key was there
		return nil
	}
	day, month := int64(c.Day), int64(c.Day.Month())
	rest := []any{string(c.Key), c.Organization, int64(c.Outcome), int64(c.Requests)}
	if err := t.exec("adding to a day of usage", t.store.write.addDay, append([]any{day}, rest...)...); err != nil {
		return err
	}
	return t.exec("adding to a month of usage", t.store.write.addMonth, append([]any{month}, rest...)...)
}

func (t *tx) moveLastUse(u *keystore.LastUse) error {
	return t.exec("moving a last use", t.store.write.moveLastUse, string(u.Key), int64(u.Generation), int64(u.At))
}

// Usage implements keystore.UsageLog.
func (s *Store) Usage(ctx context.Context, q keystore.UsageQuery) ([]keystore.UsageRow, error) {
	const doing = "summing up usage"
	query, args, err := usageQuery(q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	var rows []keystore.UsageRow
	err = s.scan(ctx, doing, query, args, into(&rows, func(r *keystore.UsageRow) []any {
		to := []any{number(&r.Day), text(&r.Key), number(&r.Outcome), number(&r.Requests), number(&r.Keys)}
		if q.FromMonth != 0 {
			to[0] = number(&r.Month)
		}
		return to
	}))
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func usageQuery(q keystore.UsageQuery) (string, []any, error) {
	var which conditions
	table, from, to := "usage_days", int64(q.FromDay), int64(q.ToDay)
	byMonth, err := q.ByMonth()
	if err != nil {
		return "", nil, err
	}
	if byMonth {
		table, from, to = "usage_months", int64(q.FromMonth), int64(q.ToMonth)
	}
	which.add("period BETWEEN ? AND ?", from, to)
	if q.Organization != "" {
		which.add("organization = ?", q.Organization)
	}
	if q.Key != "" {
		which.add("key = ?", string(q.Key))
	}
	key, group := "''", "period, outcome"
	if q.ByKey {
		key, group = "key", "period, key, outcome"
	}
	limit := int64(-1) // none
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	return "SELECT period, " + key + ", outcome, sum(requests), count(DISTINCT key) FROM " + table + which.where() +
		" GROUP BY " + group + " ORDER BY " + group + " LIMIT ?", append(which.args, limit), nil
}

// LastUsed implements keystore.UsageLog.
func (s *Store) LastUsed(ctx context.Context, keys []keystore.KeyID) ([]keystore.LastUse, error) {
	const doing = "reading last uses"
	// As one parameter: there is no bound to how many keys may be asked for.
	named, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	var uses []keystore.LastUse
	err = s.scan(ctx, doing, lastUsedQuery, []any{string(named)}, into(&uses, func(u *keystore.LastUse) []any {
		return []any{text(&u.Key), number(&u.Generation), number(&u.At)}
	}))
	if err != nil {
		return nil, err
	}
	return uses, nil
}
