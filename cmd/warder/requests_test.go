package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// requestTimeout bounds one request that is answered at once.
const requestTimeout = 20 * time.Second

// An answer is an HTTP response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, strings.TrimSpace(a.body)) }

// client is used by everything that needs no connections of its own.
var client = &http.Client{
	Timeout:   requestTimeout,
	Transport: &http.Transport{MaxIdleConnsPerHost: 16},
}

// send sends a request with header lines given as name, value, ….
func send(c *http.Client, method, url, body string, header ...string) (answer, error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

// knock asks the API behind the gate with an Authorization header.
func (s *site) knock(authorization string) (answer, error) {
	return send(client, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/v1/hello", s.gate), "", "Authorization", authorization)
}

// expect knocks and demands a status.
func (s *site) expect(status int, authorization, why string) answer {
	s.t.Helper()
	got, err := s.knock(authorization)
	if err != nil || got.status != status {
		s.t.Fatalf("%s: %v %v, want %d", why, got, err, status)
	}
	return got
}

// manage calls the management API on the admin endpoint.
func (s *site) manage(method, path, body string, header ...string) (answer, error) {
	if body != "" {
		header = append(header, "Content-Type", "application/json")
	}
	return send(client, method, fmt.Sprintf("http://127.0.0.1:%d/warder/v1%s", s.admin, path), body, header...)
}

// key is what the tests read of a key.
type key struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	State      string            `json:"state"`
	APIKey     string            `json:"api_key"`
	AccessKey  string            `json:"access_key"`
	SecretKey  string            `json:"secret_key"`
	Generation int               `json:"generation"`
	Metadata   map[string]string `json:"metadata"`
}

// mustManage demands a success, and reads it as a key.
func (s *site) mustManage(method, path, body string, header ...string) (k key) {
	s.t.Helper()
	got, err := s.manage(method, path, body, header...)
	if err != nil || got.status/100 != 2 {
		s.t.Fatalf("%s %s: %v %v", method, path, got, err)
	}
	if err := json.Unmarshal([]byte(got.body), &k); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, got.body)
	}
	return k
}

// createKey makes a key that the example's gate lets pass.
func (s *site) createKey() key {
	s.t.Helper()
	return s.mustManage(http.MethodPost, "/keys", `{"scopes":["hello:read"]}`)
}

// token exchanges a key for an access token.
func (s *site) token(k key) string {
	s.t.Helper()
	got, err := send(client, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/token", s.gate), "grant_type=client_credentials",
		"Content-Type", "application/x-www-form-urlencoded", "Authorization", basic(k))
	if err != nil || got.status != http.StatusOK {
		s.t.Fatalf("exchanging a key: %v %v", got, err)
	}
	var issued struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(bytes.NewBufferString(got.body)).Decode(&issued); err != nil {
		s.t.Fatal(err)
	}
	return issued.AccessToken
}

func basic(k key) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(k.AccessKey, k.SecretKey)
	return r.Header.Get("Authorization")
}
