package managementapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Client calls the management API, on an admin endpoint or where else it is
// mounted. It follows no redirect and uses no proxy: answers hold secrets.
type Client struct {
	http       http.Client
	place      string // what people named: an endpoint or a URL
	base       string
	origin     string          // empty: none is sent
	credential keystore.Secret // empty: none is sent
	known      atomic.Bool
}

// Endpoint is where an admin endpoint listens: the arguments of net.Dial.
type Endpoint struct {
	Network string // tcp or unix
	Address string
}

func (e Endpoint) String() string {
	if e.Network == "tcp" {
		return e.Address
	}
	return e.Network + "/" + e.Address
}

// Why a call did not reach a management API.
var (
	ErrUnreachable = errors.New("nothing answers")
	ErrNotWarder   = errors.New("what answers is not a Warder")
)

const (
	clientTimeout = 30 * time.Second
	dialTimeout   = 5 * time.Second
	maxAnswer     = 64 << 20 // a full page of the largest keys is below
	maxExcerpt    = 120
)

// NewClient returns a client of the API that e serves under prefix.
func NewClient(e Endpoint, prefix string) *Client {
	c := &Client{place: e.String(), base: "http://127.0.0.1" + prefix} // a socket has no name, yet a request needs a host
	if e.Network != "unix" {
		c.origin = "http://" + e.Address // Caddy asks for it when it enforces origins
		c.base = c.origin + prefix
	}
	c.dial(func(ctx context.Context, d *net.Dialer, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, e.Network, e.Address)
	})
	return c
}

// NewRemoteClient returns a client of the API mounted at base, such as
// https://keys.example.com/v1, that presents credential, an API key or an
// access token. Without TLS it goes no further than this machine.
func NewRemoteClient(base string, credential keystore.Secret) (*Client, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must be a URL such as https://keys.example.com/v1, without a credential")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return nil, errors.New("must be https: the credential would cross the network in clear")
	case !isOneWord(credential.Reveal()):
		return nil, errors.New("the credential is empty, or no API key or access token")
	}
	c := &Client{place: u.String(), base: strings.TrimSuffix(u.String(), "/"), credential: credential}
	c.dial(func(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
		return d.DialContext(ctx, network, address)
	})
	return c, nil
}

// isOneWord reports whether a credential can be sent as it is.
func isOneWord(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return text != "" && len(text) <= keystore.MaximumCredential
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (c *Client) dial(dial func(context.Context, *net.Dialer, string, string) (net.Conn, error)) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	c.http = http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dial(ctx, dialer, network, address)
			},
		},
	}
}

// Fetch returns what a Warder answers to a GET of a URL that takes no
// credential. Errors as Call.
func Fetch(ctx context.Context, address string) (json.RawMessage, error) {
	c := &Client{place: address}
	c.dial(func(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
		return d.DialContext(ctx, network, address)
	})
	defer c.http.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("addressing %s: %w", address, err)
	}
	return c.send(r)
}

// Request is one call. Path holds the segments below the prefix.
type Request struct {
	Method         string
	Path           []string
	Query          url.Values
	Body           any // encoded as JSON; nil: none
	IdempotencyKey string
	IfMatch        string
	Wait           time.Duration // until every node has seen the change; zero: not at all
}

// Call returns the body of a success. A refusal is a *Problem. Before the
// first call it makes sure that a Warder answers: ErrUnreachable, ErrNotWarder.
func (c *Client) Call(ctx context.Context, in Request) (json.RawMessage, error) {
	if err := c.meet(ctx); err != nil {
		return nil, err
	}
	return c.call(ctx, in)
}

// meet makes sure, once, that a Warder answers.
func (c *Client) meet(ctx context.Context) error {
	if c.known.Load() {
		return nil
	}
	if err := c.identify(ctx); err != nil {
		return err
	}
	c.known.Store(true)
	return nil
}

