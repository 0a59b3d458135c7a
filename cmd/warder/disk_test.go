package main_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestFullDisk: what cannot be written is not acknowledged, what is known
// stays so, and once there is room again nothing has to be restarted.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	mountSmall(t, s.path("data")) // unmounted after the process has ended
	v := s.start()
	warm, revoked := s.createKey(), s.createKey()
	token := s.token(warm)
	s.mustManage(http.MethodPost, "/keys/"+revoked.ID+"/block", "")

	ballast := s.path("data/ballast")
	fillDisk(t, ballast)
	refused := createUntilRefused(t, s)
	t.Logf("refused: %d %s\n%s", refused.status, refused.header.Get("Content-Type"), refused.body)
	if refused.status != http.StatusServiceUnavailable || refused.header.Get("Content-Type") != "application/problem+json" || refused.header.Get("Retry-After") == "" {
		t.Errorf("a full disk: %v %v", refused, refused.header)
	}
	contains(t, "the log", v.log.String(), "management call failed", database, "full")

	blocked, err := s.manage(http.MethodPost, "/keys/"+warm.ID+"/block", "")
	if err != nil || blocked.status/100 != 5 {
		t.Errorf("a block that cannot be kept: %v %v", blocked, err)
	}
	for range 20 {
		s.expect(http.StatusOK, "Token "+warm.APIKey, "a warm key on a full disk")
		s.expect(http.StatusOK, "Bearer "+token, "its token on a full disk")
		s.expect(http.StatusUnauthorized, "Token "+revoked.APIKey, "a revoked key on a full disk")
	}
	done := s.warder("keys", "create", "--name", "late")
	t.Logf("exit code %d: %s", done.code, done.stderr)
	if done.code != 7 || done.stdout != "" || strings.Count(strings.TrimSpace(done.stderr), "\n") != 0 {
		t.Errorf("the command on a full disk: %d %q %q", done.code, done.stdout, done.stderr)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	checkRecovered(t, s, warm)
	before := len(s.keys())
	v.kill()
	s.start()
	if after := len(s.keys()); after != before {
		t.Errorf("%d keys before a restart, %d after", before, after)
	}
	s.expect(http.StatusUnauthorized, "Token "+warm.APIKey, "after a restart")
}

// checkRecovered: with room again, changes are made and hold.
func checkRecovered(t *testing.T, s *site, warm key) {
	t.Helper()
	for _, k := range s.keys() {
		if k.Name == "late" || k.Name == "refused" {
			t.Errorf("%s was refused and is there", k.Name)
		}
	}
	k := s.createKey()
	s.expect(http.StatusOK, "Token "+k.APIKey, "a key made after there was room")
	s.mustManage(http.MethodPost, "/keys/"+warm.ID+"/block", "")
	s.expect(http.StatusUnauthorized, "Token "+warm.APIKey, "a block after there was room")
}

// fillDisk writes until the disk is full.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; { // the last bytes one by one
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// createUntilRefused makes keys in what room there is left inside the
// database's own files, and returns the first refusal.
func createUntilRefused(t *testing.T, s *site) answer {
	t.Helper()
	for n := range 5000 {
		got, err := s.manage(http.MethodPost, "/keys", fmt.Sprintf(`{"metadata":{"ballast":%q}}`, strings.Repeat("x", 2000)))
		if err != nil {
			t.Fatal(err)
		}
		if got.status/100 != 2 {
			t.Logf("%d keys fitted in", n)
			again, err := s.manage(http.MethodPost, "/keys", `{"name":"refused"}`)
			if err != nil || again.status/100 == 2 {
				t.Fatalf("after %v: %v %v", got, again, err)
			}
			return got
		}
	}
	t.Fatal("the disk never got full")
	return answer{}
}
