package caddymodule

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// requireLogFilter refuses a configuration in which a log would show the
// request header that an option names. Caddy redacts Authorization by itself, but nothing
// else that may carry a credential, and it logs requests as they came in, in
// access logs and in the log of failed requests alike.
func requireLogFilter(ctx caddy.Context, option, header string) error {
	probe := &headerProbe{header: header}
	// Binding a field makes every log that could receive one of the HTTP
	// server's lines encode it, without writing anything.
	ctx.Logger(new(caddyhttp.App)).Core().With([]zapcore.Field{zap.Object("request", probe)})
	if !probe.exposed {
		return nil
	}
	return fmt.Errorf("%[1]s: a log would show %[2]s; give every log that receives HTTP requests (the default log too, for failed ones) this format: "+
		"format filter { request>headers>%[2]s delete }", option, header)
}

// headerProbe stands where a request stands in a log line, and looks which
// encoder it is given to.
type headerProbe struct {
	header  string
	exposed bool
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (p *headerProbe) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	return enc.AddObject("headers", zapcore.ObjectMarshalerFunc(func(enc zapcore.ObjectEncoder) error {
		filter, ok := enc.(logging.FilterEncoder)
		if !ok || filter.Fields["request>headers>"+p.header] == nil {
			p.exposed = true
		}
		return nil
	}))
}
