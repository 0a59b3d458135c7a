//go:build unix

package sqlite

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// The audit log refuses to be changed, whoever asks.
func TestAuditOnlyGrows(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error { return tx.AppendAudit(&keystore.AuditEntry{Actor: "local"}) })
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "DELETE FROM audit WHERE number = 1"} {
		if _, err := s.writes.Exec(query); err == nil || !strings.Contains(err.Error(), "only appended to") {
			t.Errorf("%s: %v", query, err)
		}
	}
	page, err := s.Audit(t.Context(), keystore.AuditQuery{Limit: 1})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Actor != "local" {
		t.Errorf("%+v %v", page, err)
	}
}
