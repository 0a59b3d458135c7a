package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	kills   = 50
	clients = 4
)

// TestKill: the process is killed while clients create, rotate and block.
// What was acknowledged before is there after, whatever came between, and every
// change has its line in the audit log.
func TestKill(t *testing.T) {
	seed := newSeed(t, "WARDER_CRASH_SEED")
	s := newSite(t, example(t))
	var all []*operator
	for n := range clients {
		all = append(all, newOperator(t, s, n, seed))
	}
	random := rand.New(rand.NewPCG(seed, clients))
	for n := range kills {
		if n%5 == 4 { // one that is killed while it starts
			v := s.launch()
			time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
			v.kill()
		}
		v := s.start()
		together(all, func(o *operator) { o.settle(); o.recall(8) })
		delay := time.Duration(random.IntN(100)) * time.Millisecond
		killed := time.AfterFunc(delay, func() { _ = v.cmd.Process.Kill() })
		together(all, (*operator).work)
		killed.Stop()
		v.kill()
		client.CloseIdleConnections()
	}
	s.start()
	together(all, func(o *operator) { o.settle(); o.recall(len(o.held)) }) // everything that was ever acknowledged
	checkCount(t, s, all)
	checkAudit(t, s, all)
}

func together(all []*operator, do func(*operator)) {
	var working sync.WaitGroup
	for _, o := range all {
		working.Go(func() { do(o) })
	}
	working.Wait()
}

// An operator is a client with a memory of its own that survives the server:
// a log, synced before an operation begins and after its answer came.
type operator struct {
	t      *testing.T
	site   *site
	name   string
	random *rand.Rand
	log    *os.File
	number int // of the last operation

	held    []*holding // every key ever acknowledged
	pending *operation // begun, without an answer
	lost    int        // operations given up without knowing their outcome
}

// A holding is a key as its owner knows it.
type holding struct {
	key     key
	blocked bool
	unsure  bool // a rotation was given up: which secret is the current one is not known
}

// An operation is one line of the log; an answered one has its key with it.
type operation struct {
	Op   string `json:"op"`
	Verb string `json:"verb"`
	ID   string `json:"id,omitempty"`
	Body string `json:"body,omitempty"`
	Key  *key   `json:"key,omitempty"`

	of *holding // nil for a creation
}

