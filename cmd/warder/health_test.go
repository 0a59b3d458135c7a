package main_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// As in a container: the admin endpoint is a socket, no command has a flag,
// and who is told to end is not ready any more while it still answers.
func TestProbesUntilTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, edit(t, example(t), "{\n\twarder {\n", "{\n\tshutdown_delay 4s\n\twarder {\n", "\twarder_issuer\n", "\twarder_health\n\twarder_issuer\n"))
	s.env = []string{"CADDY_ADMIN=unix/" + s.path("admin.sock")}
	if r := s.warder("health"); r.code != 3 || !strings.Contains(r.lastLine(), "admin.sock") {
		t.Errorf("before the start: %+v", r)
	}
	v := s.start()
	for _, args := range [][]string{{"health"}, {"health", "--live"}} {
		if r := s.warder(args...); r.code != 0 || r.stdout != "ok\n" || r.stderr != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
	probe := func(path string) int {
		answer, err := http.Get(s.onPorts("http://localhost:8080" + path))
		if err != nil {
			return 0
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	if live, ready := probe("/healthz"), probe("/readyz"); live != 200 || ready != 200 {
		t.Errorf("%d %d", live, ready)
	}
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !await(func() bool { return probe("/readyz") == 503 || !v.running() }) || !v.running() {
		t.Fatalf("it was ready to the last:\n%s", v.log)
	}
	if live, other := probe("/healthz"), probe("/v1/hello"); live != 200 || other != 401 {
		t.Errorf("while it ends: %d %d", live, other)
	}
	<-v.done
	if code := v.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, v.log)
	}
}
