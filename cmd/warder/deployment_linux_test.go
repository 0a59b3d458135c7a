package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// A deployment is a site that runs a configuration of deploy/ as it is there,
// but for what would be the same for all of them: ports, and absolute paths.
type deployment struct {
	*site
	status int // the port of health and metrics
}

const deployDirectory = "../../deploy"

// newDeployment makes a site with a configuration of deploy/ in which each pair
// of texts is replaced.
func newDeployment(t *testing.T, name string, pairs ...string) *deployment {
	t.Helper()
	d := &deployment{site: newSite(t, ""), status: freePort(t)}
	if err := os.Mkdir(d.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := readFile(t, filepath.Join(deployDirectory, name))
	d.configure(strings.ReplaceAll(edit(t, text, pairs...), "8082", fmt.Sprint(d.status)))
	d.write("demo-api", d.onPorts(readFile(t, filepath.Join(deployDirectory, "demo-api.Caddyfile"))))
	return d
}

// startAll starts the demo API and what guards it.
func (d *deployment) startAll() *server {
	d.t.Helper()
	d.startDemo()
	v := d.launch()
	d.awaitReady(v)
	return v
}

func (d *deployment) startDemo() {
	d.t.Helper()
	if api := d.launchProgram("./warder", "run", "--config", "demo-api", "--adapter", "caddyfile"); !api.awaitLog(serving) {
		d.t.Fatalf("the demo API does not serve:\n%s", api.log)
	}
}

// awaitReady waits until v says that it may decide.
func (d *deployment) awaitReady(v *server) {
	d.t.Helper()
	ready := func() bool {
		got, err := send(client, http.MethodGet, d.statusURL("/readyz"), "")
		return err == nil && got.status == http.StatusOK
	}
	if !await(func() bool { return !v.running() || ready() }) || !v.running() {
		d.t.Fatalf("it is not ready:\n%s", v.log)
	}
}

func (d *deployment) statusURL(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", d.status, path)
}

// checkWhole takes the tour, and demands what every deployment promises of v,
// whose process is pid.
func (d *deployment) checkWhole(v *server, pid int) {
	t := d.t.(*testing.T)
	t.Helper()
	checkTour(t, d.steps(fmt.Sprintf("localhost:%d", d.gate)), "HTTP/1.1")
	if health := d.warder("health"); health.code != 0 {
		t.Errorf("warder health: %d %s", health.code, health.stderr)
	}
	metrics, err := send(client, http.MethodGet, d.statusURL("/metrics"), "")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "metrics", metrics.body, "warder_requests_admitted_total{", "process_resident_memory_bytes")
	for port := range listeningPorts(t, pid) {
		if port != d.gate && port != d.status {
			t.Errorf("it listens on port %d, beside the gate's and that of its status", port)
		}
	}
	t.Logf("memory after the tour:\n%s", residentMemory(t, pid))
	if code := v.terminate(pid); code != 0 {
		t.Errorf("SIGTERM ends it with %d:\n%s", code, v.log)
	}
}

// terminate sends SIGTERM to the process of v that serves, and returns the exit
// code of v.
func (v *server) terminate(pid int) int {
	v.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		v.t.Fatal(err)
	}
	return v.exitCode()
}

// TestDeployedConfigurations starts every configuration that deploy/ offers, and
// takes the tour of each.
func TestDeployedConfigurations(t *testing.T) {
	needsCurl(t)
	for name, prepare := range map[string]func(*testing.T) *deployment{
		"image":              imageDeployment,
		"systemd":            serviceDeployment,
		"kubernetes, sqlite": func(t *testing.T) *deployment { return podDeployment(t, "kubernetes/sqlite/Caddyfile") },
		"kubernetes, postgres": func(t *testing.T) *deployment {
			url := postgrestest.Database(t)
			d := podDeployment(t, "kubernetes/postgres/Caddyfile")
			d.write("secret/postgres", url)
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := prepare(t)
			v := d.startAll()
			d.checkWhole(v, v.cmd.Process.Pid)
		})
	}
}

// imageDeployment runs the image's configuration in the environment that the
// Dockerfile sets.
func imageDeployment(t *testing.T) *deployment {
	t.Helper()
	d := newDeployment(t, "Caddyfile", "/data/warder.db", "data/warder.db")
	d.useImageEnvironment()
	return d
}

