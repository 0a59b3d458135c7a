package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/warderhq/warder/keystore"
)

func usage(t *testing.T, h Harness) {
	t.Run("Sums", func(t *testing.T) { usageSums(open(t, h)) })
	t.Run("Grows", func(t *testing.T) { usageGrows(open(t, h)) })
	t.Run("Oldest", func(t *testing.T) { usageOldest(open(t, h)) })
	t.Run("LastUse", func(t *testing.T) { lastUses(open(t, h)) })
	t.Run("Apart", func(t *testing.T) { usageApart(open(t, h)) })
	t.Run("Large", func(t *testing.T) { usageLarge(open(t, h)) })
	t.Run("Whole", func(t *testing.T) { usageWhole(open(t, h)) })
	t.Run("Concurrent", func(t *testing.T) { usageConcurrent(open(t, h)) })
}

func (b *bench) addUsage(batch keystore.UsageBatch) {
	b.Helper()
	if err := b.store.AddUsage(b.Context(), batch); err != nil {
		b.Fatalf("AddUsage: %v", err)
	}
}

func (b *bench) usage(q keystore.UsageQuery) []keystore.UsageRow {
	b.Helper()
	rows, err := b.store.Usage(b.Context(), q)
	if err != nil {
		b.Fatalf("Usage(%+v): %v", q, err)
	}
	return rows
}

// usageSums holds the sums of every query against the counts themselves,
// which span days, months, a year's end and two organizations of one key.
func usageSums(b *bench) {
	var counts []keystore.UsageCount
	for n := range 240 {
		counts = append(counts, keystore.UsageCount{
			Key: keystore.KeyID(fmt.Sprint("key_", n%7)), Organization: []string{"acme", "default"}[n%5%2],
			Day: []keystore.Day{20251130, 20251231, 20260101, 20260102, 20260131, 20260201}[n%6], Outcome: []keystore.Outcome{
				keystore.OutcomeAllowed, keystore.OutcomeLimited, keystore.OutcomeBlocked,
			}[n%11%3],
			Requests: uint64(n) << 20,
		})
	}
	for batch := range slices.Chunk(counts, 50) {
		b.addUsage(keystore.UsageBatch{Counts: batch})
	}
	for _, q := range []keystore.UsageQuery{
		{FromDay: 20251231, ToDay: 20260131}, {FromDay: 20260101, ToDay: 20260101}, {FromDay: 20250101, ToDay: 20991231},
		{FromMonth: 202512, ToMonth: 202601}, {FromMonth: 202601, ToMonth: 202601}, {FromMonth: 202001, ToMonth: 209912},
		{FromDay: 20270101, ToDay: 20270131}, {FromMonth: 202701, ToMonth: 202701},
	} {
		for _, q.Organization = range []string{"", "acme", "default", "none"} {
			for _, q.Key = range []keystore.KeyID{"", "key_3", "key_"} {
				for _, q.ByKey = range []bool{false, true} {
					want := usageOf(q, counts)
					for _, q.Limit = range []int{0, 1, len(want), len(want) + 1} {
						n := len(want)
						if q.Limit != 0 {
							n = min(n, q.Limit)
						}
						if got := b.usage(q); !slices.Equal(got, want[:n]) {
							b.Errorf("Usage(%+v):\n got %+v\nwant %+v", q, got, want[:n])
						}
					}
				}
			}
		}
	}
}

// usageOf sums up counts as UsageQuery says.
func usageOf(q keystore.UsageQuery, counts []keystore.UsageCount) (rows []keystore.UsageRow) {
	sums, keys := map[keystore.UsageRow]uint64{}, map[keystore.UsageRow]map[keystore.KeyID]bool{}
	for _, c := range counts {
		row := keystore.UsageRow{Day: c.Day, Outcome: c.Outcome}
		in := c.Day >= q.FromDay && c.Day <= q.ToDay
		if q.FromMonth != 0 {
			row.Day, row.Month = 0, c.Day.Month()
			in = row.Month >= q.FromMonth && row.Month <= q.ToMonth
		}
		if !in || q.Organization != "" && q.Organization != c.Organization || q.Key != "" && q.Key != c.Key || c.Requests == 0 {
			continue
		}
		if q.ByKey {
			row.Key = c.Key
		}
		sums[row] += c.Requests
		if keys[row] == nil {
			keys[row] = map[keystore.KeyID]bool{}
		}
		keys[row][c.Key] = true
	}
	for row, sum := range sums {
		row.Keys, row.Requests = len(keys[row]), sum
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b keystore.UsageRow) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Month, b.Month), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Outcome, b.Outcome))
	})
	return rows
}

