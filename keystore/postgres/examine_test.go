//go:build unix

package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// Who only looks makes no schema, and sees what is in it.
func TestExamine(t *testing.T) {
	c := newDatabase(t)
	for range 2 {
		if e, err := Examine(t.Context(), c); err != nil || e.Exists || e.Known != schemaVersion || e.Clock.Abs() > time.Minute {
			t.Errorf("%+v %v", e, err)
		}
	}
	openAt(t, c)
	e, err := Examine(t.Context(), c)
	if err != nil || !e.Exists || e.Version != schemaVersion || e.Head.Revision != 1 || e.Head.Mark == 0 || len(e.Sealed.Sealed) == 0 {
		t.Errorf("%+v %v", e, err)
	}
	conn, err := pgx.Connect(t.Context(), c.URL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "UPDATE warder.head SET version = 99, usable_from = 99"); err != nil {
		t.Fatal(err)
	}
	if _, err := Examine(t.Context(), c); !errors.Is(err, keystore.ErrNewerSchema) {
		t.Error(err)
	}
	if _, err := Examine(t.Context(), Config{URL: "postgres://nobody@127.0.0.1:1/x"}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Error(err)
	}
}
