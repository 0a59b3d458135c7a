package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

// healthTimeout bounds the whole of a probe.
const healthTimeout = 2 * time.Second

func healthCommand() caddycmd.Command {
	return caddycmd.Command{
		Name: "health", Usage: "[--live]", Short: "Says whether this node may decide: for probes",
		Long: `Says whether this node may decide, in one line and within two seconds. It takes
no credential, so that it can be a container's HEALTHCHECK as it is.

It asks the admin endpoint of the running server, found as Caddy's own commands
find it: --address, else the one in --config, else the default, which the
environment variable CADDY_ADMIN sets. With --url it asks the directive
warder_health of a site.

Exit codes: 0 well; 2 wrong usage; 3 nothing answers, or no Warder; 7 it runs,
and may not decide.`,
		CobraFunc: func(cmd *cobra.Command) {
			endpointFlags(cmd)
			cmd.Flags().Bool("live", false, "Ask only whether the server lives")
			cmd.Flags().String("url", "", "Where warder_health is served, such as http://127.0.0.1:8080")
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return fail(cmd, usagef("it is: %s", cmd.UseLine()))
				}
				return fail(cmd, probe(&session{cmd: cmd, out: cmd.OutOrStdout()}))
			}
			cmd.SetFlagErrorFunc(failFlag)
		},
	}
}

func probe(s *session) error {
	ctx, cancel := context.WithTimeout(s.cmd.Context(), healthTimeout)
	defer cancel()
	var raw json.RawMessage
	var err error
	if s.given("url") {
		raw, err = s.probeSite(ctx)
	} else {
		raw, err = s.probeEndpoint(ctx)
	}
	if err != nil {
		return err
	}
	health, err := decode[managementapi.Health](raw)
	if err != nil {
		return err
	}
	return s.print(printable(health.Status) + "\n")
}

// probeEndpoint asks the admin endpoint. That a Warder answers at all is its
// liveness.
func (s *session) probeEndpoint(ctx context.Context) (json.RawMessage, error) {
	if err := s.connectLocal(); err != nil {
		return nil, err
	}
	if !s.on("live") {
		return s.client.Call(ctx, managementapi.Request{Method: http.MethodGet, Path: []string{"health"}})
	}
	_, err := s.client.Call(ctx, managementapi.Request{Method: http.MethodGet})
	return json.RawMessage(`{"status":"` + managementapi.HealthOK + `"}`), err
}

func (s *session) probeSite(ctx context.Context) (json.RawMessage, error) {
	for _, other := range []string{"address", "config", "adapter"} {
		if s.given(other) {
			return nil, usagef("--url and --%s exclude each other", other)
		}
	}
	base := strings.TrimSuffix(s.text("url"), "/")
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, usagef("--url: must be a URL such as http://127.0.0.1:8080")
	}
	path := readyPath
	if s.on("live") {
		path = livePath
	}
	raw, err := managementapi.Fetch(ctx, base+path)
	if errors.Is(err, managementapi.ErrNotWarder) {
		err = fmt.Errorf("%w; name a site with the directive warder_health", err)
	}
	return raw, err
}
