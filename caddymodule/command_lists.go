package caddymodule

import (
	"encoding/json"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

// perCall is how many rows one call gives at most.
const perCall = 1000

// all pages through a list until its end, or until limit rows are there if
// that is not zero.
func (s *session) all(path string, filters url.Values, limit int) (all []json.RawMessage, err error) {
	query := url.Values{}
	for name, values := range filters {
		query[name] = values
	}
	for more := true; more; {
		size := perCall
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		query.Set("limit", strconv.Itoa(size))
		raw, err := s.get(query, path)
		if err != nil {
			return nil, err
		}
		rows, next, err := page(path, raw)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		query.Set("after", next)
		more = next != "" && len(rows) > 0 && (limit == 0 || len(all) < limit)
	}
	return all, nil
}

// listMembers are the members that hold the rows, where they are not named
// after the path.
var listMembers = map[string]string{"audit": "entries"}

// page reads one answer of a list.
func page(path string, raw json.RawMessage) (rows []json.RawMessage, next string, err error) {
	answer, err := decode[map[string]json.RawMessage](raw)
	if err != nil {
		return nil, "", err
	}
	member, ok := listMembers[path]
	if !ok {
		member = path
	}
	if rows, err = decode[[]json.RawMessage](answer[member]); err != nil {
		return nil, "", err
	}
	if answer["next"] != nil {
		next, err = decode[string](answer["next"]) // null is empty
	}
	return rows, next, err
}

func limitFlag(cmd *cobra.Command, byDefault int, text string) {
	cmd.Flags().Int("limit", byDefault, "At most so many (default: "+text+")")
}

// limit returns how many rows are wanted at most; zero: all.
func (s *session) limit() (int, error) {
	n := s.number("limit")
	if s.given("limit") && n < 1 {
		return 0, usagef("--limit: must be at least 1")
	}
	return n, nil
}

// filters returns the query of those flags that are given.
func (s *session) filters(flags ...string) url.Values {
	query := url.Values{}
	for _, flag := range flags {
		if s.given(flag) {
			query.Set(flag, s.text(flag))
		}
	}
	return query
}
