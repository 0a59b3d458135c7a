package keystore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn, ctx := NewTurn(), t.Context()
		end, err := turn.take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := turn.take(ctx); !errors.Is(err, ErrUnavailable) || time.Since(began) != turnWait {
			t.Errorf("behind one that does not end: %v after %s", err, time.Since(began))
		}
		gone, leave := context.WithCancel(ctx)
		leave()
		if _, err := turn.take(gone); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a caller that has gone: %v", err)
		}
		time.AfterFunc(time.Second, end)
		if next, err := turn.take(ctx); err != nil {
			t.Errorf("behind one that ends: %v", err)
		} else {
			next()
		}
		if end, err = Turn(nil).take(ctx); err != nil {
			t.Errorf("nil: %v", err)
		}
		end()
	})
}
