package deploy

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	engine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// A course is what a series does while Prometheus watches, by the minutes that
// it has been watching for. Series of which nothing is said stay as they were
// scraped.
type course map[string]func(minute float64) float64

// gone is a series that there is none of.
var gone func(float64) float64

func is(value float64) func(float64) float64 { return func(float64) float64 { return value } }
func grows(perMinute float64) func(float64) float64 {
	return func(minute float64) float64 { return perMinute * minute }
}

// growsLate begins an hour before the end.
func growsLate(perMinute float64) func(float64) float64 {
	return func(minute float64) float64 { return perMinute * max(0, minute-watched.Minutes()+60) }
}

// usual is a node with something to do and nothing to complain of.
var usual = course{
	`warder_requests_admitted_total{credential="key"}`:           grows(60_000),
	`warder_requests_refused_total{reason="credential_missing"}`: grows(120),
	`warder_token_requests_total{outcome="minted"}`:              grows(60),
	"warder_store_lookups_total":                                 grows(30),
	"warder_knowledge_age_seconds":                               is(2),
	"warder_lease_remaining_seconds":                             is(8),
	`warder_decision_duration_seconds_bucket{le="1e-06"}`:        grows(3700),
}

// disturbances are what each alert is for.
var disturbances = map[string]course{
	"WarderAbsent":          {"warder_lease_valid": gone},
	"WarderNodeDown":        {"up": is(0)},
	"WarderNodeStale":       {"warder_lease_valid": is(0)},
	"WarderServingStale":    {"warder_stale_requests_total": grows(1)},
	"WarderLeaseNearlyOver": {"warder_knowledge_age_seconds": is(7), "warder_lease_remaining_seconds": is(3)},
	"WarderUndecided":       {`warder_requests_refused_total{reason="temporarily_unavailable"}`: grows(1)},
	"WarderFeedErrors":      {"warder_feed_errors_total": grows(1)},
	"WarderFeedLag":         {"warder_feed_lag_revisions": is(3)},
	"WarderLogReplaced":     {"warder_log_replaced_total": growsLate(1)},
	"WarderStoreErrors":     {`warder_store_errors_total{operation="heartbeat"}`: grows(1)},
	"WarderUsageNotWritten": {"warder_usage_errors_total": grows(1)},
	"WarderRefusalSpike":    {`warder_requests_refused_total{reason="blocked"}`: growsLate(600)},
	"WarderGuessing":        {`warder_token_requests_total{outcome="too_many_requests"}`: grows(1)},
	"WarderDecisionsSlow":   {`warder_decision_duration_seconds_bucket{le="0.02"}`: grows(3700), `warder_decision_duration_seconds_bucket{le="1e-06"}`: is(0)},
	"WarderCacheTooSmall":   {"warder_store_lookups_total": grows(12_000)},
	"WarderReloadFailed":    {"caddy_config_last_reload_successful": is(0)},
}

// Each alert fires on what it is for, for as long as it is to be so, and no
// alert on a node that works as usual, or has a store of its own.
func TestAlertsFire(t *testing.T) {
	alone := maps.Clone(usual)
	delete(alone, "warder_knowledge_age_seconds") // as scraped: 0, and +Inf left
	delete(alone, "warder_lease_remaining_seconds")
	quiet, single := follow(show(t), usual), follow(show(t), alone)
	for _, rule := range alerts(t) {
		disturbance, ok := disturbances[rule.Alert]
		if !ok {
			t.Errorf("nothing is said of what %s is for", rule.Alert)
			continue
		}
		disturbed := follow(show(t), overlaid(usual, disturbance))
		for at := watched - time.Duration(rule.For); at <= watched; at += time.Minute / 2 {
			if !fires(t, rule.Expr, disturbed, at) {
				t.Errorf("%s does not hold for %s when it should", rule.Alert, rule.For)
				break
			}
		}
		if fires(t, rule.Expr, quiet, watched) || fires(t, rule.Expr, single, watched) {
			t.Errorf("%s fires when all is as usual", rule.Alert)
		}
	}
}

func overlaid(usual, disturbance course) course {
	both := maps.Clone(usual)
	maps.Copy(both, disturbance)
	return both
}

// watched is how long Prometheus has been watching.
const watched = 26 * time.Hour

var judge = engine.NewEngine(engine.EngineOpts{MaxSamples: 1e7, Timeout: time.Minute, Parser: promql})

func fires(t *testing.T, expr string, series memory, at time.Duration) bool {
	t.Helper()
	query, err := judge.NewInstantQuery(t.Context(), series, nil, expr, time.Unix(0, 0).Add(at))
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	result, err := query.Exec(t.Context()).Vector()
	if err != nil {
		t.Fatal(err)
	}
	return len(result) > 0
}

// follow lets the scraped series take their courses, a sample a minute. The
// buckets of a histogram between two that are told of are as the one below.
func follow(shown []sample, c course) (series memory) {
	below := make(map[string]func(float64) float64)
	for _, s := range shown {
		value, told := c[shortName(s)]
		if name := s.name(); strings.HasSuffix(name, "_bucket") {
			if !told && below[name] != nil {
				value, told = below[name], true
			}
			below[name] = value
		}
		switch {
		case !told:
			value = is(s.value)
		case value == nil:
			continue
		}
		var points []chunks.Sample
		for at := time.Duration(0); at <= watched; at += time.Minute {
			points = append(points, point{at.Milliseconds(), value(at.Minutes())})
		}
		series = append(series, storage.NewListSeries(s.Labels, points))
	}
	return series
}

// shortName is the series as Warder shows it.
func shortName(s sample) string {
	if rest := labels.NewBuilder(s.Labels).Del(labels.MetricName, "job", "instance").Labels(); !rest.IsEmpty() {
		return s.name() + rest.String()
	}
	return s.name()
}

// memory is a database of series.
type memory []storage.Series

func (m memory) Querier(_, _ int64) (storage.Querier, error) { return m, nil }

func (m memory) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := slices.DeleteFunc(slices.Clone(m), func(s storage.Series) bool {
		return slices.ContainsFunc(matchers, func(l *labels.Matcher) bool { return !l.Matches(s.Labels().Get(l.Name)) })
	})
	return &selection{series: found, at: -1}
}

func (memory) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (memory) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (memory) Close() error { return nil }

// selection is what was found in a memory.
type selection struct {
	series []storage.Series
	at     int
}

func (s *selection) Next() bool                      { s.at++; return s.at < len(s.series) }
func (s *selection) At() storage.Series              { return s.series[s.at] }
func (*selection) Err() error                        { return nil }
func (*selection) Warnings() annotations.Annotations { return nil }

// point is a value at a time, in milliseconds.
type point struct {
	t int64
	f float64
}

func (p point) T() int64                    { return p.t }
func (p point) F() float64                  { return p.f }
func (point) ST() int64                     { return 0 }
func (point) H() *histogram.Histogram       { return nil }
func (point) FH() *histogram.FloatHistogram { return nil }
func (point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample         { return p }
