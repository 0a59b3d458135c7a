package main_test

import (
	"encoding/json"
	"net/http"
	"testing"
)

// auditEntry is what the tests read of an entry of the audit log.
type auditEntry struct {
	Operation string  `json:"operation"`
	Object    string  `json:"object"`
	Refused   *string `json:"refused"`
}

// audit returns all of the audit log, the latest first.
func (s *site) audit() (all []auditEntry) {
	s.t.Helper()
	for path := "/audit?limit=1000"; ; {
		got, err := s.manage(http.MethodGet, path, "")
		var page struct {
			Entries []auditEntry `json:"entries"`
			Next    *string      `json:"next"`
		}
		if err != nil || got.status != http.StatusOK || json.Unmarshal([]byte(got.body), &page) != nil {
			s.t.Fatalf("reading the audit log: %v %v", got, err)
		}
		all = append(all, page.Entries...)
		if page.Next == nil {
			return all
		}
		path = "/audit?limit=1000&after=" + *page.Next
	}
}

// checkAudit: each key has been made, rotated and blocked as often as the audit
// log says, so that no change is without its line and no line without its
// change; and what was acknowledged is among it.
func checkAudit(t *testing.T, s *site, all []*operator) {
	t.Helper()
	lines := make(map[string]map[string]int) // by key, by operation
	for _, e := range s.audit() {
		if e.Refused != nil || e.Object == "" {
			continue
		}
		if lines[e.Object] == nil {
			lines[e.Object] = make(map[string]int)
		}
		lines[e.Object][e.Operation]++
	}
	changes := 0
	for _, k := range s.keys() {
		of, blocked := lines[k.ID], 0
		if k.State == "blocked" {
			blocked = 1
		}
		if of["keys.create"] != 1 || of["keys.rotate"] != k.Generation-1 || of["keys.block"] != blocked {
			t.Errorf("%s, of generation %d and %s, has the lines %v", k.ID, k.Generation, k.State, of)
		}
		changes += 1 + of["keys.rotate"] + of["keys.block"]
		delete(lines, k.ID)
	}
	for id, of := range lines {
		if of["keys.create"]+of["keys.rotate"]+of["keys.block"] > 0 {
			t.Errorf("%s is not there, and has the lines %v", id, of)
		}
	}
	for _, o := range all {
		for _, h := range o.held {
			if now := o.state(h); now.Generation < h.key.Generation {
				t.Errorf("%s was acknowledged at generation %d and is at %d", h.key.ID, h.key.Generation, now.Generation)
			}
		}
	}
	t.Logf("%d changes, each with its line", changes)
}
