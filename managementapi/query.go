package managementapi

import (
	"net/url"
	"slices"
	"strconv"

	"github.com/warderhq/warder/keystore"
)

const (
	defaultLimit = 100
	maximumLimit = 1000
)

// What the lists understand.
var (
	pageParameters       = []string{"limit", "after"}
	keyParameters        = append([]string{"organization", "type", "state", "name", "permission", "imported", "before"}, pageParameters...)
	permissionParameters = append([]string{"organization"}, pageParameters...)
	usageParameters      = []string{"organization", "key", "by", "from", "to", "group"}
	auditParameters      = append([]string{"organization", "actor", "operation", "object", "refused", "since", "until"}, pageParameters...)
)

// parameters reads the query. One that is not among the names, is there twice,
// or is empty, is refused: a filter that is ignored would answer another
// question.
func parameters(rawQuery string, names []string) (map[string]string, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, &parameterError{"", "the query is not well-formed"}
	}
	known := make(map[string]string, len(query))
	for name, values := range query {
		switch {
		case !slices.Contains(names, name):
			return nil, &parameterError{truncate(name), "is not a parameter here"}
		case len(values) > 1:
			return nil, &parameterError{name, "is there twice"}
		case values[0] == "":
			return nil, &parameterError{name, "must not be empty"}
		}
		known[name] = values[0]
	}
	return known, nil
}

func (c *call) keyQuery() (q keystore.Query, err error) {
	p := c.query
	q = keystore.Query{Organization: p["organization"], Name: p["name"], Permission: p["permission"], Now: c.now}
	if q.Limit, q.After, err = pageOf(p); err != nil {
		return q, err
	}
	if q.Before, err = before(p); err != nil {
		return q, err
	}
	if text, ok := p["type"]; ok {
		if q.Type, err = keystore.ParseType(text); err != nil {
			return q, &parameterError{"type", "must be standard or trial"}
		}
	}
	if text, ok := p["state"]; ok {
		if q.State, err = keystore.ParseState(text); err != nil {
			return q, &parameterError{"state", "must be active, deactivated, expired or blocked"}
		}
	}
	if text, ok := p["imported"]; ok {
		if q.Imported = text == "true"; !q.Imported {
			return q, &parameterError{"imported", "must be true"}
		}
	}
	return q, nil
}

func before(p map[string]string) (keystore.Number, error) {
	text, ok := p["before"]
	if !ok {
		return 0, nil
	}
	if _, both := p["after"]; both {
		return 0, &parameterError{"before", "cannot stand beside after"}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, &parameterError{"before", "must be a cursor as it stands in previous"}
	}
	return keystore.Number(n), nil
}

func pageOf(p map[string]string) (limit int, after keystore.Number, err error) {
	if limit, err = limitOf(p); err != nil {
		return 0, 0, err
	}
	if text, ok := p["after"]; ok {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, errCursor
		}
		after = keystore.Number(n)
	}
	return limit, after, nil
}

var errCursor = &parameterError{"after", "must be a cursor as it stands in next"}

func limitOf(p map[string]string) (int, error) {
	text, ok := p["limit"]
	if !ok {
		return defaultLimit, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maximumLimit {
		return 0, &parameterError{"limit", "must be 1 to 1000"}
	}
	return limit, nil
}

// instant reads a time parameter; zero if it is not there.
func instant(p map[string]string, name string) (keystore.Instant, error) {
	text, ok := p[name]
	if !ok {
		return 0, nil
	}
	m, err := parseMoment(text)
	if err != nil {
		return 0, &parameterError{name, expectation(m)}
	}
	return keystore.Instant(m), nil
}

func cursorOf(n keystore.Number) *string {
	text := strconv.FormatInt(int64(n), 10)
	return &text
}
