package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// notifier: what one process commits or asks for, the others hear.
func notifier(t *testing.T, h Harness) {
	if !h.Shared {
		t.Skip("the store is not shared")
	}
	t.Run("Changes", func(t *testing.T) { notifiedChanges(open(t, h)) })
	t.Run("Many", func(t *testing.T) { notifiedMany(open(t, h)) })
	t.Run("Ends", func(t *testing.T) { listeningEnds(open(t, h)) })
}

// listen returns what a second process hears, after its first, empty notice.
func (b *bench) listen() <-chan keystore.Notice {
	b.Helper()
	other := b.reopen()
	heard := make(chan keystore.Notice, 100)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- other.(keystore.Notifier).Listen(ctx, func(n keystore.Notice) { heard <- n })
	}()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			b.Errorf("Listen: %v", err)
		}
	})
	if n := b.hear(heard); n.Beat || n.Keys != nil {
		b.Errorf("the first notice is %+v", n)
	}
	return heard
}

func (b *bench) hear(heard <-chan keystore.Notice) keystore.Notice {
	b.Helper()
	select {
	case n := <-heard:
		return n
	case <-time.After(20 * time.Second):
		b.Fatal("nothing is heard")
		return keystore.Notice{}
	}
}

// notifiedChanges: one notice for each commit that changed something, in their
// order, and none for what is no change.
func notifiedChanges(b *bench) {
	heard := b.listen()
	hears := func(what string, beat bool, keys ...keystore.KeyID) {
		b.Helper()
		n := b.hear(heard)
		slices.Sort(n.Keys)
		if n.Beat != beat || !slices.Equal(n.Keys, keys) {
			b.Errorf("%s: heard %+v", what, n)
		}
	}
	sentinel := errors.New("fn's own")
	b.put(key("a"))
	hears("a new key", false, "key_a")
	b.refused(sentinel, func(tx keystore.Tx) error { r := key("x"); return errors.Join(tx.PutKey(&r), sentinel) })
	b.transact(func(tx keystore.Tx) error { _, err := tx.Key("key_a"); return err })
	b.append(keystore.AuditEntry{Actor: "local"})
	b.beat(keystore.Node{ID: "n"})
	b.addUsage(keystore.UsageBatch{Counts: []keystore.UsageCount{{Key: "key_a", Day: 20260301, Requests: 1}}})
	b.organization("acme")
	hears("an organization, and nothing before it", false)
	b.transact(func(tx keystore.Tx) error {
		r := key("b")
		return errors.Join(tx.PutKey(&r), tx.DeleteKey("key_a"), tx.PutDocument(&keystore.Document{Kind: "demo", Name: "d"}))
	})
	hears("several", false, "key_a", "key_b")
	if err := b.store.(keystore.Notifier).AskBeats(b.Context()); err != nil {
		b.Fatal(err)
	}
	hears("a question", true)
}

// notifiedMany: a commit of more keys than a notice holds is heard all the
// same.
func notifiedMany(b *bench) {
	heard := b.listen()
	all := map[keystore.KeyID]bool{}
	b.transact(func(tx keystore.Tx) error {
		for n := range 1000 {
			r := key(fmt.Sprintf("many%026d", n))
			r.Current.AccessKey = access(fmt.Sprintf("%06d", n))
			all[r.ID] = true
			if err := tx.PutKey(&r); err != nil {
				return err
			}
		}
		return nil
	})
	n := b.hear(heard)
	if n.Beat {
		b.Error("a heartbeat is asked for")
	}
	for _, id := range n.Keys {
		if !all[id] {
			b.Errorf("heard of %q twice, or it is not among those that changed", id)
		}
		delete(all, id)
	}
	b.put(key("after"))
	if n := b.hear(heard); !slices.Equal(n.Keys, []keystore.KeyID{"key_after"}) {
		b.Errorf("after it: %+v", n)
	}
}

// listeningEnds with the store.
func listeningEnds(b *bench) {
	other := b.reopen()
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- other.(keystore.Notifier).Listen(context.Background(), func(keystore.Notice) { close(began) })
	}()
	<-began
	if err := other.Close(); err != nil {
		b.Errorf("Close: %v", err)
	}
	if err := <-ended; !errors.Is(err, keystore.ErrUnavailable) {
		b.Errorf("Listen: %v", err)
	}
}
