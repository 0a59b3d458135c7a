package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// days reads a length of life such as 90d.
func days(flag, text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(text, "d"))
	if err != nil {
		return 0, usagef("--%s: must be a number of days such as 30d", flag)
	}
	return n, nil
}

// daysOrNone reads a length of life, or the word that stands for none.
func daysOrNone(flag, text, none string) (any, error) {
	if text == none {
		return nil, nil
	}
	n, err := strconv.Atoi(strings.TrimSuffix(text, "d"))
	if err != nil {
		return nil, usagef("--%s: must be a number of days such as 90d, or %s", flag, none)
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
		at, err := time.Parse(time.RFC3339, s.text("expires-at"))
		if err != nil {
			return usagef("--expires-at: must be a time as in RFC 3339, such as 2030-12-31T00:00:00Z")
		}
		body["expires_at"] = at
	}
	return nil
}

// scopes returns the values of a repeatable flag. One empty value is the
// empty list.
func (s *session) scopes(flag string) []string {
	list := s.list(flag)
	if len(list) == 1 && list[0] == "" {
		return []string{}
	}
	return list
}
