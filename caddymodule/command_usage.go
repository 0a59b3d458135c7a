package caddymodule

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

func usageCommand() caddycmd.Command {
	return topCommand(leaf{"usage", "Shows how often keys were used", usageFlags, showUsage}, `Shows how often keys were used: of each month, or day, how many requests were
let pass and how many refused, and why. The default is the present month. Days
are kept for 92 days, months for good; both are those of UTC.`)
}

func usageFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("organization", "", "Only keys of this organization")
	flags.String("key", "", "Only this key, by id")
	flags.String("by", "", "month (default) or day")
	flags.String("from", "", "First month, such as 2026-11, or day, such as 2026-11-22")
	flags.String("to", "", "Last month or day")
	flags.Bool("by-key", false, "A row for each key")
}

func showUsage(s *session) error {
	if s.given("key") {
		if err := s.checkKeyID(s.text("key")); err != nil {
			return err
		}
	}
	query := s.filters("organization", "key", "by", "from", "to")
	if s.on("by-key") {
		query.Set("group", "key")
	}
	raw, err := s.get(query, "usage")
	if err != nil {
		return err
	}
	rows, _, err := page("usage", raw)
	if err != nil {
		return err
	}
	if sums, err := decode[managementapi.Usage](raw); err != nil {
		return err
	} else if sums.More {
		s.cmd.PrintErrln("There is more than one answer holds: ask for fewer periods, or for one organization.")
	}
	if s.on("by-key") {
		return printAll(s, rows, append([]string{"KEY"}, usageHead...), func(u *managementapi.UsageSum) []string {
			return append([]string{string(u.Key)}, usageRow(u)...)
		})
	}
	return printAll(s, rows, append(usageHead, "KEYS"), func(u *managementapi.UsageSum) []string {
		return append(usageRow(u), strconv.Itoa(u.Keys))
	})
}

var usageHead = []string{"PERIOD", "REQUESTS", "ALLOWED", "REFUSED"}

func usageRow(u *managementapi.UsageSum) []string {
	return []string{u.Period, strconv.FormatUint(u.Requests, 10), strconv.FormatUint(u.Allowed, 10), refusedText(u.Refused)}
}

// refusedText sums up refusals, then tells them apart.
func refusedText(refused map[string]uint64) string {
	var sum uint64
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(refused)) {
		if n := refused[reason]; n > 0 {
			sum += n
			reasons = append(reasons, fmt.Sprintf("%s %d", reason, n))
		}
	}
	if sum == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(reasons, ", "))
}
