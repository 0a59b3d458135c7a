package managementapi

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/warderhq/warder/keystore"
)

// AuditEntry is an entry of the audit log as callers see it.
type AuditEntry struct {
	Number       keystore.Number   `json:"number"`
	At           time.Time         `json:"at"`
	Actor        string            `json:"actor"`
	From         string            `json:"from"` // empty: this machine
	Operation    string            `json:"operation"`
	Kind         string            `json:"kind"` // empty, as object: nothing was reached
	Object       string            `json:"object"`
	Organization string            `json:"organization"`
	Refused      *string           `json:"refused"` // why; null: it was done
	Revision     keystore.Revision `json:"revision"`
	Before       json.RawMessage   `json:"before"` // what differs; null: there was none
	After        json.RawMessage   `json:"after"`  // likewise; null: there is none
}

// AuditPage is a part of the audit log, the latest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	Next    *string      `json:"next"`
}

func (a *API) audit(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	q, err := c.auditQuery()
	if err != nil {
		return answer{}, err
	}
	page, err := a.Service.Audit(c.Context(), c.caller, q)
	if err != nil {
		return answer{}, err
	}
	list := AuditPage{Entries: make([]AuditEntry, 0, len(page.Entries))}
	for i := range page.Entries {
		list.Entries = append(list.Entries, auditEntryOf(&page.Entries[i]))
	}
	if n := len(page.Entries); page.More && n > 0 {
		list.Next = cursorOf(page.Entries[n-1].Number)
	}
	return answer{body: list}, nil
}

func (c *call) auditQuery() (q keystore.AuditQuery, err error) {
	p := c.query
	q = keystore.AuditQuery{Organization: p["organization"], Actor: p["actor"], Operation: p["operation"], Object: p["object"]}
	if q.Limit, q.Before, err = pageOf(p); err != nil {
		return q, err
	}
	if _, ok := p["after"]; ok && q.Before == 0 {
		return q, errCursor // zero would be the first page again
	}
	if text, ok := p["refused"]; ok {
		refused, err := strconv.ParseBool(text)
		if err != nil || strconv.FormatBool(refused) != text {
			return q, &parameterError{"refused", "must be true or false"}
		}
		q.Refused = &refused
	}
	if q.Since, err = instant(p, "since"); err != nil {
		return q, err
	}
	q.Until, err = instant(p, "until")
	return q, err
}

func auditEntryOf(e *keystore.AuditEntry) AuditEntry {
	return AuditEntry{
		Number: e.Number, At: e.At.Time(), Actor: e.Actor, From: e.From, Operation: e.Operation,
		Kind: string(e.Kind), Object: e.Object, Organization: e.Organization, Refused: textOf(e.Refused),
		Revision: e.Revision, Before: objectOrNull(e.Before), After: objectOrNull(e.After),
	}
}

func objectOrNull(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}