// usageGrows: counts of one batch and of many add up; none is nothing.
func usageGrows(b *bench) {
	one := keystore.UsageCount{Key: "key_a", Organization: "default", Day: 20260301, Requests: 2}
	nothing := keystore.UsageCount{Key: "key_b", Organization: "default", Day: 20260301}
	b.addUsage(keystore.UsageBatch{})
	for range 3 {
		b.addUsage(keystore.UsageBatch{Counts: []keystore.UsageCount{one, nothing, one}})
	}
	want := []keystore.UsageRow{{Day: 20260301, Requests: 12, Keys: 1}}
	if got := b.usage(keystore.UsageQuery{FromDay: 20260301, ToDay: 20260301}); !slices.Equal(got, want) {
		b.Errorf("got %+v, want %+v", got, want)
	}
	want[0].Day, want[0].Month = 0, 202603
	if got := b.usage(keystore.UsageQuery{FromMonth: 202603, ToMonth: 202603}); !slices.Equal(got, want) {
		b.Errorf("by months: got %+v, want %+v", got, want)
	}
}

// usageOldest: days before the oldest go, also those that come too late; their
// months stay.
func usageOldest(b *bench) {
	count := func(day keystore.Day) keystore.UsageCount {
		return keystore.UsageCount{Key: "key_a", Organization: "default", Day: day, Requests: 1}
	}
	all := keystore.UsageQuery{FromDay: 1, ToDay: 99991231}
	expect := func(what string, want ...keystore.Day) {
		b.Helper()
		var got []keystore.Day
		for _, row := range b.usage(all) {
			got = append(got, row.Day)
		}
		if !slices.Equal(got, want) {
			b.Errorf("%s: days %v, want %v", what, got, want)
		}
	}
	b.addUsage(keystore.UsageBatch{Counts: []keystore.UsageCount{count(20260228), count(20260301), count(20260302)}})
	expect("none is the oldest", 20260228, 20260301, 20260302)
	b.addUsage(keystore.UsageBatch{Oldest: 20260301})
	expect("the first is older", 20260301, 20260302)
	b.addUsage(keystore.UsageBatch{Oldest: 20260302, Counts: []keystore.UsageCount{count(20260228), count(20260302)}})
	expect("one came too late", 20260302)
	want := []keystore.UsageRow{{Month: 202602, Requests: 2, Keys: 1}, {Month: 202603, Requests: 3, Keys: 1}}
	if got := b.usage(keystore.UsageQuery{FromMonth: 1, ToMonth: 999912}); !slices.Equal(got, want) {
		b.Errorf("months: got %+v, want %+v", got, want)
	}
}

func (b *bench) lastUsed(keys ...keystore.KeyID) []keystore.LastUse {
	b.Helper()
	uses, err := b.store.LastUsed(b.Context(), keys)
	if err != nil {
		b.Fatalf("LastUsed: %v", err)
	}
	slices.SortFunc(uses, func(a, b keystore.LastUse) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Generation, b.Generation))
	})
	return uses
}

// lastUses move forward only, each generation by itself.
func lastUses(b *bench) {
	use := func(key keystore.KeyID, generation keystore.Generation, at keystore.Instant) keystore.LastUse {
		return keystore.LastUse{Key: key, Generation: generation, At: at}
	}
	high := keystore.Generation(1) << 63 // all of its bits count
	b.addUsage(keystore.UsageBatch{Last: []keystore.LastUse{
		use("key_a", 1, 10), use("key_a", 2, 20), use("key_a", high, 30), use("key_b", 1, 40),
	}})
	b.addUsage(keystore.UsageBatch{Last: []keystore.LastUse{
		use("key_a", 1, 9), use("key_a", 2, 21), use("key_b", 1, 41), use("key_b", 1, 40),
	}})
	a := []keystore.LastUse{use("key_a", 1, 10), use("key_a", 2, 21), use("key_a", high, 30)}
	other := []keystore.LastUse{use("key_b", 1, 41)}
	for _, c := range []struct {
		keys []keystore.KeyID
		want []keystore.LastUse
	}{
		{nil, nil}, {[]keystore.KeyID{"key_none"}, nil}, {[]keystore.KeyID{"key_a"}, a},
		{[]keystore.KeyID{"key_b", "key_none", "key_a"}, append(slices.Clone(a), other...)}, {[]keystore.KeyID{"key_b", "key_b"}, other},
	} {
		if got := b.lastUsed(c.keys...); !slices.Equal(got, c.want) {
			b.Errorf("LastUsed(%q): got %+v, want %+v", c.keys, got, c.want)
		}
	}
}

