//go:build unix

package clustertest

import (
	"container/heap"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// check judges every answer by the promise:
//
//   - a change is in force on the node that acknowledged it from then on, on
//     every other node the bound later, and everywhere once it was said so;
//   - no answer knows of a change that nobody had begun;
//   - a node that knew of a change never again answers as if it did not, nor
//     does any other the bound later;
//   - a node that cannot hear from the database for longer than the bound
//     decides nothing;
//   - where nothing is wrong, every request is decided.
//
// "From then on" speaks of requests begun afterwards.
func (h *history) check() (wrong []violation) {
	for _, c := range h.credentials {
		wrong = append(wrong, h.explain(c)...)
		wrong = append(wrong, h.permit(c)...)
	}
	return wrong
}

// A proof says that as of a moment a node, or each, knows of so many changes.
type proof struct {
	at      moment
	node    int
	changes int
}

// proofs is a heap, the earliest first.
type proofs []proof

func (p proofs) Len() int           { return len(p) }
func (p proofs) Less(i, j int) bool { return p[i].at < p[j].at }
func (p proofs) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *proofs) Push(x any)        { *p = append(*p, x.(proof)) }
func (p *proofs) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// explain looks, for each answer, for a number of changes that explains it,
// between those that the node must have known when it was asked and those that
// had begun when it answered. The smallest is what the answer proves.
func (h *history) explain(c *credential) (wrong []violation) {
	known := make([]int, h.nodes)
	pending := h.announced(c)
	for _, a := range c.answers {
		if !a.saw.decided() {
			continue
		}
		for len(pending) > 0 && pending[0].at <= a.began {
			learn(known, heap.Pop(&pending).(proof))
		}
		n, ok := c.explanation(a, known[a.node])
		if !ok {
			wrong = append(wrong, violation{c, a, fmt.Sprintf("it had to know of %d changes", known[a.node])})
			continue
		}
		heap.Push(&pending, proof{a.ended, a.node, n})
		heap.Push(&pending, proof{after(a.ended, h.bound), nobody, n})
	}
	return wrong
}

// announced is what the acknowledgements alone prove.
func (h *history) announced(c *credential) proofs {
	var all proofs
	for i, made := range c.changes {
		if made.node != nobody {
			all = append(all, proof{made.ended, made.node, i + 1})
		}
		all = append(all, proof{min(after(made.ended, h.bound), made.seen), nobody, i + 1})
	}
	heap.Init(&all)
	return all
}

func learn(known []int, p proof) {
	for node := range known {
		if p.node == nobody || p.node == node {
			known[node] = max(known[node], p.changes)
		}
	}
}

func (c *credential) explanation(a answer, least int) (int, bool) {
	for n := least; n <= len(c.changes) && (n == 0 || c.changes[n-1].began <= a.ended); n++ {
		if c.state(n).explains(a.saw) {
			return n, true
		}
	}
	return 0, false
}

func after(m moment, d moment) moment {
	if m > never-d {
		return never
	}
	return m + d
}

// permit judges whether a node was entitled to decide, or not to.
func (h *history) permit(c *credential) (wrong []violation) {
	for _, a := range c.answers {
		if a.saw.decided() {
			for _, w := range h.isolated {
				if (w.node == nobody || w.node == a.node) && a.began >= w.from+h.bound && a.ended <= w.until {
					wrong = append(wrong, violation{c, a, fmt.Sprintf("it could not hear from the database since %v", w.from)})
				}
			}
		} else if !slices.ContainsFunc(h.disturbed, func(w window) bool { return w.holds(a) }) {
			wrong = append(wrong, violation{c, a, "nothing was wrong"})
		}
	}
	return wrong
}

// linearizable is a second judge of the first three rules, who looks at one
// node at a time and tries every order (Wing and Gong's search): for a node, a
// change may take effect from when it began to when it has to be in force
// there, the changes in their order.
func (h *history) linearizable(c *credential, node int) bool {
	model := porcupine.Model{
		Init: func() any { return 0 },
		Step: func(state, input, output any) (bool, any) {
			known := state.(int)
			if n, ok := input.(int); ok {
				return known == n-1, n
			}
			return c.state(known).explains(output.(answer).saw), known
		},
	}
	var operations []porcupine.Operation
	for i, made := range c.changes {
		end := min(after(made.ended, h.bound), made.seen)
		if made.node == node {
			end = made.ended
		}
		operations = append(operations, porcupine.Operation{ClientId: 0, Input: i + 1, Call: int64(made.began), Return: int64(end)})
	}
	for _, a := range c.answers {
		if a.node == node && a.saw.decided() {
			operations = append(operations, porcupine.Operation{ClientId: 1, Output: a, Call: int64(a.began), Return: int64(a.ended)})
		}
	}
	return porcupine.CheckOperations(model, operations)
}