func newOperator(t *testing.T, s *site, n int, seed uint64) *operator {
	t.Helper()
	name := fmt.Sprintf("client%d", n)
	log, err := os.OpenFile(s.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return &operator{t: t, site: s, name: name, random: rand.New(rand.NewPCG(seed, uint64(n))), log: log}
}

// write appends to the log and returns when it is on the disk.
func (o *operator) write(op operation) {
	line, err := json.Marshal(op)
	if err == nil {
		_, err = o.log.Write(append(line, '\n'))
	}
	if err == nil {
		err = o.log.Sync()
	}
	if err != nil {
		o.t.Errorf("%s: writing the log: %v", o.name, err)
	}
}

// work goes on until the server is gone.
func (o *operator) work() {
	for !o.t.Failed() {
		op := o.next()
		o.write(op)
		o.pending = &op
		if !o.attempt() {
			return
		}
	}
}

// next chooses an operation.
func (o *operator) next() operation {
	o.number++
	op := operation{Op: fmt.Sprintf("%s-%d", o.name, o.number), Verb: "create"}
	if h := o.choose(); h != nil && o.random.IntN(2) == 0 {
		op.ID, op.of = h.key.ID, h
		switch o.random.IntN(4) {
		case 0:
			op.Verb = "block"
		case 1:
			op.Verb, op.Body = "rotate", `{"force":false}`
		default:
			op.Verb, op.Body = "rotate", `{"force":true}`
		}
		return op
	}
	op.Body = fmt.Sprintf(`{"scopes":["hello:read"],"metadata":{"op":%q}}`, op.Op)
	return op
}

// choose returns some key that can still be changed, or nil.
func (o *operator) choose() *holding {
	if len(o.held) == 0 {
		return nil
	}
	h := o.held[o.random.IntN(len(o.held))]
	if h.blocked || h.unsure {
		return nil
	}
	return h
}

// attempt sends the pending operation. It reports whether an answer came;
// every answer has to be a success.
func (o *operator) attempt() bool {
	op := o.pending
	got, ok := o.send(op)
	if !ok {
		return false
	}
	if got.status/100 != 2 {
		o.t.Errorf("%s: %s %s: %v", op.Op, op.Verb, op.ID, got)
		return false
	}
	op.Key = new(key)
	if err := json.Unmarshal([]byte(got.body), op.Key); err != nil {
		o.t.Errorf("%s: %v in %s", op.Op, err, got.body)
		return false
	}
	o.write(*op)
	o.pending = nil
	o.take(op)
	return true
}

func (o *operator) send(op *operation) (answer, bool) {
	path := "/keys"
	if op.ID != "" {
		path += "/" + op.ID + "/" + op.Verb
	}
	header := []string{"Idempotency-Key", op.Op}
	if op.Verb == "block" {
		header = nil // is idempotent by itself
	}
	got, err := o.site.manage(http.MethodPost, path, op.Body, header...)
	return got, err == nil
}

// take keeps what was acknowledged.
func (o *operator) take(op *operation) {
	if op.Verb == "create" {
		o.held = append(o.held, &holding{key: *op.Key})
		return
	}
	if op.Verb == "block" {
		op.of.blocked = true
	} else {
		op.of.key = *op.Key
	}
}

// settle brings the operation that a kill interrupted to an end: mostly by a
// retry, which has to succeed and, repeated, to answer alike; else by giving
// it up, so that nothing heals what is only half there.
func (o *operator) settle() {
	op := o.pending
	if op == nil {
		return
	}
	if o.random.IntN(4) == 0 {
		o.giveUp()
		return
	}
	if !o.attempt() || op.Verb == "block" {
		return
	}
	again, ok := o.send(op)
	var replayed key
	if !ok || json.Unmarshal([]byte(again.body), &replayed) != nil || replayed.APIKey != op.Key.APIKey || replayed.ID != op.Key.ID {
		o.t.Errorf("%s: the retry was answered with %s %d, and the next one with %v", op.Op, op.Key.ID, op.Key.Generation, again)
	}
}

// giveUp leaves an operation that is there as a whole or not at all.
func (o *operator) giveUp() {
	op := o.pending
	o.pending = nil
	switch op.Verb {
	case "create":
		o.lost++
	case "block":
		op.of.blocked = o.state(op.of).State == "blocked"
	case "rotate":
		o.doubt(op)
	}
}

// doubt finds out whether a rotation happened whose new secret nobody knows.
func (o *operator) doubt(op *operation) {
	h := op.of
	switch now := o.state(h); now.Generation - h.key.Generation {
	case 0: // it did not: the secret is still the current one
	case 1:
		h.unsure = true
		want := http.StatusOK // within the grace period
		if strings.Contains(op.Body, "true") {
			want = http.StatusUnauthorized
		}
		if got, err := o.site.knock("Token " + h.key.APIKey); err != nil || got.status != want {
			o.t.Errorf("%s: the old secret after %s: %v %v, want %d", op.Op, op.Body, got, err, want)
		}
	default:
		o.t.Errorf("%s: generation %d became %d", op.Op, h.key.Generation, now.Generation)
	}
}

// state asks the server what a key is now.
func (o *operator) state(h *holding) (now key) {
	got, err := o.site.manage(http.MethodGet, "/keys/"+h.key.ID, "")
	if err != nil || json.Unmarshal([]byte(got.body), &now) != nil {
		o.t.Errorf("%s: asking for %s: %v %v", o.name, h.key.ID, got, err)
	}
	return now
}

// recall tries n of the acknowledged keys at the gate, the newest first: they
// pass if they are not blocked, and are refused if they are.
func (o *operator) recall(n int) {
	for back := range min(n, len(o.held)) {
		h := o.held[len(o.held)-1-back]
		if h.unsure {
			continue
		}
		got, err := o.site.knock("Token " + h.key.APIKey)
		if err != nil {
			o.t.Errorf("%s: asking with %s: %v", o.name, h.key.ID, err)
			return
		}
		want := http.StatusOK
		if h.blocked {
			want = http.StatusUnauthorized
		}
		if got.status != want {
			o.t.Errorf("%s: acknowledged %s (generation %d, blocked %t): %v", o.name, h.key.ID, h.key.Generation, h.blocked, got)
		}
	}
}

// checkCount: every creation made one key, those given up at most one, and
// the synced logs tell the same story.
func checkCount(t *testing.T, s *site, all []*operator) {
	t.Helper()
	made, acknowledged, lost := map[string]int{}, 0, 0
	for _, k := range s.keys() {
		made[k.Metadata["op"]]++
	}
	for op, n := range made {
		if n > 1 {
			t.Errorf("%s made %d keys", op, n)
		}
	}
	for _, o := range all {
		acknowledged, lost = acknowledged+len(o.held), lost+o.lost
		for line := range strings.Lines(s.read(o.name + ".log")) {
			var op operation
			if err := json.Unmarshal([]byte(line), &op); err != nil {
				t.Fatal(err)
			}
			if op.Verb == "create" && op.Key != nil && made[op.Op] != 1 {
				t.Errorf("%s was acknowledged and made %d keys", op.Op, made[op.Op])
			}
		}
	}
	if len(made) < acknowledged || len(made) > acknowledged+lost {
		t.Errorf("%d keys after %d acknowledged and %d unknown creations", len(made), acknowledged, lost)
	}
	t.Logf("%d kills, %d keys acknowledged, %d creations without answer, %d keys", kills, acknowledged, lost, len(made))
	if acknowledged < kills {
		t.Errorf("only %d keys were made: too few to prove anything", acknowledged)
	}
}
