package caddymodule

import (
	"context"
	"errors"
	"os/signal"
	"strings"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

// upkeep is a command about the store as a whole. It asks the admin endpoint
// of the running server or, if none runs, works on the files.
type upkeep struct {
	use   string
	short string
	flags func(*cobra.Command)
	run   func(*session) error
}

const upkeepNotes = `

The running server is asked on its admin endpoint: --address, else the one in
--config, else the default. If none runs, the database is the one in --config,
else in the Caddyfile here, or the one named by --database.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 no Warder can be reached; 5
refused by the state that it is in; 7 the server cannot answer now, try again.`

func (u upkeep) command() *cobra.Command {
	cmd := &cobra.Command{Use: u.use, Short: u.short, Long: u.short + "." + upkeepNotes}
	u.grow(cmd)
	return cmd
}

// topUpkeep is one that stands beside the groups.
func topUpkeep(u upkeep, long string) caddycmd.Command {
	name, usage, _ := strings.Cut(u.use, " ")
	return caddycmd.Command{Name: name, Usage: usage, Short: u.short, Long: long + upkeepNotes, CobraFunc: u.grow}
}

func (u upkeep) grow(cmd *cobra.Command) {
	endpointFlags(cmd)
	cmd.Flags().String("database", "", "The SQLite database, with its key file, if no server runs and no configuration names it")
	cmd.Flags().Bool("json", false, "Print JSON")
	if u.flags != nil {
		u.flags(cmd)
	}
	want := strings.Count(u.use, "<")
	cmd.Args = cobra.ArbitraryArgs // counted below, where a refusal gets its exit code
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != want {
			return fail(cmd, usagef("it is: %s", cmd.UseLine()))
		}
		return fail(cmd, u.execute(cmd, args))
	}
	cmd.SetFlagErrorFunc(failFlag)
}

func (u upkeep) execute(cmd *cobra.Command, args []string) error {
	// Interrupted, it cleans up behind itself.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cmd.SetContext(ctx)
	s := &session{cmd: cmd, args: args, out: cmd.OutOrStdout()}
	if err := s.chooseFormat(); err != nil {
		return err
	}
	return u.run(s)
}

// askServer calls the running server; false if there is none, and the command
// may go on without it.
func (s *session) askServer(call func() error) (asked bool, err error) {
	if s.given("database") {
		return false, nil
	}
	if err := s.connectLocal(); err != nil {
		return true, err
	}
	err = call()
	if errors.Is(err, managementapi.ErrUnreachable) && !s.given("address") {
		return false, nil
	}
	return true, err
}

// context ends when the command is interrupted.
func (s *session) context() context.Context { return s.cmd.Context() }
