package keystore

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestForget: who comes after the hint reads what the store holds, by
// whichever name, though nothing was applied.
func TestForget(t *testing.T) {
	for name, size := range map[string]int{"one shard": 16, "many shards": 4096} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, size, 0)
			rec, secret := n.storedKey(t, "")
			first := rec
			must(t, rec.Regenerate(n.credentials.NewAccessKey(), Digest{9}, 0))
			n.store.put(t, &rec)
			n.catchUp(t)
			names := []LookupID{LookupID(rec.ID), LookupID(first.Current.AccessKey), LookupID(rec.Current.AccessKey)}
			for range 2 { // the second time without a lock
				for _, id := range names {
					n.see(t, id)
				}
			}
			rec.SetBlocked(true)
			n.store.put(t, &rec)
			n.view.Forget(rec.ID)
			for _, id := range names {
				if got := n.see(t, id); !got.Blocked {
					t.Errorf("%s is found as it was", id)
				}
			}
			n.store.remove(t, rec.ID)
			n.view.Forget(rec.ID)
			for _, id := range names {
				if got := n.see(t, id); got.ID != "" {
					t.Errorf("%s, which is gone, is found", id)
				}
			}
			if _, err := n.authenticate(&first, secret, time.Now()); err != ErrInvalid {
				t.Errorf("a request with the first secret: %v", err)
			}
		})
	}
}

// TestForgetAbsence: a key that came is found as soon as it was told of.
func TestForgetAbsence(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.newKey("")
	n.see(t, LookupID(rec.ID))
	n.store.put(t, &rec)
	n.view.Forget(rec.ID)
	if got := n.see(t, LookupID(rec.ID)); got.ID != rec.ID {
		t.Error("it is still taken for absent")
	}
}

// TestForgetVoidsReadsUnderWay: what was read before the hint is given to
// nobody after it, and stays in no view.
func TestForgetVoidsReadsUnderWay(t *testing.T) {
	for _, by := range []string{"key id", "access key"} {
		for change, apply := range map[string]func(*testing.T, *node, *Record){
			"block":  func(t *testing.T, n *node, r *Record) { r.SetBlocked(true); n.store.put(t, r) },
			"delete": func(t *testing.T, n *node, r *Record) { n.store.remove(t, r.ID) },
		} {
			for _, size := range []int{16, 4096} {
				t.Run(fmt.Sprintf("%s, by %s, view of %d", change, by, size), func(t *testing.T) {
					n := newNode(t, size, 0)
					rec, secret := n.storedKey(t, "")
					old, id := rec, LookupID(rec.ID)
					if by == "access key" {
						id = LookupID(rec.Current.AccessKey)
					}
					answers := n.holdLookups()
					first := n.begin(context.Background(), id)
					late := <-answers
					joined := n.begin(context.Background(), id)
					apply(t, n, &rec)
					n.letLookupsPass()
					n.view.Forget(rec.ID)
					late.release()
					for _, reader := range []<-chan answer{first, joined} {
						if got := <-reader; got.err != nil || got.rec.Admit(1, time.Now()) == nil {
							t.Errorf("a reader sees %+v, %v", got.rec, got.err)
						}
					}
					if _, err := n.authenticate(&old, secret, time.Now()); err == nil {
						t.Error("a request begun after the hint passes")
					}
				})
			}
		}
	}
}

// TestForgetLeavesTheOldFlight: who comes after the hint does not wait for a
// look-up from before it, whose name the view knows.
func TestForgetLeavesTheOldFlight(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.storedKey(t, "")
	byID, byAlias := LookupID(rec.ID), LookupID(rec.Current.AccessKey)
	for _, names := range [][2]LookupID{{byID, byAlias}, {byAlias, byID}} {
		n.view.Forget(rec.ID)
		answers := n.holdLookups()
		reader := n.begin(context.Background(), names[0])
		late := <-answers
		n.letLookupsPass()
		n.see(t, names[1])
		rec.Name += "x"
		n.store.put(t, &rec)
		n.view.Forget(rec.ID)
		select {
		case got := <-n.begin(context.Background(), names[0]):
			if got.err != nil || got.rec.Name != rec.Name {
				t.Errorf("%s sees %+v, %v", names[0], got.rec, got.err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s waits for an answer that is void", names[0])
		}
		late.release()
		<-reader
	}
}

// TestForgedHints: they cost the keys that they name a look-up, and nothing
// else: no fence is raised, no memory taken, no other key let go or read twice.
func TestForgedHints(t *testing.T) {
	for _, size := range []int{16, 4096} {
		n := newNode(t, size, 0)
		hot, _ := n.storedKey(t, "")
		cold, _ := n.storedKey(t, "")
		for n.sharesFloor(hot.ID, cold.ID) || n.sharesFloor("key_forged", cold.ID) {
			cold, _ = n.storedKey(t, "")
		}
		n.see(t, LookupID(hot.Current.AccessKey))
		answers := n.holdLookups()
		reader := n.begin(context.Background(), LookupID(cold.ID))
		underWay := <-answers
		n.letLookupsPass()
		fences := n.fences()
		forged := []KeyID{"", "key_forged", KeyID(hot.Current.AccessKey), KeyID(cold.Current.AccessKey)}
		if allocs := testing.AllocsPerRun(1000, func() { n.view.Forget(forged...) }); allocs != 0 {
			t.Errorf("a forged hint allocates %v times", allocs)
		}
		if got := n.fences(); got != fences {
			t.Errorf("fences %s, before %s", got, fences)
		}
		n.warm(t, LookupID(hot.Current.AccessKey))
		underWay.release()
		<-reader
		if asked := n.store.asked(); asked != 2 {
			t.Errorf("%d look-ups for two keys", asked)
		}
		n.view.Forget(hot.ID)
		n.see(t, LookupID(hot.ID))
		if asked := n.store.asked(); asked != 3 || n.see(t, LookupID(hot.Current.AccessKey)).ID != hot.ID {
			t.Errorf("%d look-ups after a hint for a key that has not changed", asked)
		}
	}
}

// TestForgetKeepsTheMeter: nobody gets a new limit by a hint.
func TestForgetKeepsTheMeter(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.newKey("")
	rec.Limit = Limit{2, 2, time.Hour}
	n.store.put(t, &rec)
	n.catchUp(t)
	z := &Authorizer{Directory: &n.directory, Rulebook: &n.rulebook}
	now := time.Now()
	for i, want := range []bool{true, true, false} {
		n.view.Forget(rec.ID)
		e, err := n.view.load(context.Background(), LookupID(rec.ID))
		must(t, err)
		p := e.principal(1, CredentialKey, "")
		if _, ok := z.Spend(&p, now); ok != want {
			t.Errorf("request %d passes = %t", i, ok)
		}
	}
}

// sharesFloor reports whether a hint for one key has reads of the other
// repeated.
func (n *node) sharesFloor(a, b KeyID) bool { return n.floorOf(a) == n.floorOf(b) }

func (n *node) fences() string {
	var fences []Revision
	for i := range n.view.shards {
		fences = append(fences, n.view.shards[i].fence)
	}
	return fmt.Sprint(fences)
}

func (n *node) floorOf(id KeyID) any { return n.view.voided.of(n.view.hash(LookupID(id))) }
