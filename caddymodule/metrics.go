package caddymodule

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// metrics counts what one engine does, across reloads. Every series exists
// from the start and no label takes anything from a request, so that no
// caller can make the number of series grow.
type metrics struct {
	admitted       []prometheus.Counter // by keystore.CredentialKind
	refused        map[string]prometheus.Counter
	tokens         map[tokenissuer.Outcome]prometheus.Counter
	rotations      prometheus.Counter
	followerErrors prometheus.Counter
	usageErrors    prometheus.Counter
	storeErrors    storeErrors
	decisions      prometheus.Histogram
	lookups        prometheus.Histogram

	collectors []prometheus.Collector
}

const metricsNamespace = "warder"

// credentialKinds in the order of their values.
var credentialKinds = []keystore.CredentialKind{
	keystore.CredentialNone, keystore.CredentialKey, keystore.CredentialAccessToken, keystore.CredentialImported,
}

func newMetrics(e *engine) *metrics {
	m := &metrics{
		refused: make(map[string]prometheus.Counter), tokens: make(map[tokenissuer.Outcome]prometheus.Counter),
		storeErrors: make(storeErrors),
	}
	m.countDecisions()
	m.countTokens()
	m.countStoreErrors()
	m.timeDecisions()
	m.gaugeEngine(e)
	m.gaugeFreshness(e)
	return m
}

func (m *metrics) countDecisions() {
	admitted := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "requests_admitted_total",
		Help: "Requests that passed, by kind of credential; none: public paths, preflights and optional ones.",
	}, []string{"credential"})
	for _, kind := range credentialKinds {
		m.admitted = append(m.admitted, admitted.WithLabelValues(kind.String()))
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "requests_refused_total",
		Help: "Requests that were refused (in shadow mode: would have been), by reason.",
	}, []string{"reason"})
	for i := range refusals {
		name := refusals[i].outcome()
		m.refused[name] = refused.WithLabelValues(name)
	}
	m.collectors = append(m.collectors, admitted, refused)
}

func (m *metrics) countTokens() {
	tokens := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "token_requests_total",
		Help: "Requests at the token, introspection and revocation endpoints, by outcome; minted: an access token was minted.",
	}, []string{"outcome"})
	for _, name := range tokenOutcomes {
		m.tokens[name] = tokens.WithLabelValues(string(name))
	}
	m.rotations = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "signing_key_rotations_total",
		Help: "Changes of the active signing key seen by this process.",
	})
	m.followerErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "feed_errors_total",
		Help: "Rounds of reading the change log that failed.",
	})
	m.usageErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "usage_errors_total",
		Help: "Batches of usage that could not be written; they are kept and tried again.",
	})
	m.collectors = append(m.collectors, tokens, m.rotations, m.followerErrors, m.usageErrors)
}

func (m *metrics) countStoreErrors() {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "store_errors_total",
		Help: "Calls that the store failed to answer, by what was asked of it.",
	}, []string{"operation"})
	for _, operation := range storeOperations {
		m.storeErrors[operation] = failures.WithLabelValues(operation)
	}
	m.collectors = append(m.collectors, failures)
}

// timeDecisions has buckets of its own: Caddy's begin where a decision is
// long over, and time the API behind with it.
func (m *metrics) timeDecisions() {
	m.decisions = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: metricsNamespace, Name: "decision_duration_seconds",
		Help:    "How long deciding about a credential took, of one request in 16, drawn at random.",
		Buckets: []float64{1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, .01, .02, .05, .1, .2, .5, 1, 5},
	})
	m.lookups = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: metricsNamespace, Name: "store_lookup_duration_seconds",
		Help:    "How long reading one key from the store took, the failed ones included.",
		Buckets: []float64{5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, .01, .02, .05, .1, .2, .5, 1, 2, 5},
	})
	m.collectors = append(m.collectors, m.decisions, m.lookups)
}

// gauge shows what is true when it is asked for.
func (m *metrics) gauge(name, help string, value func() float64) {
	m.collectors = append(m.collectors, prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: metricsNamespace, Name: name, Help: help}, value))
}

// counter shows what is counted elsewhere. Labels come in pairs.
func (m *metrics) counter(name, help string, labels prometheus.Labels, value func() uint64) {
	m.collectors = append(m.collectors, prometheus.NewCounterFunc(
		prometheus.CounterOpts{Namespace: metricsNamespace, Name: name, Help: help, ConstLabels: labels},
		func() float64 { return float64(value()) }))
}

func (m *metrics) gaugeEngine(e *engine) {
	m.gauge("view_keys", "Keys held in memory.", func() float64 { return float64(e.view.Len()) })
	m.counter("store_lookups_total", "Keys that had to be read from the store because they were not in memory.", nil,
		func() uint64 { return e.view.Loads() })
	m.gauge("feed_revision", "The last change applied by this process.", func() float64 {
		return float64(e.follower.Applied().Revision)
	})
	m.gauge("feed_lag_revisions", "Changes that were in the log when it was last read, and are not applied yet.", func() float64 {
		at := e.follower.Progress()
		return float64(max(at.Head.Revision-at.Applied.Revision, 0))
	})
	m.counter("log_replaced_total", "Times that the log did not hold any more what was applied, so that all was loaded anew.", nil,
		func() uint64 { return e.follower.Rounds().Lost })
	const wakeups, help = "feed_wakeups_total", "Rounds of reading the change log, by what they were begun for."
	for cause, count := range map[string]func(keystore.Rounds) uint64{
		"notification": func(r keystore.Rounds) uint64 { return r.Hinted },
		"poll":         func(r keystore.Rounds) uint64 { return r.Polled },
		"own":          func(r keystore.Rounds) uint64 { return r.Asked },
	} {
		m.counter(wakeups, help, prometheus.Labels{"cause": cause}, func() uint64 { return count(e.follower.Rounds()) })
	}
}

// gaugeFreshness is by the strictest policy that is running.
func (m *metrics) gaugeFreshness(e *engine) {
	m.gauge("lease_valid", "1 while what this process has in memory is no older than max_staleness, else 0.", func() float64 {
		if e.lease.Valid(time.Now(), e.strictest().MaxStaleness) {
			return 1
		}
		return 0
	})
	m.gauge("lease_remaining_seconds", "For how long this process decides without hearing of the store; +Inf: it alone writes it.", func() float64 {
		return secondsLeft(e.lease.Remaining(time.Now(), e.strictest().Bound()))
	})
	m.gauge("knowledge_age_seconds", "Since the last complete reading of the store began; 0: nothing can change unseen.", func() float64 {
		if fresh := e.follower.Progress().Fresh; e.store.shared() && !fresh.IsZero() {
			return time.Since(fresh).Seconds()
		}
		return 0
	})
	m.counter("stale_requests_total", "Requests decided on what is older than max_staleness, by on_stale serve.", nil, e.lease.Served)
}

// secondsLeft: what has no end is infinite.
func secondsLeft(d time.Duration) float64 {
	if d == math.MaxInt64 {
		return math.Inf(1)
	}
	return d.Seconds()
}

// register shows the counters in a configuration's registry. Each
// configuration has a registry of its own; the counters go on.
func (m *metrics) register(registry *prometheus.Registry) error {
	for _, c := range m.collectors {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}
