package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// The readers turn what a flag says into what the wire says.

func readText(s *session, flag string) (any, error) { return s.text(flag), nil }

func readNull(s *session, flag string) (any, error) {
	if !s.on(flag) {
		return nil, usagef("--%s: stands alone, without a value", flag)
	}
	return nil, nil
}

// readList returns the values of a flag that may be repeated. One empty value
// is the empty list.
func readList(s *session, flag string) (any, error) { return s.words(flag), nil }

func (s *session) words(flag string) []string {
	list := s.list(flag)
	if len(list) == 1 && list[0] == "" {
		return []string{}
	}
	return list
}

func readDocument(s *session, flag string) (any, error) { return document(flag, s.text(flag)) }

// readTextOr reads a text, or the word that stands for none.
func readTextOr(none string) func(*session, string) (any, error) {
	return func(s *session, flag string) (any, error) {
		if text := s.text(flag); text != none {
			return text, nil
		}
		return nil, nil
	}
}

// readDaysOr reads a length of life, or the word that stands for none.
func readDaysOr(none string) func(*session, string) (any, error) {
	return func(s *session, flag string) (any, error) {
		if s.text(flag) == none {
			return nil, nil
		}
		n, err := strconv.Atoi(strings.TrimSuffix(s.text(flag), "d"))
		if err != nil {
			return nil, usagef("--%s: must be a number of days such as 90d, or %s", flag, none)
		}
		return n, nil
	}
}

// readSecondsOr reads a length of time, or the word that stands for none.
func readSecondsOr(none string) func(*session, string) (any, error) {
	return func(s *session, flag string) (any, error) {
		if s.text(flag) == none {
			return nil, nil
		}
		n, ok := seconds(s.text(flag))
		if !ok {
			return nil, usagef("--%s: must be a length of time such as 90m, 6h or 2d, in whole seconds, or %s", flag, none)
		}
		return n, nil
	}
}

// seconds reads a length of time; beside Go's units it knows days.
func seconds(text string) (int64, bool) {
	if count, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(count, 10, 32)
		return n * 24 * 60 * 60, err == nil
	}
	d, err := time.ParseDuration(text)
	return int64(d / time.Second), err == nil && d%time.Second == 0
}

// days reads a length of life such as 90d.
func days(flag, text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(text, "d"))
	if err != nil {
		return 0, usagef("--%s: must be a number of days such as 30d", flag)
	}
	return n, nil
}

// document reads JSON given literally or, after @, as the name of a file.
func document(flag, text string) (json.RawMessage, error) {
	if file, ok := strings.CutPrefix(text, "@"); ok {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		text = string(content)
	}
	if !json.Valid([]byte(text)) {
		return nil, usagef(`--%s: must be a JSON object such as '{"team":"blue"}', or @FILE`, flag)
	}
	return json.RawMessage(text), nil
}

// expiry puts --expires-in or --expires-at into a body.
func (s *session) expiry(body map[string]any) error {
	if s.given("expires-in") && s.given("expires-at") {
		return usagef("--expires-in and --expires-at exclude each other")
	}
	if s.given("expires-in") {
		n, err := days("expires-in", s.text("expires-in"))
		if err != nil {
			return err
		}
		body["expires_in_days"] = n
	}
	if s.given("expires-at") {
		at, err := s.moment("expires-at")
		if err != nil {
			return err
		}
		body["expires_at"] = at
	}
	return nil
}

// moment reads a time. A day alone is its beginning, in UTC.
func (s *session) moment(flag string) (time.Time, error) {
	text := s.text(flag)
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usagef("--%s: must be a time as in RFC 3339, such as 2030-12-31T00:00:00Z, or a day such as 2030-12-31", flag)
}
