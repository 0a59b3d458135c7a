//go:build unix

package sqlite

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// BenchmarkAddUsage is for how long a flush of 5,000 keys holds the writer.
func BenchmarkAddUsage(b *testing.B) {
	for _, c := range []struct {
		name string
		day  func(n int) keystore.Day
	}{
		{"New", func(n int) keystore.Day { return keystore.Day(n) }},
		{"Again", func(int) keystore.Day { return 20261122 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := openAt(b, filepath.Join(b.TempDir(), "warder.db"))
			n := 20261122
			for b.Loop() {
				if err := s.AddUsage(b.Context(), usageOf(5000, c.day(n), keystore.Instant(n))); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}

// usageOf is one use of each of so many keys.
func usageOf(keys int, day keystore.Day, at keystore.Instant) (batch keystore.UsageBatch) {
	for n := range keys {
		id := keystore.KeyID(fmt.Sprintf("key_%026d", n*7919%keys))
		batch.Counts = append(batch.Counts, keystore.UsageCount{
			Key: id, Organization: keystore.DefaultOrganization, Day: day, Outcome: keystore.OutcomeAllowed, Requests: 3,
		})
		batch.Last = append(batch.Last, keystore.LastUse{Key: id, Generation: 1, At: at})
	}
	return batch
}
