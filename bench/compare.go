//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A pair is two contenders that are asked at the same time, on one core.
type pair struct{ a, b contender }

// costs are what one request cost each of a pair, and how many times as much A
// as B, over several rounds.
type costs struct {
	pair
	a, b  spread // microseconds of CPU
	ratio spread
}

// pairs are the comparisons, each once answering by itself and once with an API
// behind. Those whose programs are not there are left out.
func (b *bench) pairs() []pair {
	var all []pair
	for _, proxied := range []bool{false, true} {
		all = append(append(all, b.ours(proxied)...), b.peers(proxied)...)
	}
	return all
}

func (b *bench) ours(proxied bool) []pair {
	with := func(name string, k kind) contender {
		return contender{name: name, program: b.warder, style: warder, kind: k, proxied: proxied}
	}
	without, withKey, withToken := with("Warder, no directive", bare), with("Warder, key", key), with("Warder, seen token", seenToken)
	caddy := contender{name: "Caddy", program: b.caddy, style: stock, proxied: proxied}
	own := withKey
	own.name, own.ownCollector = "Warder, key, its own collector", true
	pairs := []pair{
		{without, without},
		{withKey, without},
		{withToken, without},
		{with("Warder, unseen token", unseenToken), without},
		{without, caddy},
		{withKey, caddy},
		{withToken, caddy},
		{own, caddy},
	}
	if proxied {
		tells := with("Warder, no directive, same headers", named)
		pairs = append(pairs, pair{tells, without}, pair{withKey, tells})
	}
	if b.unprofiled != "" {
		plain := withKey
		plain.name, plain.program = "Warder, key, without profile", b.unprofiled
		pairs = append(pairs, pair{withKey, plain}, pair{plain, caddy})
	}
	return pairs
}

func (b *bench) peers(proxied bool) []pair {
	var peers []pair
	if program, err := exec.LookPath("nginx"); err == nil {
		peers = append(peers, pair{contender{name: "nginx, key map", program: program, style: nginx, kind: key, proxied: proxied}, contender{name: "nginx", program: program, style: nginx, kind: bare, proxied: proxied}})
	}
	if program, err := exec.LookPath("haproxy"); err == nil {
		without := contender{name: "HAProxy", program: program, style: haproxy, kind: bare, proxied: proxied}
		peers = append(peers,
			pair{contender{name: "HAProxy, key map", program: program, style: haproxy, kind: key, proxied: proxied}, without},
			pair{contender{name: "HAProxy, JWT", program: program, style: haproxy, kind: seenToken, proxied: proxied}, without})
	}
	return peers
}

// compare measures every pair.
func (b *bench) compare() ([]costs, error) {
	var all []costs
	pairs := b.pairs()
	if b.most > 0 {
		pairs = pairs[:min(b.most, len(pairs))]
	}
	for i, p := range pairs {
		c, err := b.comparePair(p, filepath.Join(b.dir, fmt.Sprintf("pair-%d", i)))
		if err != nil {
			return nil, fmt.Errorf("%s beside %s: %w", p.a.name, p.b.name, err)
		}
		b.say("%s beside %s%s: %.1f µs and %.1f µs, ratio %.3f (%.3f–%.3f)",
			p.a.name, p.b.name, behind(p.a), c.a.median, c.b.median, c.ratio.median, c.ratio.low, c.ratio.high)
		all = append(all, c)
	}
	return all, nil
}

func behind(c contender) string {
	if c.proxied {
		return " with an API behind"
	}
	return ""
}

func (b *bench) comparePair(p pair, dir string) (costs, error) {
	first, err := p.a.run(dir+"-a", b.upstream, nil, b.collector(p.a)...)
	if err != nil {
		return costs{}, err
	}
	defer first.kill()
	second, err := p.b.run(dir+"-b", b.upstream, nil, b.collector(p.b)...)
	if err != nil {
		return costs{}, err
	}
	defer second.kill()
	if p.a.ownCollector {
		time.Sleep(settled)
	}
	if !second.kind.checks() {
		second.header = first.header // it, too, has to read what it does not check
	}
	var costsA, costsB, ratios []float64
	for round := range b.rounds + 1 {
		a, b, err := b.round(first, second)
		if err != nil {
			return costs{}, err
		}
		if round == 0 {
			continue // pools, buffers and branch predictors are filled
		}
		costsA, costsB, ratios = append(costsA, a), append(costsB, b), append(ratios, a/b)
	}
	return costs{p, spreadOf(costsA), spreadOf(costsB), spreadOf(ratios)}, nil
}

