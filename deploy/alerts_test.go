package deploy

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
)

// alerts are the rules, which must pass as in "promtool check rules".
func alerts(t *testing.T) (rules []rulefmt.Rule) {
	t.Helper()
	file, errs := rulefmt.ParseFile("prometheus/alerts.yaml", false, model.LegacyValidation, promql, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

// Every alert asks for what a running Warder shows, names only labels that
// there are, and says how grave it is and what to do.
func TestAlerts(t *testing.T) {
	pages := readFile(t, "../docs/observability.md")
	var seen []string
	for _, rule := range alerts(t) {
		if slices.Contains(seen, rule.Alert) || !strings.HasPrefix(rule.Alert, "Warder") {
			t.Errorf("%q is no name of its own", rule.Alert)
		}
		seen = append(seen, rule.Alert)
		known := checkExpression(t, rule.Alert, rule.Expr, show(t))
		for _, text := range rule.Annotations {
			for _, name := range labelOf.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(known, name[1]) {
					t.Errorf("%s: %q speaks of the label %s, which no series has", rule.Alert, text, name[1])
				}
			}
		}
		checkRemedy(t, rule, pages)
	}
	for _, heading := range regexp.MustCompile(`(?m)^### (Warder\w+)$`).FindAllStringSubmatch(pages, -1) {
		if !slices.Contains(seen, heading[1]) {
			t.Errorf("docs/observability.md says what to do about %s, which is no alert", heading[1])
		}
	}
}

var labelOf = regexp.MustCompile(`\$labels\.(\w+)`)

const runbook = "https://github.com/warderhq/warder/blob/main/docs/observability.md#"

func checkRemedy(t *testing.T, rule rulefmt.Rule, pages string) {
	t.Helper()
	if severity := rule.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, severity) {
		t.Errorf("%s has the severity %q", rule.Alert, severity)
	}
	if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
		t.Errorf("%s has no summary or no description", rule.Alert)
	}
	if want := runbook + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
		t.Errorf("%s sends to %s, want %s", rule.Alert, rule.Annotations["runbook_url"], want)
	}
	if !strings.Contains(pages, "\n### "+rule.Alert+"\n") {
		t.Errorf("docs/observability.md does not say what to do about %s", rule.Alert)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