// usageApart: usage is no part of the log of changes, needs no key, and stays
// when its key goes.
func usageApart(b *bench) {
	b.put(key("a"))
	head := b.head()
	batch := keystore.UsageBatch{
		Counts: []keystore.UsageCount{
			{Key: "key_a", Organization: "default", Day: 20260301, Requests: 1}, {Key: "key_never", Organization: "never", Day: 20260301, Requests: 1},
		},
		Last: []keystore.LastUse{{Key: "key_a", Generation: 1, At: 5}, {Key: "key_never", Generation: 1, At: 5}},
	}
	b.addUsage(batch)
	if b.head() != head {
		b.Error("usage is in the log of changes")
	}
	b.delete("key_a")
	want := usageOf(keystore.UsageQuery{FromDay: 20260301, ToDay: 20260301}, batch.Counts)
	if got := b.usage(keystore.UsageQuery{FromDay: 20260301, ToDay: 20260301}); !slices.Equal(got, want) {
		b.Errorf("after a deletion: got %+v, want %+v", got, want)
	}
	if got := b.lastUsed("key_a", "key_never"); !slices.Equal(got, batch.Last) {
		b.Errorf("last uses after a deletion: %+v", got)
	}
	if b.reopen == nil {
		return
	}
	if err := b.store.Close(); err != nil {
		b.Fatalf("Close: %v", err)
	}
	if err := b.store.AddUsage(context.Background(), batch); !errors.Is(err, keystore.ErrUnavailable) {
		b.Errorf("AddUsage on a closed store: %v", err)
	}
	b.store = b.reopen()
	if got := b.usage(keystore.UsageQuery{FromDay: 20260301, ToDay: 20260301}); !slices.Equal(got, want) {
		b.Errorf("after opening again: got %+v, want %+v", got, want)
	}
}

// many is what a busy node has counted: each key once.
func many(keys int) (batch keystore.UsageBatch, ids []keystore.KeyID) {
	for n := range keys {
		id := keystore.KeyID(fmt.Sprintf("key_%06d", n*7919%keys))
		batch.Counts = append(batch.Counts, keystore.UsageCount{Key: id, Organization: "default", Day: 20260301, Requests: uint64(n + 1)})
		batch.Last = append(batch.Last, keystore.LastUse{Key: id, Generation: 3, At: keystore.Instant(n + 1)})
		ids = append(ids, id)
	}
	return batch, ids
}

// usageLarge: a batch of 5,000 keys is kept whole, and a thousand keys can be
// asked for at once.
func usageLarge(b *bench) {
	const keys = 5000
	batch, ids := many(keys)
	b.addUsage(batch)
	want := []keystore.UsageRow{{Day: 20260301, Requests: keys * (keys + 1) / 2, Keys: keys}}
	if got := b.usage(keystore.UsageQuery{FromDay: 20260301, ToDay: 20260301}); !slices.Equal(got, want) {
		b.Errorf("got %+v, want %+v", got, want)
	}
	some := slices.Clone(batch.Last[:1000])
	slices.SortFunc(some, func(a, b keystore.LastUse) int { return cmp.Compare(a.Key, b.Key) })
	if got := b.lastUsed(ids[:1000]...); !slices.Equal(got, some) {
		b.Errorf("a thousand last uses: %d came back", len(got))
	}
}

// usageWhole: a batch that is given up half-way leaves nothing.
func usageWhole(b *bench) {
	batch, ids := many(20_000)
	for polls := range 3 {
		ctx := &endingContext{Context: b.Context(), left: 50 << (4 * polls), done: make(chan struct{})}
		if err := b.store.AddUsage(ctx, batch); err == nil {
			return // it never asked so often
		} else if !errors.Is(err, context.Canceled) {
			b.Fatalf("AddUsage: %v", err)
		}
		if got := b.usage(keystore.UsageQuery{FromDay: 1, ToDay: 99991231}); len(got) != 0 {
			b.Fatalf("a batch given up left %+v", got)
		}
		if got := b.lastUsed(ids[:1000]...); len(got) != 0 {
			b.Fatalf("a batch given up left %d last uses", len(got))
		}
	}
}

// endingContext ends when it was asked so often, so in the middle of whatever
// asks it, by no clock.
type endingContext struct {
	context.Context
	mu   sync.Mutex // guards left
	left int
	done chan struct{}
}

func (c *endingContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		close(c.done)
	}
	if c.left <= 0 {
		return context.Canceled
	}
	return nil
}

func (c *endingContext) Done() <-chan struct{} { return c.done }

// usageConcurrent: several add while others change keys; nothing is lost.
func usageConcurrent(b *bench) {
	const adders, each = 4, 10
	b.put(key("a"))
	var group sync.WaitGroup
	for n := range adders {
		group.Go(func() {
			for i := range each {
				batch := keystore.UsageBatch{
					Counts: []keystore.UsageCount{{Key: "key_a", Organization: "default", Day: 20260301, Requests: 1}},
					Last:   []keystore.LastUse{{Key: "key_a", Generation: 1, At: keystore.Instant(1 + i*adders + n)}},
				}
				if err := b.store.AddUsage(b.Context(), batch); err != nil {
					b.Errorf("AddUsage: %v", err)
				}
			}
		})
	}
	b.toggle("key_a", each)
	group.Wait()
	want := []keystore.UsageRow{{Day: 20260301, Requests: adders * each, Keys: 1}}
	if got := b.usage(keystore.UsageQuery{FromDay: 20260301, ToDay: 20260301}); !slices.Equal(got, want) {
		b.Errorf("got %+v, want %+v", got, want)
	}
	if got := b.lastUsed("key_a"); len(got) != 1 || got[0].At != adders*each {
		b.Errorf("last use: %+v", got)
	}
}
