//go:build unix

package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// callTime bounds one call of the management API.
const callTime = 8 * time.Second

// key is what the tests read of a key, or of what became of one.
type key struct {
	ID        string   `json:"id"`
	APIKey    string   `json:"api_key"`
	AccessKey string   `json:"access_key"`
	SecretKey string   `json:"secret_key"`
	Revision  int64    `json:"revision"`
	Code      string   `json:"code"` // of a refusal
	SeenByAll bool     `json:"seen_by_all"`
	Pending   []string `json:"pending"`
}

// newClient returns a client whose connections are its own.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, DisableCompression: true}}
}

// managementClient serves all calls of the management API.
var managementClient = newClient()

// manage calls the management API on the admin endpoint of a node. An error
// means that nobody knows what became of the call.
func (n *node) manage(method, path, body string) (status int, k key, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d/warder/v1%s", n.admin, path), reader)
	if err != nil {
		return 0, key{}, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	status, text, err := do(managementClient, r)
	if err == nil && len(text) > 0 {
		err = json.Unmarshal(text, &k)
	}
	return status, k, err
}

func do(c *http.Client, r *http.Request) (int, []byte, error) {
	resp, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, text, err
}

// mustManage demands a success.
func (n *node) mustManage(method, path, body string) key {
	n.t.Helper()
	status, k, err := n.manage(method, path, body)
	if err != nil || status/100 != 2 {
		n.t.Fatalf("%s %s on node %d: %d %s %v", method, path, n.index, status, k.Code, err)
	}
	return k
}

// token exchanges a key for an access token.
func (n *node) token(k key) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	form := url.Values{"grant_type": {"client_credentials"}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/token", n.gate), strings.NewReader(form))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(k.AccessKey, k.SecretKey)
	status, text, err := do(managementClient, r)
	if err != nil || status != http.StatusOK {
		return "", fmt.Errorf("exchanging a key on node %d: %d %w", n.index, status, err)
	}
	var issued struct {
		AccessToken string `json:"access_token"`
	}
	return issued.AccessToken, json.Unmarshal(text, &issued)
}

// askTime bounds a request to a gate, which waits half a second at most for
// a lease.
const askTime = 5 * time.Second

// ask sends a request with a credential through a node's gate, and returns
// what the gate said of it.
func (n *node) ask(c *http.Client, authorization string) state {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/v1/hello", n.gate), nil)
	if err != nil {
		return silence
	}
	r.Header.Set("Authorization", authorization)
	status, text, err := do(c, r)
	if err != nil {
		return silence
	}
	return stateOf(status, text)
}

// stateOf reads an answer. What no gate should say is a state of its own.
func stateOf(status int, text []byte) state {
	var problem struct{ Code, Reason string }
	_ = json.NewDecoder(bytes.NewReader(text)).Decode(&problem) // what is no problem has no code
	switch {
	case status == http.StatusNoContent:
		return active
	case status == http.StatusServiceUnavailable && problem.Code == "temporarily_unavailable":
		return unsure
	case status == http.StatusUnauthorized && problem.Code == "invalid_token" && problem.Reason == "":
		return unknown
	case status == http.StatusUnauthorized && problem.Code == "invalid_token":
		return state(problem.Reason)
	default:
		return state(fmt.Sprintf("%d %s", status, problem.Code))
	}
}

// goroutines is how many the process has.
func (n *node) goroutines() (count int) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/goroutine?debug=1", n.admin), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	_, text, err := do(managementClient, r)
	if err == nil {
		_, err = fmt.Sscanf(string(text), "goroutine profile: total %d", &count)
	}
	if err != nil {
		n.t.Fatalf("counting the goroutines of node %d: %v", n.index, err)
	}
	return count
}

// A kind of credential is a way to show a key.
type kind string

const (
	apiKey      kind = "API key"
	pair        kind = "Basic pair"
	accessToken kind = "access token"
)

var kinds = []kind{apiKey, pair, accessToken}

// authorization is the header with which a key is shown; token is its access
// token.
func (k kind) authorization(of key, token string) string {
	switch k {
	case pair:
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(of.AccessKey, of.SecretKey)
		return r.Header.Get("Authorization")
	case accessToken:
		return "Bearer " + token
	default:
		return "Token " + of.APIKey
	}
}