func (c *Client) identify(ctx context.Context) error {
	raw, err := c.call(ctx, Request{Method: http.MethodGet})
	if err != nil {
		return err
	}
	var who Identity
	if json.Unmarshal(raw, &who) != nil || who.Service != Service {
		return fmt.Errorf("%w: %s sent something else", ErrNotWarder, c.place)
	}
	return nil
}

func (c *Client) call(ctx context.Context, in Request) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout+in.Wait)
	defer cancel()
	r, err := c.request(ctx, in)
	if err != nil {
		return nil, err
	}
	return c.send(r)
}

// send returns the body of a success.
func (c *Client) send(r *http.Request) (json.RawMessage, error) {
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	return c.read(resp)
}

// read returns the body of a success.
func (c *Client) read(resp *http.Response) (json.RawMessage, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.unreachable(err)
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // a broken one is not ours
	switch {
	case media == problemType:
		return nil, problemFrom(body, resp.Header)
	case resp.StatusCode/100 == 2 && (media == jsonType || strings.HasSuffix(media, "+json")):
		return body, nil
	default:
		return nil, fmt.Errorf("%w: %s sent HTTP %d %s", ErrNotWarder, c.place, resp.StatusCode, gist(body))
	}
}

// gist is what a foreign answer says: Caddy's own admin endpoint has its
// text in a member "error".
func gist(body []byte) string {
	var caddy struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &caddy) == nil && caddy.Error != "" {
		return excerpt([]byte(caddy.Error))
	}
	return excerpt(body)
}

func (c *Client) request(ctx context.Context, in Request) (*http.Request, error) {
	target, err := c.target(in)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	if in.Body != nil {
		text, err := encode(in.Body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, in.Method, target, body)
	if err != nil {
		return nil, fmt.Errorf("addressing %s: %w", c.place, err)
	}
	set := func(name, value string) {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	set("Origin", c.origin)
	if c.credential != "" {
		set("Authorization", "Bearer "+c.credential.Reveal())
	}
	set("Idempotency-Key", in.IdempotencyKey)
	set("If-Match", in.IfMatch)
	if body != nil {
		set("Content-Type", bodyType(in.Method))
	}
	return r, nil
}

func bodyType(method string) string {
	if method == http.MethodPatch {
		return mergePatchType
	}
	return jsonType
}

// target never lets a segment become another path.
func (c *Client) target(in Request) (string, error) {
	target := c.base
	for _, segment := range in.Path {
		if segment == "" || segment == "." || segment == ".." {
			return "", fmt.Errorf("%q names nothing", segment)
		}
		target += "/" + url.PathEscape(segment)
	}
	query := url.Values{}
	maps.Copy(query, in.Query)
	if in.Wait > 0 {
		query.Set(waitParameter, in.Wait.String())
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return target, nil
}

// unreachable drops the URL that net/http puts in front: people named the
// endpoint, not a URL.
func (c *Client) unreachable(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		if u.Timeout() {
			return fmt.Errorf("%w in time at %s", ErrUnreachable, c.place)
		}
		err = u.Err
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.place, err)
}

func problemFrom(body []byte, header http.Header) error {
	var p Problem
	if err := json.Unmarshal(body, &p); err != nil || p.Code == "" {
		return fmt.Errorf("%w: its refusal cannot be read: %s", ErrNotWarder, excerpt(body))
	}
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err == nil && seconds > 0 {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return &p
}

// Error says what was refused and, if it is known, which field is to blame.
func (p *Problem) Error() string {
	for _, place := range []string{strings.TrimPrefix(p.Pointer, "/"), p.Parameter, p.Header} {
		if place != "" {
			return place + ": " + p.Detail
		}
	}
	return p.Detail
}

// excerpt is a foreign answer in one short printable line.
func excerpt(body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body[:min(len(body), maxExcerpt)])), "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, ""))
}

// Interface guards.
var _ error = (*Problem)(nil)
