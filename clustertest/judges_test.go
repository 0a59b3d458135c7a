//go:build unix

package clustertest

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// life is a credential that is created at 10 ms on node 0, and deactivated
// there from 100 to 110 ms.
func life(answers ...answer) *credential {
	return &credential{name: "key", answers: answers, changes: []change{
		{node: 0, began: 5 * ms, ended: 10 * ms, seen: never, to: active},
		{node: 0, began: 100 * ms, ended: 110 * ms, seen: never, to: deactivated},
	}}
}

// TestChecker: what must be refused is refused, and what must not is not.
func TestChecker(t *testing.T) {
	cut := window{node: 1, from: 300 * ms, until: 900 * ms}
	asked := life(answer{1, 130 * ms, 131 * ms, active})
	asked.changes[1].seen = 125 * ms
	lost := life(answer{1, 200 * ms, 201 * ms, active})
	lost.changes[1].ended = never
	seenElsewhere := life(answer{1, 105 * ms, 106 * ms, deactivated}, answer{2, 400 * ms, 401 * ms, active})
	seenElsewhere.changes[1].ended = never
	reverted := life(answer{1, 160 * ms, 161 * ms, deactivated}, answer{1, 330 * ms, 331 * ms, active})
	reverted.changes = append(reverted.changes, change{node: nobody, began: 300 * ms, ended: 320 * ms, seen: never, to: active})
	stuck := life(answer{2, 600 * ms, 601 * ms, deactivated})
	stuck.changes = reverted.changes
	replaced := life(answer{1, 400 * ms, 401 * ms, superseded}, answer{2, 400 * ms, 401 * ms, unknown})
	replaced.changes[1].to = dead
	for _, test := range []struct {
		name string
		c    *credential
		want string // of the violation; empty: there is none
	}{
		{"right", life(answer{0, 50 * ms, 51 * ms, active}, answer{0, 111 * ms, 112 * ms, deactivated}, answer{1, 111 * ms, 112 * ms, active}), ""},
		{"not yet made", life(answer{0, 1 * ms, 2 * ms, unknown}), ""},
		{"before it was made", life(answer{0, 1 * ms, 2 * ms, active}), "0 changes"},
		{"while it is made", life(answer{0, 1 * ms, 6 * ms, active}), ""},
		{"forgotten where it was made", life(answer{0, 11 * ms, 12 * ms, unknown}), "1 changes"},
		{"accepted where it was revoked", life(answer{0, 110 * ms, 120 * ms, active}), "2 changes"},
		{"begun before the answer", life(answer{0, 109 * ms, 120 * ms, active}), ""},
		{"revoked before it was begun", life(answer{0, 50 * ms, 99 * ms, deactivated}), "1 changes"},
		{"accepted elsewhere within the bound", life(answer{1, 309 * ms, 320 * ms, active}), ""},
		{"accepted elsewhere beyond the bound", life(answer{1, 310 * ms, 320 * ms, active}), "2 changes"},
		{"accepted again", life(answer{1, 120 * ms, 121 * ms, deactivated}, answer{1, 122 * ms, 123 * ms, active}), "2 changes"},
		{"accepted at the same time", life(answer{1, 120 * ms, 123 * ms, deactivated}, answer{1, 122 * ms, 124 * ms, active}), ""},
		{"accepted after all had seen it", asked, "2 changes"},
		{"never acknowledged, never made", lost, ""},
		{"never acknowledged, but seen", seenElsewhere, "2 changes"},
		{"set back", reverted, ""},
		{"set back, and not noticed", stuck, "3 changes"},
		{"another reason", life(answer{0, 50 * ms, 51 * ms, blocked}), "1 changes"},
		{"an outage that is a denial", life(answer{2, 350 * ms, 351 * ms, unknown}), "2 changes"},
		{"dead for whatever reason", replaced, ""},
		{"decides on its own", life(answer{1, 510 * ms, 511 * ms, deactivated}), "could not hear"},
		{"decides on its lease", life(answer{1, 490 * ms, 511 * ms, deactivated}), ""},
		{"unsure while it is cut off", life(answer{1, 510 * ms, 511 * ms, unsure}), ""},
		{"unsure without a reason", life(answer{2, 510 * ms, 511 * ms, unsure}), "nothing was wrong"},
		{"silent without a reason", life(answer{2, 510 * ms, 511 * ms, silence}), "nothing was wrong"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := history{nodes: 3, bound: 200 * ms, credentials: []*credential{test.c}, isolated: []window{cut}, disturbed: []window{cut}}
			wrong := h.check()
			if len(wrong) > 1 || (len(wrong) == 1) != (test.want != "") {
				t.Fatalf("%v, want %q", wrong, test.want)
			}
			if len(wrong) == 1 && !strings.Contains(wrong[0].why, test.want) {
				t.Errorf("%v, want %q", wrong[0], test.want)
			}
		})
	}
}

// TestJudgesAgree: on made-up histories of one node, most of them impossible,
// the two judges come to the same verdict.
func TestJudgesAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	verdicts := map[bool]int{}
	for range 20_000 {
		h := history{nodes: 1, bound: 2 * time.Duration(random.IntN(100)), credentials: []*credential{madeUp(random)}}
		c := h.credentials[0]
		ours, theirs := len(h.explain(c)) == 0, h.linearizable(c, 0)
		if ours != theirs {
			t.Fatalf("we say %t, porcupine says %t: %+v", ours, theirs, c)
		}
		verdicts[ours]++
	}
	if t.Logf("%v", verdicts); verdicts[true] < 1000 || verdicts[false] < 1000 {
		t.Error("they agree on too little")
	}
}

func madeUp(random *rand.Rand) *credential {
	c := new(credential)
	now := moment(0)
	for i := range random.IntN(4) {
		began := now + moment(random.IntN(100)) + 1
		now = began + moment(random.IntN(100)) + 1
		made := change{node: random.IntN(2) - 1, began: began, ended: now, seen: never, to: []state{active, deactivated, blocked}[random.IntN(3)]}
		if i == 2 && random.IntN(2) == 0 {
			made.ended = never
		}
		c.changes = append(c.changes, made)
	}
	// Odd moments: nothing begins when something else ends.
	for i := range c.changes {
		c.changes[i].began *= 2
		if c.changes[i].ended != never {
			c.changes[i].ended *= 2
		}
	}
	for range 1 + random.IntN(5) {
		began := moment(random.IntN(900))*2 + 1
		c.answers = append(c.answers, answer{0, began, began + moment(random.IntN(100))*2, []state{unknown, active, deactivated, blocked}[random.IntN(4)]})
	}
	slices.SortFunc(c.answers, func(a, b answer) int { return cmp.Compare(a.began, b.began) })
	return c
}
