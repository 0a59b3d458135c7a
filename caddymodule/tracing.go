package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/warderhq/warder/keystore"
)

// Of a request that Caddy's directive "tracing" records, the decision is a
// span, and below it the look-up that it had to wait for. They hold
// identifiers and fixed words alone: no text of an error, and nothing that the
// caller sent.
const (
	instrumentation = "github.com/warderhq/warder"

	spanDecision = "warder.decide"
	spanLookup   = "warder.lookup"

	attributeOutcome      = attribute.Key("warder.outcome")
	attributeReason       = attribute.Key("warder.reason")     // of a refusal, as in metrics and events
	attributeCredential   = attribute.Key("warder.credential") // as in metrics
	attributeKeyID        = attribute.Key("warder.key.id")
	attributeOrganization = attribute.Key("warder.organization")
	attributeShadow       = attribute.Key("warder.shadow") // the request passes whatever was decided

	// Of OpenTelemetry's semantic conventions.
	attributeErrorType   = attribute.Key("error.type")
	attributeDBSystem    = attribute.Key("db.system.name")
	attributeDBOperation = attribute.Key("db.operation.name")
)

// Outcomes of a decision.
const (
	outcomeAdmitted = "admitted"
	outcomeRefused  = "refused"
	outcomeUnnamed  = "unnamed" // passes without a credential, by the option "optional"
)

// decideTraced is decide, with a span if the request is recorded.
func (h *Handler) decideTraced(r *http.Request, earlier *keystore.Principal, now time.Time) (keystore.Principal, error) {
	if !trace.SpanFromContext(r.Context()).IsRecording() {
		return h.decide(r, earlier, now)
	}
	ctx, span := startSpan(r.Context(), spanDecision, trace.WithTimestamp(now))
	defer span.End()
	p, err := h.decide(r.WithContext(ctx), earlier, now)
	h.describe(span, p, err)
	return p, err
}

// describe says in a decision's span what was decided about whom.
func (h *Handler) describe(span trace.Span, p keystore.Principal, err error) {
	if p.Record != nil {
		span.SetAttributes(attributeCredential.String(p.Kind.String()),
			attributeKeyID.String(string(p.Record.ID)), attributeOrganization.String(p.Record.Organization))
	}
	if h.Shadow {
		span.SetAttributes(attributeShadow.Bool(true))
	}
	switch {
	case err == nil:
		span.SetAttributes(attributeOutcome.String(outcomeAdmitted))
	case h.Optional && errors.Is(err, keystore.ErrNoCredential):
		span.SetAttributes(attributeOutcome.String(outcomeUnnamed))
	default:
		f := refusalOf(err)
		span.SetAttributes(attributeOutcome.String(outcomeRefused), attributeReason.String(f.outcome()))
		if f.status == http.StatusServiceUnavailable { // an outage; all else is a decision as good as any
			failSpan(span, f.code)
		}
	}
}

// traced gives each look-up in the store a span, if what it is done for is
// recorded. A look-up that several wait for belongs to the one that began it.
type traced struct {
	keystore.Store
	attributes trace.SpanStartEventOption
}

// newTraced names the driver's database as the semantic conventions do.
func newTraced(store keystore.Store, driver StoreModule) traced {
	system := driver.CaddyModule().ID.Name()
	if system == "postgres" {
		system = "postgresql"
	}
	return traced{store, trace.WithAttributes(attributeDBSystem.String(system), attributeDBOperation.String("lookup"))}
}

func (t traced) Lookup(ctx context.Context, id keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return t.Store.Lookup(ctx, id)
	}
	ctx, span := startSpan(ctx, spanLookup, trace.WithSpanKind(trace.SpanKindClient), t.attributes)
	defer span.End()
	rec, at, err := t.Store.Lookup(ctx, id)
	switch {
	case err != nil:
		failSpan(span, lookupError(err))
	case rec.ID != "": // what was looked for may be derived from a secret; a key's id is not
		span.SetAttributes(attributeKeyID.String(string(rec.ID)))
	}
	return rec, at, err
}

// lookupError is the class of what went wrong, for error.type.
func lookupError(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, keystore.ErrCorrupt):
		return "corrupt"
	default:
		return "unavailable"
	}
}

// startSpan begins a span below the one of ctx, which is recorded, and where
// that one goes.
func startSpan(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer(instrumentation).Start(ctx, name, options...)
}

// failSpan marks a span as failed, by a word of ours.
func failSpan(span trace.Span, class string) {
	span.SetAttributes(attributeErrorType.String(class))
	span.SetStatus(codes.Error, class)
}

// Interface guards.
var _ keystore.Store = traced{}
