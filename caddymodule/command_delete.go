package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

func deleteKeysFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Bool("expired", false, "All keys that have expired, instead of ids")
	flags.String("organization", "", "With --expired: only keys of this organization")
	flags.Bool("dry-run", false, "Only say what would be deleted")
}

func deleteKeys(s *session) error {
	switch expired := s.on("expired"); {
	case expired == (len(s.args) > 0):
		return usagef("give ids of keys, or --expired")
	case !expired && s.given("organization"):
		return usagef("--organization: is for --expired")
	case expired:
		return s.deleteExpired()
	case len(s.args) == 1 && !s.on("dry-run"):
		return s.deleteOne()
	default:
		return s.deleteNamed()
	}
}

func (s *session) deleteOne() error {
	raw, err := s.callKey(http.MethodDelete, nil)
	if err != nil {
		return err
	}
	return s.printDeleted(raw, s.args[0])
}

func (s *session) deleteNamed() error {
	for _, id := range s.args {
		if err := s.checkKeyID(id); err != nil {
			return err
		}
	}
	sum := managementapi.DeletedKeys{Deleted: []keystore.KeyID{}, Failed: []managementapi.FailedDelete{}}
	for ids := range slices.Chunk(s.args, keystore.MaximumBulk) {
		if err := s.bulk(&sum, map[string]any{"ids": ids}); err != nil {
			return err
		}
	}
	return s.printDeletion(&sum)
}

// deleteExpired goes on as long as there are more than one call takes. A dry
// run would meet the same ones again, so it says only that there are more.
func (s *session) deleteExpired() error {
	body := map[string]any{"expired": true}
	if s.given("organization") {
		body["organization"] = s.text("organization")
	}
	sum := managementapi.DeletedKeys{Deleted: []keystore.KeyID{}, Failed: []managementapi.FailedDelete{}}
	for {
		before := len(sum.Deleted)
		sum.Failed = sum.Failed[:0] // what stays is met again
		if err := s.bulk(&sum, body); err != nil {
			return err
		}
		if !sum.More || sum.DryRun || len(sum.Deleted) == before {
			return s.printDeletion(&sum)
		}
	}
}

// bulk deletes once and adds what came of it to sum.
func (s *session) bulk(sum *managementapi.DeletedKeys, body map[string]any) error {
	body["dry_run"] = s.on("dry-run")
	raw, err := s.post(body, "keys", "delete")
	if err == nil {
		var done managementapi.DeletedKeys
		if done, err = decode[managementapi.DeletedKeys](raw); err == nil {
			sum.Deleted, sum.Failed = append(sum.Deleted, done.Deleted...), append(sum.Failed, done.Failed...)
			sum.More, sum.DryRun = done.More, done.DryRun
			return nil
		}
	}
	if len(sum.Deleted) > 0 { // what is gone is said, whatever comes then
		_ = s.printDeletion(sum)
	}
	return err
}

func (s *session) printDeletion(sum *managementapi.DeletedKeys) error {
	if err := s.showDeletion(sum); err != nil {
		return err
	}
	if len(sum.Failed) == 0 {
		return nil
	}
	code, reasons := exitNotFound, []string{}
	for _, f := range sum.Failed {
		if f.Code != "key_not_found" {
			code = exitState
		}
		reasons = append(reasons, string(f.ID)+": "+f.Detail)
	}
	return &outcomeError{code, fmt.Sprintf("%d of %d keys stay: %s", len(sum.Failed), len(sum.Failed)+len(sum.Deleted), strings.Join(reasons, "; "))}
}

func (s *session) showDeletion(sum *managementapi.DeletedKeys) error {
	if s.format == formatJSON {
		raw, err := json.Marshal(sum)
		if err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return s.printJSON(raw)
	}
	verb := "deleted "
	if sum.DryRun {
		verb = "would delete "
	}
	var b strings.Builder
	for _, id := range sum.Deleted {
		b.WriteString(verb + printable(string(id)) + "\n")
	}
	if sum.DryRun && sum.More {
		b.WriteString("and more\n")
	}
	return s.print(b.String())
}
