package caddymodule

import (
	"fmt"
	"io"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "warder",
		Usage: "keys|organizations|signing-keys",
		Short: "Manages the API keys of a running Warder",
		Long:  "Manages the API keys of a running Warder." + commandNotes,
		CobraFunc: func(cmd *cobra.Command) {
			var children []*cobra.Command
			for _, c := range Commands() {
				child := &cobra.Command{Use: c.Name + " " + c.Usage, Short: c.Short, Long: c.Long}
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
		{
			Name: "keys", Usage: "<command>", Short: "Makes, lists and changes API keys",
			Long:      "Makes, lists and changes API keys." + commandNotes,
			CobraFunc: func(cmd *cobra.Command) { group(cmd, keyCommands()...) },
		},
		{
			Name: "organizations", Usage: "<command>", Short: "Lists organizations and changes their defaults",
			Long:      "Lists organizations and changes their defaults. An organization is made with its first key: see keys create." + commandNotes,
			CobraFunc: func(cmd *cobra.Command) { group(cmd, organizationCommands()...) },
		},
		{
			Name: "signing-keys", Usage: "<command>", Short: "Lists and rotates the keys that sign access tokens",
			Long:      "Lists and rotates the keys that sign access tokens." + commandNotes,
			CobraFunc: func(cmd *cobra.Command) { group(cmd, signingKeyCommands()...) },
		},
	}
}

const commandNotes = `

The commands talk to the admin endpoint of a running server, found as Caddy's
own commands find it: --address, else the one in --config, else the default.

Exit codes: 0 done; 1 failed; 2 wrong usage or a refused value; 3 no Warder can
be reached there; 4 no such key or organization; 5 refused by the state that it
is in; 6 not allowed; 7 the server cannot answer now, try again.`

// leaf is one command. Its arguments are named in use; none is optional.
type leaf struct {
	use   string
	short string
	flags func(*cobra.Command)
	run   func(*session) error
}

func (l leaf) command() *cobra.Command {
	cmd := &cobra.Command{Use: l.use, Short: l.short}
	flags := cmd.Flags()
	flags.String("address", "", "Address of the admin endpoint (default "+caddy.DefaultAdminListen+")")
	flags.StringP("config", "c", "", "Configuration file that names the admin endpoint, if --address does not")
	flags.StringP("adapter", "a", "", "Adapter for --config")
	flags.Bool("json", false, "Print the server's JSON: short for --format json")
	flags.String("format", "", "table (default), json, or, where a secret is shown, env")
	if l.flags != nil {
		l.flags(cmd)
	}
	want := strings.Count(l.use, "<")
	cmd.Args = cobra.ArbitraryArgs // counted below, where a refusal gets its exit code
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != want {
			return fail(cmd, usagef("it is: %s", cmd.UseLine()))
		}
		return fail(cmd, l.execute(cmd, args))
	}
	cmd.SetFlagErrorFunc(failFlag)
	return cmd
}

func (l leaf) execute(cmd *cobra.Command, args []string) error {
	s := &session{cmd: cmd, args: args, out: cmd.OutOrStdout()}
	if err := s.chooseFormat(); err != nil {
		return err
	}
	if err := s.connect(); err != nil {
		return err
	}
	return l.run(s)
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
	cmd    *cobra.Command
	args   []string
	client *managementapi.Client
	format string
	out    io.Writer
}

// connect finds the admin endpoint as Caddy's own commands do.
func (s *session) connect() error {
	address, err := caddycmd.DetermineAdminAPIAddress(s.text("address"), nil, s.text("config"), s.text("adapter"))
	if err != nil {
		return fmt.Errorf("finding the admin endpoint: %w", err)
	}
	endpoint, err := endpointOf(address)
	if err != nil {
		return err
	}
	s.client = managementapi.NewClient(endpoint, adminPrefix+"/v1")
	return nil
}

const defaultAdminPort = 2019

func endpointOf(address string) (managementapi.Endpoint, error) {
	a, err := caddy.ParseNetworkAddressWithDefaults(address, "tcp", defaultAdminPort)
	if err != nil || a.PortRangeSize() > 1 || a.IsFdNetwork() {
		return managementapi.Endpoint{}, usagef("--address: %q is not the address of one endpoint, such as localhost:2019 or unix//run/warder.sock", address)
	}
	if a.IsUnixNetwork() {
		file, _, _ := strings.Cut(a.Host, "|") // without the permission bits
		return managementapi.Endpoint{Network: "unix", Address: file}, nil
	}
	return managementapi.Endpoint{Network: a.Network, Address: a.JoinHostPort(0)}, nil
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

func (s *session) list(flag string) []string {
	list, _ := s.cmd.Flags().GetStringArray(flag)
	return list
}

func (s *session) given(flag string) bool { return s.cmd.Flags().Changed(flag) }