// settled is when a Warder has set its collector, counted from its start.
const settled = 11 * time.Second

// collector returns how a contender is told to collect.
func (b *bench) collector(c contender) []string {
	if c.ownCollector {
		return nil
	}
	return []string{"GOGC=" + b.gogc}
}

// round asks both at the same time and returns the microseconds of CPU that a
// request cost each.
func (b *bench) round(first, second *running) (float64, float64, error) {
	both := []*running{first, second}
	var (
		asking [2]*wrk
		before [2]time.Duration
		costs  [2]float64
		err    error
	)
	for i, r := range both {
		if asking[i], err = b.prepare(r); err != nil {
			return 0, 0, err
		}
	}
	for i, r := range both {
		if before[i], err = r.cpu(); err != nil {
			return 0, 0, err
		}
	}
	for i := range both {
		if err := asking[i].cmd.Start(); err != nil {
			return 0, 0, fmt.Errorf("starting wrk: %w", err)
		}
	}
	for i, r := range both {
		requests, err := asking[i].wait()
		if err != nil {
			return 0, 0, fmt.Errorf("asking %s: %w", r.name, err)
		}
		after, err := r.cpu()
		if err != nil {
			return 0, 0, err
		}
		costs[i] = microseconds(after-before[i]) / float64(requests)
	}
	return costs[0], costs[1], nil
}

// wrk is one run of it.
type wrk struct {
	cmd    *exec.Cmd
	output bytes.Buffer
}

const (
	wrkConnections = 16

	// mostUnseen bounds how many tokens are verified on half a core in a second.
	mostUnseen = 9000
)

// prepare makes ready what asks a contender.
func (b *bench) prepare(r *running) (*wrk, error) {
	argv := []string{"wrk", "-t1", "-c" + strconv.Itoa(wrkConnections), "-d" + strconv.Itoa(b.seconds) + "s"}
	for _, line := range usual {
		argv = append(argv, "-H", line)
	}
	url := "http://" + r.address() + "/v1/hello"
	switch {
	case r.kind == unseenToken:
		tokens, err := r.buyMany(mostUnseen * b.seconds)
		if err != nil {
			return nil, err
		}
		file, script := filepath.Join(r.dir, "tokens"), filepath.Join(r.dir, "unseen.lua")
		if err := os.WriteFile(file, []byte(strings.Join(tokens, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
		text, _ := configFiles.ReadFile("config/unseen.lua") // it is embedded
		if err := os.WriteFile(script, text, 0o600); err != nil {
			return nil, err
		}
		argv = append(argv, "-s", script, url, "--", file)
	case r.header != "":
		argv = append(argv, "-H", "Authorization: "+r.header, url)
	default:
		argv = append(argv, url)
	}
	w := &wrk{cmd: pinned(clientCore, argv)}
	w.cmd.Stdout, w.cmd.Stderr = &w.output, &w.output
	return w, nil
}

var (
	requestsLine = regexp.MustCompile(`(\d+) requests in`)
	failureLine  = regexp.MustCompile(`(?m)^\s*(Non-2xx|Socket errors).*$`)
)

// wait returns how many requests were answered, every one of them well.
func (w *wrk) wait() (int, error) {
	if err := w.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("wrk: %w:\n%s", err, &w.output)
	}
	if failure := failureLine.Find(w.output.Bytes()); failure != nil {
		return 0, fmt.Errorf("wrk: %s", bytes.TrimSpace(failure))
	}
	found := requestsLine.FindSubmatch(w.output.Bytes())
	if found == nil {
		return 0, fmt.Errorf("wrk said:\n%s", &w.output)
	}
	n, err := strconv.Atoi(string(found[1]))
	if n == 0 {
		return 0, fmt.Errorf("wrk had no answer: %w", err)
	}
	return n, err
}
