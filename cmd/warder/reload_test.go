package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestReload: a new configuration takes over while a request is on its way,
// and nothing that was true before is forgotten.
func TestReload(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		fmt.Fprint(w, r.Header.Get("X-Warder-Key-Id"))
	}))
	defer api.Close()

	s := newSite(t, withOptions(t, "\t\tmaster_key {file.master.key}"))
	s.write("master.key", newMasterKey())
	v := s.start()
	k, revoked := s.createKey(), s.createKey()
	slow := edit(t, withOptions(t, "\t\tmaster_key {file.master.key}"), "reverse_proxy 127.0.0.1:9000", "reverse_proxy "+api.Listener.Addr().String())
	s.load(slow)

	type reply struct {
		answer
		err error
	}
	live := make(chan reply, 1)
	go func() {
		got, err := s.knock("Token " + k.APIKey)
		live <- reply{got, err}
	}()
	<-arrived
	s.mustManage(http.MethodPost, "/keys/"+revoked.ID+"/block", "")
	s.load(withOptions(t, "\t\tmaster_key {file.master.key}\n\t\tcache_size 50"))
	s.expect(http.StatusOK, "Token "+k.APIKey, "a new request after the reload")
	s.expect(http.StatusUnauthorized, "Token "+revoked.APIKey, "a key blocked before the reload")
	close(release)
	if got := <-live; got.err != nil || got.status != http.StatusOK || got.body != k.ID {
		t.Errorf("the request that was on its way: %v %v", got.answer, got.err)
	}

	if got, err := s.post(edit(t, example(t), "token_ttl", "token_tll")); err != nil || got.status != http.StatusBadRequest {
		t.Errorf("a broken configuration: %v %v", got, err)
	}
	s.expect(http.StatusOK, "Token "+k.APIKey, "after a broken configuration")
	s.write("Caddyfile", s.onPorts(withOptions(t, "\t\tmaster_key {file.master.key}")))
	if done := s.warder("reload", "--config", "Caddyfile"); done.code != 0 {
		t.Errorf("warder reload: %d %s", done.code, done.stderr)
	}
	s.createKey()
	if code := v.interrupt(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.start() // the database and the key again, from what is on the disk
	s.expect(http.StatusOK, "Token "+k.APIKey, "after a restart")
	s.expect(http.StatusUnauthorized, "Token "+revoked.APIKey, "a blocked key after a restart")
}

// post sends a Caddyfile to the admin endpoint.
func (s *site) post(caddyfile string) (answer, error) {
	return send(client, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/load", s.admin), s.onPorts(caddyfile), "Content-Type", "text/caddyfile")
}

// load demands that it takes over.
func (s *site) load(caddyfile string) {
	s.t.Helper()
	got, err := s.post(caddyfile)
	if err != nil || got.status != http.StatusOK {
		s.t.Fatalf("POST /load: %v %v", got, err)
	}
}
