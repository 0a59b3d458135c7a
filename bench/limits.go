//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What a small sidecar is given.
const (
	limitedCPU    = 0.25
	limitedMemory = 64 << 20
	limitedRate   = 500 // requests a second
	limitedRounds = 5   // for each of the others: a quota makes a tail of its own
)

// limits are control groups of their own, or, where this kernel or these rights
// give none, variables of the Go runtime that come close.
type limits struct {
	groups []string
	how    string
}

func newLimits(name string) (*limits, error) {
	l := new(limits)
	if err := l.make(name); err != nil {
		l.remove()
		return &limits{how: fmt.Sprintf("emulated by GOMAXPROCS=1 and GOMEMLIMIT, without a quota of CPU (no control group: %v)", err)}, nil
	}
	return l, nil
}

// make makes a group in the one hierarchy of version 2, or in the two that
// matter of version 1.
func (l *limits) make(name string) error {
	const (
		root   = "/sys/fs/cgroup"
		period = 100_000 // microseconds
	)
	quota := int(limitedCPU * period)
	if controllers, err := os.ReadFile(root + "/cgroup.subtree_control"); err == nil && strings.Contains(string(controllers), "memory") {
		l.how = "control group, version 2"
		return l.add(filepath.Join(root, name), map[string]string{
			"memory.max": strconv.Itoa(limitedMemory), "cpu.max": fmt.Sprintf("%d %d", quota, period),
		})
	}
	l.how = "control groups, version 1"
	if err := l.add(filepath.Join(root, "memory", name), map[string]string{"memory.limit_in_bytes": strconv.Itoa(limitedMemory)}); err != nil {
		return err
	}
	return l.add(filepath.Join(root, "cpu", name), map[string]string{
		"cpu.cfs_period_us": strconv.Itoa(period), "cpu.cfs_quota_us": strconv.Itoa(quota),
	})
}

func (l *limits) add(dir string, settings map[string]string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	l.groups = append(l.groups, dir)
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// prefix starts a command within the limits, so that its runtime finds them.
func (l *limits) prefix() []string {
	if len(l.groups) == 0 {
		return []string{"env", "GOMAXPROCS=1", fmt.Sprintf("GOMEMLIMIT=%d", limitedMemory*9/10)}
	}
	enter := ""
	for _, dir := range l.groups {
		enter += "echo $$ >" + filepath.Join(dir, "cgroup.procs") + " && "
	}
	return []string{"sh", "-c", enter + `exec "$@"`, "sh"}
}

// remove takes the groups away once nothing runs in them.
func (l *limits) remove() {
	for _, dir := range l.groups {
		for range 100 {
			if err := os.Remove(dir); err == nil || os.IsNotExist(err) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// limited is what was measured of two contenders within limits, one after the
// other, round by round.
type limited struct {
	rounds
	how             string
	bare, key       spread // p99 in microseconds
	added           spread // of one round
	bareP50, keyP50 spread
	memory          memory // of the one with keys
	failed, sent    int
}

// measureLimits asks in an open loop within the limits, with and without the
// directive.
func (b *bench) measureLimits(proxied bool) (m limited, err error) {
	contenders := [2]contender{
		{name: "Warder, no directive", program: b.warder, style: warder, kind: bare, proxied: proxied},
		{name: "Warder, key", program: b.warder, style: warder, kind: key, proxied: proxied},
	}
	var sides [2]*running
	for i, c := range contenders {
		l, err := newLimits(fmt.Sprintf("warder-bench-%d-%d", os.Getpid(), i))
		if err != nil {
			return m, err
		}
		m.how = l.how
		defer l.remove()
		if sides[i], err = c.run(filepath.Join(b.dir, fmt.Sprintf("limits-%t-%d", proxied, i)), b.upstream, l.prefix()); err != nil {
			return m, err
		}
		defer sides[i].kill()
	}
	time.Sleep(settled)
	sides[0].header = sides[1].header // it, too, has to read what it does not check
	m.rounds, err = takeRounds(limitedRounds*b.rounds, func(int) ([]float64, error) {
		var tails, mids [2]float64
		for i, r := range sides {
			a, err := b.knock(r, limitedRate, b.seconds)
			if err != nil {
				return nil, err
			}
			m.sent, m.failed = m.sent+len(a.latencies), m.failed+a.failed
			tails[i], mids[i] = microseconds(p99(a.all())), microseconds(quantile(a.all(), 0.5))
		}
		return []float64{tails[0], tails[1], tails[1] - tails[0], mids[0], mids[1]}, nil
	})
	if err != nil {
		return m, err
	}
	for i, into := range []*spread{&m.bare, &m.key, &m.added, &m.bareP50, &m.keyP50} {
		*into = halfOf(m.columns[i])
	}
	m.memory, err = sides[1].memory()
	return m, err
}

// knock asks a contender with its own credential, in an open loop.
func (b *bench) knock(r *running, rate float64, seconds int) (answers, error) {
	text := r.request(r.header)
	return load{
		address: r.address(), rate: rate, connections: 8, duration: time.Duration(seconds) * time.Second, want: 200,
		request: func(int, int) []byte { return text },
	}.run()
}
