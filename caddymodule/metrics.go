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

	collectors []prometheus.Collector
}

const metricsNamespace = "warder"

// credentialKinds in the order of their values.
var credentialKinds = []keystore.CredentialKind{
	keystore.CredentialNone, keystore.CredentialKey, keystore.CredentialAccessToken, keystore.CredentialImported,
}

func newMetrics(e *engine) *metrics {
	m := &metrics{refused: make(map[string]prometheus.Counter), tokens: make(map[tokenissuer.Outcome]prometheus.Counter)}
	m.countDecisions()
	m.countTokens()
	m.gaugeEngine(e)
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

func (m *metrics) gaugeEngine(e *engine) {
	gauge := func(name, help string, value func() float64) {
		m.collectors = append(m.collectors, prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: metricsNamespace, Name: name, Help: help}, value))
	}
	gauge("view_keys", "Keys held in memory.", func() float64 { return float64(e.view.Len()) })
	gauge("feed_revision", "The last change applied by this process.", func() float64 {
		return float64(e.follower.Applied().Revision)
	})
	gauge("lease_valid", "1 while this process may trust what it has in memory, else 0.", func() float64 {
		if e.lease.Valid(time.Now(), math.MaxInt64) {
			return 1
		}
		return 0
	})
	m.collectors = append(m.collectors, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: metricsNamespace, Name: "store_lookups_total",
		Help: "Keys that had to be read from the store because they were not in memory.",
	}, func() float64 { return float64(e.view.Loads()) }))
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
