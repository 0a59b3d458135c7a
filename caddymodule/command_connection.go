package caddymodule

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// endpointFlags say where the admin endpoint is.
func endpointFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("address", "", "Address of the admin endpoint (default "+caddy.DefaultAdminListen+")")
	flags.StringP("config", "c", "", "Configuration file that names the admin endpoint, if --address does not")
	flags.StringP("adapter", "a", "", "Adapter for --config")
}

func connectionFlags(cmd *cobra.Command) {
	endpointFlags(cmd)
	flags := cmd.Flags()
	flags.String("url", "", "Management API mounted elsewhere, such as https://keys.example.com/v1")
	flags.String("credential-file", "", "File with the API key for --url (default: the environment variable "+credentialVariable+")")
}

// connect finds the API that the command is about.
func (s *session) connect() error {
	if s.given("url") {
		return s.connectRemote()
	}
	if s.given("credential-file") {
		return usagef("--credential-file: is for --url; the admin endpoint takes no credential")
	}
	return s.connectLocal()
}

// connectLocal finds the admin endpoint as Caddy's own commands do.
func (s *session) connectLocal() error {
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

func (s *session) connectRemote() error {
	for _, other := range []string{"address", "config", "adapter"} {
		if s.given(other) {
			return usagef("--url and --%s exclude each other", other)
		}
	}
	credential, err := s.credential()
	if err != nil {
		return err
	}
	if s.client, err = managementapi.NewRemoteClient(s.text("url"), credential); err != nil {
		return usagef("--url: %v", err)
	}
	return nil
}

const (
	credentialVariable = "WARDER_API_KEY" // as --format env names it
	maxCredentialFile  = 64 << 10
)

// credential is never an argument: those can be read by every process.
func (s *session) credential() (keystore.Secret, error) {
	name := s.text("credential-file")
	if name == "" {
		text := os.Getenv(credentialVariable)
		if text == "" {
			return "", usagef("--url: takes an API key, in the environment variable %s or with --credential-file", credentialVariable)
		}
		return keystore.Secret(text), nil
	}
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("--credential-file: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCredentialFile))
	if err != nil {
		return "", fmt.Errorf("--credential-file: %w", err)
	}
	return keystore.Secret(strings.TrimSpace(string(text))), nil
}
