package caddymodule

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
	"github.com/warderhq/warder/tokenissuer"
)

func signingKeyCommands() []*cobra.Command {
	return []*cobra.Command{
		leaf{"list", "Lists the keys that sign access tokens", nil, listSigningKeys}.command(),
		leaf{"rotate", "Lets the next key sign", rotateSigningKeysFlags, rotateSigningKeys}.command(),
	}
}

func listSigningKeys(s *session) error {
	raw, err := s.client.Call(s.cmd.Context(), managementapi.Request{Method: http.MethodGet, Path: []string{"signing-keys"}})
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	ring, err := decode[tokenissuer.RingInfo](raw)
	if err != nil {
		return err
	}
	rows := [][]string{{"KID", "ALGORITHM", "ROLE", "CREATED AT", "SIGNS SINCE", "SIGNS FROM", "SIGNS UNTIL", "VERIFIES UNTIL"}}
	for i := range ring.Keys {
		k := &ring.Keys[i]
		until := k.RetiresAt
		if until.IsZero() {
			until = k.Retired
		}
		rows = append(rows, []string{
			k.KID, k.Algorithm, k.Role, instant(&k.Created), instant(&k.Activated), instant(&k.ActivatesAt), instant(&until), instant(&k.DropsAt),
		})
	}
	return s.printTable(rows)
}

func rotateSigningKeysFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("emergency", false, "Distrust every present key at once, and all access tokens with it")
}

func rotateSigningKeys(s *session) error {
	raw, err := s.post(map[string]any{"emergency": s.on("emergency")}, "signing-keys", "rotate")
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	done, err := decode[managementapi.SigningRotation](raw)
	if err != nil {
		return err
	}
	verb := "signs since "
	if done.Pending {
		verb = "is published and will sign from "
	}
	return s.print(printable(done.KID) + " " + verb + instant(&done.SignsAt) + "\n")
}
