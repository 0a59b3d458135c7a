package managementapi

import (
	"fmt"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Usage is how often keys were used.
type Usage struct {
	Usage []UsageSum `json:"usage"` // in the order of periods, then keys
	More  bool       `json:"more"`  // there is more than one answer holds: ask for less
}

// UsageSum is the sum of a period, or of a key in a period.
type UsageSum struct {
	Period   string            `json:"period"` // such as 2026-11 or 2026-11-22, in UTC
	Key      keystore.KeyID    `json:"key,omitempty"`
	Requests uint64            `json:"requests"`
	Allowed  uint64            `json:"allowed"`
	Refused  map[string]uint64 `json:"refused"` // by reason
	Keys     int               `json:"keys"`    // that were let pass at least once
}

// maxUsageRows bounds an answer; a row is an outcome of a sum.
const maxUsageRows = 50_000

func (a *API) usage(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	q, err := c.usageQuery()
	if err != nil {
		return answer{}, err
	}
	q.Limit = maxUsageRows + 1
	rows, err := a.Service.Usage(c.Context(), c.caller, q, c.now)
	if err != nil {
		return answer{}, err
	}
	return answer{body: usageOf(rows, maxUsageRows)}, nil
}

func (c *call) usageQuery() (keystore.UsageQuery, error) {
	p := c.query
	q := keystore.UsageQuery{Organization: p["organization"], Key: keystore.KeyID(p["key"])}
	switch p["group"] {
	case "":
	case "key":
		q.ByKey = true
	default:
		return q, &parameterError{"group", "must be key"}
	}
	var unit usageUnit
	switch p["by"] {
	case "", "month":
		unit = usageMonths
	case "day":
		unit = usageDays
	default:
		return q, &parameterError{"by", "must be month or day"}
	}
	from, to, err := unit.span(p, c.now.UTC())
	unit.ask(&q, keystore.DayOf(keystore.InstantOf(from)), keystore.DayOf(keystore.InstantOf(to)))
	return q, err
}

// usageUnit is a length of periods.
type usageUnit struct {
	layout string
	form   string
	ask    func(q *keystore.UsageQuery, from, to keystore.Day)
}

var (
	usageMonths = usageUnit{"2006-01", "must be a month such as 2026-11", func(q *keystore.UsageQuery, from, to keystore.Day) {
		q.FromMonth, q.ToMonth = from.Month(), to.Month()
	}}
	usageDays = usageUnit{"2006-01-02", "must be a day such as 2026-11-22", func(q *keystore.UsageQuery, from, to keystore.Day) {
		q.FromDay, q.ToDay = from, to
	}}
)

// span reads from and to. Without from it is to alone; without to it is until
// now; without both it is the current month, by days as far as it has come.
func (u usageUnit) span(p map[string]string, now time.Time) (from, to time.Time, err error) {
	if to, err = u.bound(p, "to", now); err != nil {
		return from, to, err
	}
	alone := to
	if _, ok := p["to"]; !ok {
		alone = time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	}
	if from, err = u.bound(p, "from", alone); err != nil {
		return from, to, err
	}
	if to.Before(from) {
		return from, to, &parameterError{"to", "is before from"}
	}
	return from, to, nil
}

func (u usageUnit) bound(p map[string]string, name string, otherwise time.Time) (time.Time, error) {
	text, ok := p[name]
	if !ok {
		return otherwise, nil
	}
	t, err := time.Parse(u.layout, text)
	if err != nil || t.Year() < 1970 {
		return t, &parameterError{name, u.form}
	}
	return t, nil
}

// usageOf makes one sum of the rows of its outcomes. Of more than most rows the
// last sum is left out: it may not be whole.
func usageOf(rows []keystore.UsageRow, most int) Usage {
	out := Usage{Usage: []UsageSum{}, More: len(rows) > most}
	for i := range rows {
		row := &rows[i]
		period := periodOf(row)
		if n := len(out.Usage); n == 0 || out.Usage[n-1].Period != period || out.Usage[n-1].Key != row.Key {
			out.Usage = append(out.Usage, UsageSum{Period: period, Key: row.Key, Refused: map[string]uint64{}})
		}
		out.Usage[len(out.Usage)-1].add(row)
	}
	if out.More {
		out.Usage = out.Usage[:len(out.Usage)-1]
	}
	return out
}

func (s *UsageSum) add(row *keystore.UsageRow) {
	s.Requests += row.Requests
	if row.Outcome == keystore.OutcomeAllowed {
		s.Allowed, s.Keys = row.Requests, row.Keys
		return
	}
	s.Refused[row.Outcome.String()] += row.Requests
}

func periodOf(row *keystore.UsageRow) string {
	if row.Month != 0 {
		return fmt.Sprintf("%04d-%02d", row.Month/100, row.Month%100)
	}
	return fmt.Sprintf("%04d-%02d-%02d", row.Day/10_000, row.Day/100%100, row.Day%100)
}
