//go:build unix

package clustertest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A storm is a cluster on which operators change keys and askers show them,
// whatever happens to it, with a history of all that was answered.
type storm struct {
	t       *testing.T
	cluster *cluster

	ending   atomic.Bool
	noTokens atomic.Bool // access tokens are neither minted nor shown
	working  sync.WaitGroup
	steps    sync.RWMutex // held for reading during each step of an operator

	mu      sync.Mutex // guards what follows
	pool    []*shown   // what is asked for
	every   []*shown   // what ever was
	windows history    // without credentials
	faults  []window   // from each fault until all had recovered from it
	laments []lament
	made    map[string]int
}

// A lament is a change that was not answered as it should have been.
type lament struct {
	window
	what string
}

// shown is a credential in the ways in which it can be shown.
type shown struct {
	credential
	headers []string
	token   string // empty: it has none
	unsure  bool   // nobody knows what became of its last change: it is left alone

	mu sync.Mutex // guards answers, until all has ended
}

const (
	operators     = 4
	askersPerNode = 2
	witnesses     = 3  // keys that nobody changes
	poolLimit     = 24 // beyond it the oldest dead ones are not asked for any more
	askPause      = 8 * time.Millisecond
	operatorPause = 40 * time.Millisecond // on average
)

func newStorm(t *testing.T, c *cluster, seed uint64) *storm {
	t.Helper()
	s := &storm{t: t, cluster: c, made: make(map[string]int)}
	s.windows = history{nodes: len(c.nodes), bound: c.bound}
	s.quiet(seed)
	for n := range operators {
		o := &operator{storm: s, random: rand.New(rand.NewPCG(seed, uint64(n)))}
		s.working.Go(o.work)
	}
	for n := range askersPerNode * len(c.nodes) {
		s.working.Go(func() { s.ask(c.nodes[n%len(c.nodes)], rand.New(rand.NewPCG(seed, uint64(100+n)))) })
	}
	t.Cleanup(s.end)
	return s
}

// quiet makes the witnesses.
func (s *storm) quiet(seed uint64) {
	s.t.Helper()
	o := &operator{storm: s, random: rand.New(rand.NewPCG(seed, 99))}
	for range witnesses {
		if o.create(); o.held == nil {
			s.t.Fatal("no witness can be made")
		}
		o.held = nil
	}
}

// end ends the storm. Whatever holds a node or the database is over before.
func (s *storm) end() {
	s.ending.Store(true)
	s.working.Wait()
}

func (s *storm) enter(c *shown) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.every = append(s.every, c)
	s.pool = append(s.pool, c)
	if len(s.pool) > poolLimit {
		oldest := slices.IndexFunc(s.pool, func(c *shown) bool { return c.unsure || c.state(len(c.changes)) == dead })
		if oldest >= 0 {
			s.pool = slices.Delete(s.pool, oldest, oldest+1)
		}
	}
}

// record writes a change into the history of a credential.
func (s *storm) record(c *shown, made change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.changes = append(c.changes, made)
	c.unsure = made.ended == never
}

func (s *storm) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[what]++
}

// ask shows a node credentials, whichever there are.
func (s *storm) ask(n *node, random *rand.Rand) {
	client := newClient()
	defer client.CloseIdleConnections()
	for !s.ending.Load() {
		s.mu.Lock()
		c := s.pool[random.IntN(len(s.pool))]
		s.mu.Unlock()
		a := answer{node: n.index, began: s.cluster.now()}
		a.saw = n.ask(client, c.header(random.IntN(3), !s.noTokens.Load()))
		a.ended = s.cluster.now()
		c.mu.Lock()
		c.answers = append(c.answers, a)
		c.mu.Unlock()
		time.Sleep(askPause)
	}
}

// header returns the n-th way to show the credential.
func (c *shown) header(n int, tokens bool) string {
	if n == len(c.headers) && tokens && c.token != "" {
		return accessToken.authorization(key{}, c.token)
	}
	return c.headers[n%len(c.headers)]
}

// history is all that happened; for when the storm has ended.
func (s *storm) history() *history {
	h := s.windows
	for _, c := range s.every {
		slices.SortFunc(c.answers, func(a, b answer) int { return cmp.Compare(a.began, b.began) })
		h.credentials = append(h.credentials, &c.credential)
	}
	return &h
}

// isolated notes that a node, or nobody of all, heard from the database since.
func (s *storm) isolated(node int, from, until moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.windows.isolated = append(s.windows.isolated, window{node, from, until})
}

func (s *storm) disturbed(node int, from, until moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.windows.disturbed = append(s.windows.disturbed, window{node, from, until})
	s.faults = append(s.faults, window{nobody, from, until})
}

// still lets no change be under way while something is done.
func (s *storm) still(do func()) {
	s.steps.Lock()
	defer s.steps.Unlock()
	do()
}

// A branch is what the log of the database was at a moment: how many changes
// of each credential it holds.
type branch map[*shown]int

// branchOff remembers the log as it is while nothing is changed.
func (s *storm) branchOff() branch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make(branch)
	for _, c := range s.every {
		b[c] = len(c.changes)
	}
	return b
}

// goBack tells the history that the database is what it was on the branch:
// whatever was changed since is as if it had been changed back. Such keys are
// left alone from then on.
func (s *storm) goBack(b branch, began moment) (lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cluster.now()
	for _, c := range s.every {
		if len(c.changes) == b[c] {
			continue
		}
		to := c.state(b[c])
		if b[c] == 0 {
			to = dead // but its access token is still signed by the same store
		}
		lost += len(c.changes) - b[c]
		c.changes = append(c.changes, change{node: nobody, began: began, ended: now, seen: never, to: to})
		c.unsure = true
	}
	return lost
}

func (s *storm) lament(l lament) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.laments = append(s.laments, l)
}

// judge says what was wrong in all that happened; for when the storm has ended.
func (s *storm) judge() {
	s.t.Helper()
	h := s.history()
	wrong := h.check()
	for _, v := range wrong[:min(len(wrong), 20)] {
		s.t.Error(v)
	}
	if len(wrong) > 20 {
		s.t.Errorf("%d answers are wrong", len(wrong))
	}
	for _, c := range h.credentials {
		for node := range h.nodes {
			if !h.linearizable(c, node) {
				s.t.Errorf("porcupine does not believe what node %d said of %s", node, c.name)
			}
		}
	}
	for _, l := range s.laments {
		if !slices.ContainsFunc(s.faults, func(w window) bool { return w.from <= l.until && l.from <= w.until }) {
			s.t.Errorf("node %d, from %v to %v, while nothing was wrong: %s", l.node, l.from, l.until, l.what)
		}
	}
}

// summary counts the changes and the answers.
func (s *storm) summary() string {
	answers := make(map[state]int)
	for _, c := range s.every {
		for _, a := range c.answers {
			answers[a.saw]++
		}
	}
	return fmt.Sprintf("%d credentials; changes: %s; answers: %s", len(s.every), counts(s.made), counts(answers))
}

func counts[K ~string](of map[K]int) string {
	var all []string
	for what, n := range of {
		all = append(all, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
