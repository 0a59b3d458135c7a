package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// The less is alive, the higher GOGC has to be for as much garbage; and it
// follows when what is alive changes.
func TestCollectorRoom(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Cleanup(func() { debug.SetGCPercent(100) })
	giveCollectorRoom()
	small := settled(t, func(percent int) bool { return percent > 100 })
	if garbage := alive() * uint64(small) / 100; garbage < mostGarbage*9/10 || garbage > mostGarbage*11/10 {
		t.Errorf("GOGC %d lets %d bytes gather, want about %d", small, garbage, mostGarbage)
	}
	held := make([]byte, 2*mostGarbage)
	settled(t, func(percent int) bool { return percent == 100 })
	runtime.KeepAlive(held)
	settled(t, func(percent int) bool { return percent > 100 })
}

// settled collects until GOGC is as it should be.
func settled(t *testing.T, good func(percent int) bool) int {
	t.Helper()
	for range 200 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond) // finalizers have a goroutine of their own
		if percent := percentNow(); good(percent) {
			return percent
		}
	}
	t.Fatalf("GOGC stays at %d", percentNow())
	return 0
}

func percentNow() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// A small container's collector is left alone, and so is one that somebody has
// set.
func TestCollectorStaysAsItIs(t *testing.T) {
	const small = 64 << 20
	if got := percentFor(roomWithin(small*9/10), 4<<20); got != 100 {
		t.Errorf("with 4 MiB alive in 64 MiB GOGC would be %d, want 100", got)
	}
	if got := roomWithin(math.MaxInt64); got != mostGarbage {
		t.Errorf("without a limit %d bytes may gather, want %d", got, uint64(mostGarbage))
	}
	t.Setenv("GOGC", "150")
	debug.SetGCPercent(150)
	t.Cleanup(func() { debug.SetGCPercent(100) })
	giveCollectorRoom()
	if got := percentNow(); got != 150 {
		t.Errorf("GOGC=%s became %d", os.Getenv("GOGC"), got)
	}
}
