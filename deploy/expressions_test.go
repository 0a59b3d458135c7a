package deploy

import (
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// checkExpression holds an expression to what a running Warder shows: each
// selector finds a series, and each label that is grouped by or matched on is
// one that the series have. It returns these labels.
func checkExpression(t *testing.T, what, text string, shown []sample) (known []string) {
	t.Helper()
	expr, err := promql.ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return nil
	}
	for _, selector := range selectors(expr) {
		found := matching(shown, selector.LabelMatchers)
		if len(found) == 0 {
			t.Errorf("%s: nothing that Warder shows is %s", what, selector)
		}
		for _, s := range found {
			s.Range(func(l labels.Label) { known = append(known, l.Name) })
		}
	}
	for _, name := range labelsUsed(expr) {
		if !slices.Contains(known, name) {
			t.Errorf("%s: no series has the label %s", what, name)
		}
	}
	return known
}

func selectors(expr parser.Expr) (found []*parser.VectorSelector) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			found = append(found, selector)
		}
		return nil
	})
	return found
}

// labelsUsed are those that stand behind by, without, on, ignoring and group_.
func labelsUsed(expr parser.Expr) (used []string) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			used = append(used, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				used = append(append(used, n.VectorMatching.MatchingLabels...), n.VectorMatching.Include...)
			}
		}
		return nil
	})
	return used
}

func matching(samples []sample, matchers []*labels.Matcher) (found []sample) {
	for _, s := range samples {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Get(m.Name)) }) {
			found = append(found, s)
		}
	}
	return found
}

// The check itself refuses what no Warder shows.
func TestWrongExpressionsAreFound(t *testing.T) {
	for _, text := range []string{
		"rate(warder_requests_total[5m])",
		`warder_requests_refused_total{reason="made_up"}`,
		`warder_requests_refused_total{cause="blocked"}`,
		"sum by (reasons) (warder_requests_refused_total)",
		"warder_lease_valid and on (node) warder_view_keys",
		"rate(warder_lease_valid)",
	} {
		probe := new(testing.T)
		if checkExpression(probe, "probe", text, show(t)); !probe.Failed() {
			t.Errorf("%s passes", text)
		}
	}
}
