//go:build linux

package main

import (
	"path/filepath"
	"time"
)

// Rates in requests a second.
const (
	ownerRate = 500
	floodRate = 8000
)

// flooded is what the owner of a good key waits for at the worst, in
// microseconds: alone, beside others with good keys, and beside a flood.
type flooded struct {
	alone, crowd, flood, after spread
	keys                       int
	memoryBefore, memoryAfter  memory
}

// measureFlood sends made-up keys to a Warder that its owner asks all the time.
func (b *bench) measureFlood() (f flooded, err error) {
	c := contender{name: "Warder, key", program: b.warder, style: warder, kind: key, proxied: true}
	r, err := c.run(filepath.Join(b.dir, "flood"), b.upstream, nil)
	if err != nil {
		return f, err
	}
	defer r.kill()
	text := r.request(r.header)
	good := load{address: r.address(), rate: floodRate, connections: 16, want: 200, request: func(int, int) []byte { return text }}
	madeUp := good
	madeUp.want, madeUp.requests = 401, b.flooded
	madeUp.request = r.madeUpRequests(madeUp)
	crowd := good
	crowd.duration = time.Duration(b.rounds*b.seconds) * time.Second

	if _, err := b.ownerBeside(r, crowd); err != nil { // pools and buffers are filled
		return f, err
	}
	if f.alone, err = b.owner(r, crowd.duration); err != nil {
		return f, err
	}
	if f.crowd, err = b.ownerBeside(r, crowd); err != nil {
		return f, err
	}
	if f.memoryBefore, err = r.memory(); err != nil {
		return f, err
	}
	if f.flood, err = b.ownerBeside(r, madeUp); err != nil {
		return f, err
	}
	if f.memoryAfter, err = r.memory(); err != nil {
		return f, err
	}
	f.keys = madeUp.requests
	f.after, err = b.owner(r, crowd.duration)
	return f, err
}

// madeUpRequests makes requests with a key that nobody made, each with another.
func (r *running) madeUpRequests(l load) func(connection, n int) []byte {
	texts := make([][]byte, l.connections)
	for i := range texts {
		texts[i] = r.request("Token " + madeUpKey(0))
	}
	at := len(r.request("Token ")) - len("\r\n\r\n")
	return func(connection, n int) []byte {
		copy(texts[connection][at:], madeUpKey(uint64(n*l.connections+connection)))
		return texts[connection]
	}
}

// owner asks with a good key for a while.
func (b *bench) owner(r *running, d time.Duration) (spread, error) {
	text := r.request(r.header)
	a, err := load{
		address: r.address(), rate: ownerRate, connections: 4, duration: d, want: 200,
		request: func(int, int) []byte { return text },
	}.run()
	if err != nil {
		return spread{}, err
	}
	if a.failed > 0 {
		return spread{}, errOwnerRefused
	}
	return tailByPart(a, d, b.rounds), nil
}

// ownerBeside measures the owner for as long as a load lasts.
func (b *bench) ownerBeside(r *running, others load) (s spread, err error) {
	d := others.duration
	if others.requests > 0 {
		d = time.Duration(float64(others.requests) / others.rate * float64(time.Second))
	}
	done := make(chan error, 1)
	go func() {
		a, err := others.run()
		if err == nil && a.failed > 0 {
			err = errUnexpectedAnswer
		}
		done <- err
	}()
	s, err = b.owner(r, d)
	if other := <-done; err == nil {
		err = other
	}
	return s, err
}

// tailByPart returns the p99 of each of several parts of a load.
func tailByPart(a answers, d time.Duration, parts int) spread {
	var tails []float64
	for i := range parts {
		from, to := d*time.Duration(i)/time.Duration(parts), d*time.Duration(i+1)/time.Duration(parts)
		tails = append(tails, microseconds(p99(a.since(from, to))))
	}
	return spreadOf(tails)
}
