//go:build linux

package main

import (
	"path/filepath"
	"time"
)

// Rates in requests a second.
const (
	ownerRate = 500
	floodRate = 4000
)

// flooded is what the owner of a good key waits for at the worst, in
// microseconds: alone, beside others with good keys, and beside a flood. The
// ratios are those of one round, to alone.
type flooded struct {
	rounds
	alone, crowd, flood       spread
	crowdRatio, floodRatio    spread
	keys                      int
	memoryBefore, memoryAfter memory // after the first round, and after the last
}

// measureFlood sends made-up keys to a Warder that its owner asks all the time,
// in turn with good ones and with nothing.
func (b *bench) measureFlood() (f flooded, err error) {
	c := contender{name: "Warder, key", program: b.warder, style: warder, kind: key, proxied: true}
	r, err := c.run(filepath.Join(b.dir, "flood"), b.upstream, nil)
	if err != nil {
		return f, err
	}
	defer r.kill()
	time.Sleep(settled)
	var (
		slice  = time.Duration(b.seconds) * time.Second
		text   = r.request(r.header)
		good   = load{address: r.address(), rate: floodRate, connections: 16, duration: slice, want: 200, request: func(int, int) []byte { return text }}
		madeUp = good
		each   = floodRate * b.seconds
	)
	madeUp.want = 401
	f.rounds, err = takeRounds(max(1, b.flooded/each), func(i int) ([]float64, error) {
		var tails [3]float64
		madeUp.request = r.madeUpRequests(madeUp, i*each)
		f.keys += each
		for i, others := range []*load{nil, &good, &madeUp} {
			if tails[i], err = b.ownerBeside(r, others, slice); err != nil {
				return nil, err
			}
		}
		if i == 0 {
			f.memoryBefore, err = r.memory()
		}
		return []float64{tails[0], tails[1], tails[2], tails[1] / tails[0], tails[2] / tails[0]}, err
	})
	if err != nil {
		return f, err
	}
	for i, into := range []*spread{&f.alone, &f.crowd, &f.flood, &f.crowdRatio, &f.floodRatio} {
		*into = halfOf(f.columns[i])
	}
	f.memoryAfter, err = r.memory()
	return f, err
}

// madeUpRequests makes requests with a key that nobody made, each with another,
// from the first one on.
func (r *running) madeUpRequests(l load, first int) func(connection, n int) []byte {
	texts := make([][]byte, l.connections)
	for i := range texts {
		texts[i] = r.request("Token " + madeUpKey(0))
	}
	at := len(r.request("Token ")) - len("\r\n\r\n")
	return func(connection, n int) []byte {
		copy(texts[connection][at:], madeUpKey(uint64(first+n*l.connections+connection)))
		return texts[connection]
	}
}

// ownerBeside has the owner ask for a while beside a load, which may be nil,
// and returns the p99 of what that took, in microseconds.
func (b *bench) ownerBeside(r *running, others *load, d time.Duration) (float64, error) {
	done := make(chan error, 1)
	go func() { done <- others.allAnswered() }()
	text := r.request(r.header)
	owner := load{
		address: r.address(), rate: ownerRate, connections: 4, duration: d, want: 200,
		request: func(int, int) []byte { return text },
	}
	a, err := owner.run()
	if err == nil && a.failed > 0 {
		err = errOwnerRefused
	}
	if other := <-done; err == nil {
		err = other
	}
	return microseconds(p99(a.all())), err
}

// allAnswered runs a load, which may be nil, whose answers have all to be the
// wanted one.
func (l *load) allAnswered() error {
	if l == nil {
		return nil
	}
	a, err := l.run()
	if err == nil && a.failed > 0 {
		err = errUnexpectedAnswer
	}
	return err
}
