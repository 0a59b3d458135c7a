package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// mostGarbage is how much garbage may gather, in bytes, where memory is no
// concern. A server that holds little would else collect whenever it has made
// as little again, which under load is all the time.
const mostGarbage = 32 << 20

// giveCollectorRoom lets as much garbage gather as the memory limit allows,
// which the runtime has been told by now. A server that holds more than that
// collects as Go does by itself. GOGC in the environment comes first.
func giveCollectorRoom() {
	if os.Getenv("GOGC") == "" {
		afterCollection(roomWithin(debug.SetMemoryLimit(-1)))(nil)
	}
}

// roomWithin returns how much garbage may gather within a memory limit: little
// of it, so that in a small container the collector stays as it is.
func roomWithin(limit int64) uint64 { return uint64(min(mostGarbage, limit/16)) }

// A collection is found by the collector, which then calls what was left to be
// called. It is too large to share its memory with anything else that lives.
type collection [64]byte

// afterCollection returns what sets the next collection's time by what the
// last one has found alive, and has itself called after the next one.
func afterCollection(room uint64) func(*collection) {
	var again func(*collection)
	again = func(*collection) {
		debug.SetGCPercent(percentFor(room, alive()))
		runtime.SetFinalizer(new(collection), again)
	}
	return again
}

// percentFor returns the value of GOGC at which room bytes of garbage gather
// beside what is alive, and never less than Go's own.
func percentFor(room, alive uint64) int {
	const goDefault = 100
	return max(goDefault, int(100*room/max(alive, 1)))
}

func alive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return mostGarbage // not known to this Go
	}
	return sample[0].Value.Uint64()
}
