//go:build unix

package clustertest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// An operator makes a key, changes it for a while, and makes another. When he
// does not know what became of a change, he leaves the key alone.
type operator struct {
	storm  *storm
	random *rand.Rand
	held   *held
}

// held is a key as its operator knows it.
type held struct {
	key                  key
	shown                *shown // its current credential
	deactivated, blocked bool
}

func (h *held) state() state {
	switch {
	case h.blocked:
		return blocked
	case h.deactivated:
		return deactivated
	default:
		return active
	}
}

func (o *operator) work() {
	for !o.storm.ending.Load() {
		o.storm.steps.RLock()
		o.step()
		o.storm.steps.RUnlock()
		time.Sleep(time.Duration(o.random.Int64N(int64(2 * operatorPause))))
	}
}

func (o *operator) step() {
	if o.held != nil && o.held.shown.abandoned(o.storm) {
		o.held = nil
	}
	if o.held == nil {
		o.create()
		return
	}
	switch n := o.random.IntN(20); {
	case n < 3:
		o.end("delete", http.MethodDelete, "", "")
	case n < 5 && !o.held.blocked:
		o.end("regenerate", http.MethodPost, "/regenerate", `{}`)
	case n < 7 && !o.held.blocked:
		o.end("rotate", http.MethodPost, "/rotate", `{"force":true}`)
	case n < 13:
		o.held.blocked = !o.held.blocked
		o.toggle([]string{"unblock", "block"}, o.held.blocked)
	default:
		o.held.deactivated = !o.held.deactivated
		o.toggle([]string{"activate", "deactivate"}, o.held.deactivated)
	}
}

func (c *shown) abandoned(s *storm) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.unsure
}

func (o *operator) toggle(verbs []string, on bool) {
	verb := verbs[0]
	if on {
		verb = verbs[1]
	}
	made, _ := o.call(verb, http.MethodPost, "/keys/"+o.held.key.ID+"/"+verb, "")
	made.to = o.held.state()
	o.storm.record(o.held.shown, made)
}

// end ends what the credential may do for good. If the key has a new one, the
// operator goes on with that.
func (o *operator) end(verb, method, path, body string) {
	made, k := o.call(verb, method, "/keys/"+o.held.key.ID+path, body)
	made.to = dead
	o.storm.record(o.held.shown, made)
	if made.ended == never || verb == "delete" {
		o.held = nil
		return
	}
	made.to = o.held.state()
	o.held.key = k
	o.present(made, dead) // its access token, that is: one of the same key's
}

func (o *operator) create() {
	made, k := o.call("create", http.MethodPost, "/keys", `{}`)
	if made.ended == never {
		return // nobody has its secret
	}
	made.to = active
	o.held = &held{key: k}
	o.present(made, unknown)
}

// present has a credential that was just made asked for, by an access token
// too if one can be had.
func (o *operator) present(made change, before state) {
	c := &shown{credential: credential{name: o.held.key.ID, before: before, changes: []change{made}}}
	c.headers = []string{apiKey.authorization(o.held.key, ""), pair.authorization(o.held.key, "")}
	if node := o.storm.cluster.nodes[max(made.node, 0)]; made.to == active && !o.storm.noTokens.Load() {
		c.token, _ = node.token(o.held.key) // none during a fault
	}
	o.held.shown = c
	o.storm.enter(c)
}

// call has some node change something. A third of the calls wait until all
// have seen it.
func (o *operator) call(what, method, path, body string) (change, key) {
	s := o.storm
	n := s.cluster.nodes[o.random.IntN(len(s.cluster.nodes))]
	waits := o.random.IntN(3) == 0
	if waits {
		path += "?wait=500ms"
	}
	made := change{node: n.index, began: s.cluster.now(), ended: never, seen: never}
	status, k, err := n.manage(method, path, body)
	switch {
	case err == nil && status/100 == 2:
		made.ended = s.cluster.now()
		if waits && k.SeenByAll {
			made.seen = made.ended
		}
	case err == nil && status < http.StatusInternalServerError:
		s.t.Errorf("at %v: %s on node %d: %d %s", made.began, what, n.index, status, k.Code)
	default:
		s.lament(lament{window{n.index, made.began, s.cluster.now()}, fmt.Sprintf("%s: %d %s %v", what, status, k.Code, err)})
		what += ", and nobody knows"
		time.Sleep(5 * operatorPause) // as people wait before they try again
	}
	s.count(what)
	return made, k
}