var imageVariable = regexp.MustCompile(`(?m)^(?:ENV|\t)\s*([A-Z_]+=\S*/data\S*)`)

func (d *deployment) useImageEnvironment() {
	d.t.Helper()
	set := imageVariable.FindAllStringSubmatch(readFile(d.t.(*testing.T), "../../Dockerfile"), -1)
	if len(set) != 5 {
		d.t.Fatalf("the Dockerfile sets %q", set)
	}
	for _, variable := range set {
		d.env = append(d.env, strings.Replace(variable[1], "/data", d.path("data"), 1))
	}
}

// podDeployment runs a configuration of Kubernetes with the files of its secret.
func podDeployment(t *testing.T, name string) *deployment {
	t.Helper()
	d := newDeployment(t, name)
	if err := os.Mkdir(d.path("secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("/run/secrets/warder", d.path("secret"), "sqlite /data", "sqlite "+d.path("data")).Replace(d.read("Caddyfile"))
	d.write("Caddyfile", text)
	d.write("secret/master_key", keystore.NewMasterKey().Text().Reveal())
	d.useImageEnvironment()
	return d
}

// TestUnprivileged: a user without rights, whose files and directories are
// read-only but for the data, within the limits of a small sidecar.
func TestUnprivileged(t *testing.T) {
	needsCurl(t)
	t.Parallel()
	d := imageDeployment(t)
	if os.Geteuid() == 0 {
		d.asNobody()
		if err := os.Chown(d.path("data"), nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d.path("demo-api"), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(d.dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(d.dir, 0o700) })
	before := names(t, d.dir)
	d.startDemo()
	limit := newLimits(t)
	began := time.Now()
	v := d.launch()
	limit.hold(v.cmd.Process.Pid)
	d.awaitReady(v)
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
	limit.check(v)
	d.checkWhole(v, v.cmd.Process.Pid)
	limit.report()
	if after := names(t, d.dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("beside its data it left %q where %q was", after, before)
	}
	if home := names(t, d.home()); fmt.Sprint(home) != "[config data]" || len(names(t, filepath.Join(d.home(), "data"))) > 0 {
		t.Errorf("it wrote into its home: %q", home)
	}
}

// TestStopDrains: what is being answered when SIGTERM comes is answered.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	d := imageDeployment(t)
	behind := newSlowAPI(t)
	d.env = append(d.env, "WARDER_UPSTREAM="+behind.address)
	v := d.launch()
	d.awaitReady(v)
	d.checkDrains(v, v.cmd.Process.Pid, behind)
}

// A slowAPI answers no request before it is told to.
type slowAPI struct {
	address        string
	arrived, leave chan struct{}
}

func newSlowAPI(t *testing.T) *slowAPI {
	t.Helper()
	a := &slowAPI{arrived: make(chan struct{}), leave: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.arrived <- struct{}{}
		<-a.leave
		fmt.Fprint(w, "finished")
	}))
	t.Cleanup(server.Close)
	a.address = server.Listener.Addr().String()
	return a
}

// held is for how long a request is being answered when its server is stopped.
const held = time.Second

func (d *deployment) checkDrains(v *server, pid int, behind *slowAPI) {
	d.t.Helper()
	made := d.warder("keys", "create", "--name", "drain", "--format", "env")
	apiKey := regexp.MustCompile(`wdr_\w+`).FindString(made.stdout)
	var got answer
	var err error
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		got, err = d.knock("Token " + apiKey)
	}()
	select {
	case <-behind.arrived:
	case <-answered:
		d.t.Fatalf("the request was not let through: %v %v", got, err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if !v.awaitLog("byeee") {
		d.t.Fatalf("it does not stop:\n%s", v.log)
	}
	time.Sleep(held) // a process that does not wait has ended by then
	if _, err := d.knock(""); err == nil {
		d.t.Error("it takes new requests")
	}
	close(behind.leave)
	<-answered
	if err != nil || got.status != http.StatusOK || got.body != "finished" {
		d.t.Errorf("what was being answered: %v %v", got, err)
	}
	if code := v.exitCode(); code != 0 {
		d.t.Errorf("SIGTERM ends it with %d:\n%s", code, v.log)
	}
}
