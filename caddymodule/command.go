package caddymodule

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "warder",
		Usage: "<command>",
		Short: "Manages the API keys of a running Warder",
		Long:  "Manages the API keys of a running Warder." + commandNotes,
		CobraFunc: func(cmd *cobra.Command) {
			var children []*cobra.Command
			for _, c := range Commands() {
				child := &cobra.Command{Use: strings.TrimSpace(c.Name + " " + c.Usage), Short: c.Short, Long: c.Long}
				c.CobraFunc(child)
				children = append(children, child)
			}
			group(cmd, children...)
		},
	})
}

// Commands returns the commands below "warder", ready to be registered as
// short forms by a binary whose own name is Warder.
func Commands() []caddycmd.Command {
	return []caddycmd.Command{
		commandGroup("keys", "Makes, lists and changes API keys", keyCommands),
		commandGroup("organizations", "Makes, lists and changes organizations", organizationCommands),
		commandGroup("permissions", "Makes, lists and changes permissions", permissionCommands),
		commandGroup("signing-keys", "Lists and rotates the keys that sign access tokens", signingKeyCommands),
		usageCommand(),
		auditCommand(),
		nodesCommand(),
		healthCommand(),
		explainCommand(),
		doctorCommand(),
		importCommand(),
		backupCommand(),
		restoreCommand(),
		{Name: "master-key", Usage: "<command>", Short: masterKeyShort, Long: masterKeyShort + "." + upkeepNotes,
			CobraFunc: func(cmd *cobra.Command) { group(cmd, masterKeyCommands()...) }},
	}
}

func commandGroup(name, short string, children func() []*cobra.Command) caddycmd.Command {
	return caddycmd.Command{
		Name: name, Usage: "<command>", Short: short, Long: short + "." + commandNotes,
		CobraFunc: func(cmd *cobra.Command) { group(cmd, children()...) },
	}
}

// topCommand is a leaf that stands beside the groups.
func topCommand(l leaf, long string) caddycmd.Command {
	return caddycmd.Command{Name: l.use, Short: l.short, Long: long + commandNotes, CobraFunc: l.grow}
}

const commandNotes = `

The commands talk to the admin endpoint of a running server, found as Caddy's
own commands find it: --address, else the one in --config, else the default.
With --url they talk to a management API mounted elsewhere, as the key whose
credential is in the environment variable WARDER_API_KEY or in a file.

Exit codes: 0 done; 1 failed; 2 wrong usage or a refused value; 3 no Warder can
be reached there; 4 no such key, organization or permission; 5 refused by the
state that it is in; 6 not allowed; 7 the server cannot answer now, try again;
8 done, but with --wait not seen by every node in time.`

// leaf is one command. Its arguments are named in use; none is optional, but
// of a list, which ends in "...", the command itself judges how many there are.
type leaf struct {
	use   string
	short string
	flags func(*cobra.Command)
	run   func(*session) error
}

func (l leaf) command() *cobra.Command {
	cmd := &cobra.Command{Use: l.use, Short: l.short}
	l.grow(cmd)
	return cmd
}

// changing is command for a leaf that changes something.
func (l leaf) changing() *cobra.Command {
	cmd := l.command()
	waitFlag(cmd)
	return cmd
}

// grow makes cmd the leaf.
func (l leaf) grow(cmd *cobra.Command) {
	connectionFlags(cmd)
	cmd.Flags().Bool("json", false, "Print the server's JSON: short for --format json")
	cmd.Flags().String("format", "", "table (default), json, or, where a secret is shown, env")
	if l.flags != nil {
		l.flags(cmd)
	}
	want := strings.Count(l.use, "<")
	cmd.Args = cobra.ArbitraryArgs // counted below, where a refusal gets its exit code
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != want && !strings.Contains(l.use, "...") {
			return fail(cmd, usagef("it is: %s", cmd.UseLine()))
		}
		return fail(cmd, l.execute(cmd, args))
	}
	cmd.SetFlagErrorFunc(failFlag)
}

func (l leaf) execute(cmd *cobra.Command, args []string) error {
	s := &session{cmd: cmd, args: args, out: cmd.OutOrStdout()}
	if err := s.chooseFormat(); err != nil {
		return err
	}
	if err := s.chooseWait(); err != nil {
		return err
	}
	if err := s.connect(); err != nil {
		return err
	}
	if err := s.openKeyFile(); err != nil {
		return err
	}
	defer s.keyFile.close()
	if err := l.run(s); err != nil {
		return err
	}
	return s.unseen
}

// group makes cmd a command that has nothing but commands below it.
func group(cmd *cobra.Command, children ...*cobra.Command) {
	cmd.AddCommand(children...)
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return fail(cmd, usagef("there is no command %q; see %s --help", args[0], cmd.CommandPath()))
	}
	cmd.SetFlagErrorFunc(failFlag)
}

// failFlag refuses a flag, by the same way as every other refusal.
func failFlag(cmd *cobra.Command, err error) error {
	return fail(cmd, usagef("%s; see %s --help", err.Error(), cmd.CommandPath()))
}

// session is one run of a leaf.
type session struct {
	cmd         *cobra.Command
	args        []string
	client      *managementapi.Client
	format      string
	out         io.Writer
	keyFile     *keyFile        // nil: secrets are printed
	permissions permissionNames // nil: not asked for yet
	wait        time.Duration   // until every node has seen a change; zero: not at all

	mu     sync.Mutex // guards unseen: an import has several calls under way
	unseen error      // why a change is not known to be
}

// get, post and change call the routes.
func (s *session) get(query url.Values, path ...string) (json.RawMessage, error) {
	return s.client.Call(s.cmd.Context(), managementapi.Request{Method: http.MethodGet, Path: path, Query: query})
}

func (s *session) post(body any, path ...string) (json.RawMessage, error) {
	return s.perform(managementapi.Request{Method: http.MethodPost, Path: path, Body: body, IdempotencyKey: s.text("idempotency-key")})
}

// change calls a route of a thing that may be guarded by --if-match.
func (s *session) change(method string, body any, path ...string) (json.RawMessage, error) {
	r := managementapi.Request{Method: method, Path: path, Body: body}
	if s.showsSecret() {
		r.IdempotencyKey = s.text("idempotency-key")
	}
	if revision := s.text("if-match"); revision != "" {
		r.IfMatch = strconv.Quote(revision)
	}
	return s.perform(r)
}

// perform calls a route that changes something.
func (s *session) perform(r managementapi.Request) (json.RawMessage, error) {
	r.Wait = s.wait
	raw, err := s.client.Call(s.cmd.Context(), r)
	if err == nil {
		s.noteSeen(s.judgeSeen(raw))
	}
	return raw, err
}

func (s *session) noteSeen(unseen error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unseen == nil {
		s.unseen = unseen
	}
}

// Flags that a leaf has not declared do not exist, so these cannot fail.
func (s *session) text(flag string) string {
	text, _ := s.cmd.Flags().GetString(flag)
	return text
}

func (s *session) on(flag string) bool {
	on, _ := s.cmd.Flags().GetBool(flag)
	return on
}

func (s *session) number(flag string) int {
	n, _ := s.cmd.Flags().GetInt(flag)
	return n
}

func (s *session) list(flag string) []string {
	list, _ := s.cmd.Flags().GetStringArray(flag)
	return list
}

func (s *session) given(flag string) bool { return s.cmd.Flags().Changed(flag) }
