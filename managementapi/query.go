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

// pageParameters and keyParameters are what the lists understand.
var (
	pageParameters = []string{"limit", "after"}
	keyParameters  = append([]string{"organization", "type", "state"}, pageParameters...)
)

// parameters reads the query. One that is not among the names, or is there
// twice, is refused: a filter that is ignored would answer another question.
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
		}
		known[name] = values[0]
	}
	return known, nil
}

func (c *call) keyQuery() (q keystore.Query, err error) {
	p := c.query
	q = keystore.Query{Organization: p["organization"], Now: c.now}
	if q.Limit, q.After, err = pageOf(p); err != nil {
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
	return q, nil
}

func pageOf(p map[string]string) (limit int, after keystore.Number, err error) {
	limit = defaultLimit
	if text, ok := p["limit"]; ok {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maximumLimit {
			return 0, 0, &parameterError{"limit", "must be 1 to 1000"}
		}
	}
	if text, ok := p["after"]; ok {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, &parameterError{"after", "must be a cursor as it stands in next"}
		}
		after = keystore.Number(n)
	}
	return limit, after, nil
}

func cursorOf(n keystore.Number) *string {
	text := strconv.FormatInt(int64(n), 10)
	return &text
}
