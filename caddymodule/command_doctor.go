package caddymodule

import (
	"encoding/json"
	"fmt"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func doctorCommand() caddycmd.Command {
	return caddycmd.Command{
		Name: "doctor", Usage: "[--config FILE] [--adapter NAME] [--json]", Short: "Looks over an installation, and names the remedies",
		Long: `Looks over an installation: its configuration, files, store, clock, admin
endpoint and issuer. It changes nothing and starts nothing, and works while the
server runs and while it does not: of a store that a running server holds, it
asks the server.

Each line is a finding:

  ok  as it should be
  ??  look whether you mean it: <what to do>
  !!  wrong: <what to do>

Without --config it takes the Caddyfile in the current directory, as run does.
Run it as the user that the server runs as, with the same environment.

Exit codes: 0 nothing is wrong; 1 something is; 2 wrong usage.`,
		CobraFunc: func(cmd *cobra.Command) {
			endpointFlags(cmd)
			cmd.Flags().Bool("json", false, "Print the findings as JSON")
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return fail(cmd, usagef("it is: %s", cmd.UseLine()))
				}
				return fail(cmd, examineAll(&session{cmd: cmd, out: cmd.OutOrStdout()}))
			}
			cmd.SetFlagErrorFunc(failFlag)
		},
	}
}

func examineAll(s *session) error {
	findings := newDoctor(s).examine(s.cmd.Context())
	if err := s.printFindings(findings); err != nil {
		return err
	}
	wrong := 0
	for _, f := range findings {
		if f.Result == findingWrong {
			wrong++
		}
	}
	if wrong > 0 {
		return &outcomeError{exitFailed, fmt.Sprintf("%d of %d findings are wrong", wrong, len(findings))}
	}
	return nil
}

func (s *session) printFindings(findings []finding) error {
	if s.on("json") {
		raw, err := json.Marshal(findings)
		if err != nil {
			return fmt.Errorf("encoding the findings: %w", err)
		}
		return s.printJSON(raw)
	}
	var b strings.Builder
	for _, f := range findings {
		text := f.Text
		if f.Remedy != "" {
			text += ": " + f.Remedy
		}
		fmt.Fprintf(&b, "%s  %-13s  %s\n", findingMarks[f.Result], f.Check, printable(text))
	}
	return s.print(b.String())
}

// finding is one line.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// What a finding can be.
const (
	findingOK    = "ok"
	findingHint  = "hint"
	findingWrong = "wrong"
)

var findingMarks = map[string]string{findingOK: "ok", findingHint: "??", findingWrong: "!!"}
