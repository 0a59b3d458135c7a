//go:build unix

package clustertest

import (
	"cmp"
	"fmt"
	"math"
	"time"
)

// A state is what a gate says of a credential, by its answer.
type state string

const (
	active      state = "active"
	deactivated state = "deactivated"
	blocked     state = "blocked"
	expired     state = "expired"
	superseded  state = "superseded"
	unknown     state = "unknown" // it tells nobody more

	// dead is in the model alone: refused, for whatever reason. Of a key that
	// changed since its secret was replaced, several are true.
	dead state = "dead"

	unsure  state = "503"       // the node says that it cannot know
	silence state = "no answer" // the connection was refused, broken or timed out
)

// decided reports whether a gate took it on itself to know.
func (s state) decided() bool { return s != unsure && s != silence }

// explains reports whether a credential in state s is answered so.
func (s state) explains(saw state) bool {
	return s == saw || s == dead && saw.decided() && saw != active
}

// Moments are counted from the start of the test, by its own clock alone.
type moment = time.Duration

const never moment = math.MaxInt64

// nobody is the node of what no node did.
const nobody = -1

// A change is one step in the life of a credential.
type change struct {
	node  int
	began moment // the change cannot have had an effect before
	ended moment // when it was acknowledged; never: whether it was made is not known
	seen  moment // when it was said that all nodes have applied it; never: it was not asked for, or not said
	to    state
}

// An answer is what a gate said of a credential.
type answer struct {
	node         int
	began, ended moment
	saw          state
}

// A credential is the register that a history is about. Its changes come one
// after another: each began when the one before it had ended, and only of the
// last one may it be unknown whether it was made.
type credential struct {
	name    string
	before  state // the first change; empty: unknown
	changes []change
	answers []answer // in the order in which they began
}

// state returns what the first n changes lead to.
func (c *credential) state(n int) state {
	if n == 0 {
		return cmp.Or(c.before, unknown)
	}
	return c.changes[n-1].to
}

// A window is a stretch of time of one node, or of all: nobody.
type window struct {
	node        int
	from, until moment
}

func (w window) holds(a answer) bool {
	return (w.node == nobody || w.node == a.node) && a.ended >= w.from && a.began <= w.until
}

// A history is everything that was done and answered in a test.
type history struct {
	nodes       int
	bound       time.Duration // max_staleness
	credentials []*credential

	isolated  []window // in which a node cannot have heard from the database
	disturbed []window // in which a node may be unsure, or silent
}

// A violation is an answer that no node could give that keeps its word.
type violation struct {
	credential *credential
	answer     answer
	why        string
}

func (v violation) String() string {
	text := fmt.Sprintf("%s: node %d, asked at %v, said %q at %v: %s; changes:", v.credential.name, v.answer.node, v.answer.began, v.answer.saw, v.answer.ended, v.why)
	for n, c := range v.credential.changes {
		text += fmt.Sprintf("\n\t%d: %s, node %d, %v to %v", n+1, c.to, c.node, c.began, written(c.ended))
		if c.seen != never {
			text += fmt.Sprintf(", seen by all at %v", c.seen)
		}
	}
	text += "\n\tbefore that it said:"
	for _, a := range v.earlier() {
		text += fmt.Sprintf("\n\t%q, asked at %v, at %v", a.saw, a.began, a.ended)
	}
	return text
}

// earlier returns the last answers of the same node before the wrong one.
func (v violation) earlier() (all []answer) {
	const most = 12
	for _, a := range v.credential.answers {
		if a.node == v.answer.node && a.ended <= v.answer.ended && a != v.answer {
			all = append(all, a)
		}
	}
	return all[max(len(all)-most, 0):]
}

func written(m moment) string {
	if m == never {
		return "an unknown end"
	}
	return m.String()
}
