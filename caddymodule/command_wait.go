package caddymodule

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func waitFlag(cmd *cobra.Command) {
	cmd.Flags().String("wait", "", "Wait until every node has seen the change, so long at the most, such as 5s")
}

// chooseWait judges --wait before anything is done. How long is too long, the
// server says.
func (s *session) chooseWait() (err error) {
	if !s.given("wait") {
		return nil
	}
	if s.wait, err = time.ParseDuration(s.text("wait")); err != nil || s.wait <= 0 {
		return usagef("--wait: must be a length of time such as 500ms or 5s")
	}
	return nil
}

// judgeSeen says why a change that was waited for is not known to be seen by
// every node. What one answer says holds for all changes before it.
func (s *session) judgeSeen(raw json.RawMessage) error {
	if s.wait == 0 {
		return nil
	}
	seen, err := decode[managementapi.Seen](raw)
	if err != nil || seen.SeenByAll {
		return err
	}
	if len(seen.Pending) == 0 {
		return &outcomeError{exitUnseen, "done, but which nodes have seen it is not known: their registry could not be read in time"}
	}
	var names []string
	for _, id := range seen.Pending {
		names = append(names, printable(string(id)))
	}
	return &outcomeError{exitUnseen, fmt.Sprintf("done, but not seen by every node within %s, see nodes: %s", s.wait, strings.Join(names, ", "))}
}
