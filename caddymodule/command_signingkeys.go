package caddymodule

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
	"github.com/warderhq/warder/tokenissuer"
)

func signingKeyCommands() []*cobra.Command {
	return []*cobra.Command{
		leaf{"list", "Lists the keys that sign access tokens", nil, listSigningKeys}.command(),
		leaf{"rotate", "Lets the next key sign", rotateSigningKeysFlags, rotateSigningKeys}.changing(),
		leaf{"interval <days>", "Changes how often the next key takes over", nil, setSigningKeyInterval}.changing(),
	}
}

func listSigningKeys(s *session) error {
	raw, err := s.get(nil, "signing-keys")
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
	if err := s.printTable(rows); err != nil {
		return err
	}
	return s.print(fmt.Sprintf("The next key takes over every %d days, and at %s.\n", ring.Interval, instant(&ring.RotatesAt)))
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
	if done.Upcoming {
		verb = "is published and will sign from "
	}
	return s.print(printable(done.KID) + " " + verb + instant(&done.SignsAt) + "\n")
}

func setSigningKeyInterval(s *session) error {
	n, err := strconv.Atoi(strings.TrimSuffix(s.args[0], "d"))
	if err != nil {
		return usagef("%q is no number of days such as 42", s.args[0])
	}
	raw, err := s.change(http.MethodPatch, map[string]any{"signing_key_interval_days": n}, "settings")
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		return s.printJSON(raw)
	}
	return s.print(fmt.Sprintf("The next key takes over every %d days.\n", n))
}
