package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

const serviceUnit = deployDirectory + "/systemd/warder.service"

// serviceDeployment runs the configuration of the unit as the unit does: with
// its environment, and the master key as a credential. CREDENTIALS_DIRECTORY is
// not set: to start, it is, but not to reload.
func serviceDeployment(t *testing.T) *deployment {
	t.Helper()
	d := newDeployment(t, "systemd/Caddyfile", "/var/lib/warder/warder.db", "data/warder.db")
	for _, dir := range []string{"credentials", "run"} {
		if err := os.Mkdir(d.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.write("credentials/master_key", keystore.NewMasterKey().Text().Reveal())
	below := strings.NewReplacer("/var/lib/warder", d.path("data"), "/run/warder", d.path("run"), "%d", d.path("credentials"))
	for _, line := range unitValues(t, "Environment") {
		d.env = append(d.env, strings.Fields(below.Replace(line))...)
	}
	return d
}

// unitValues are those of a setting of the unit.
func unitValues(t *testing.T, setting string) (values []string) {
	t.Helper()
	for line := range strings.Lines(readFile(t, serviceUnit)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name == setting {
			values = append(values, value)
		}
	}
	if len(values) == 0 {
		t.Fatalf("the unit says nothing of %s", setting)
	}
	return values
}

// TestServiceNotifies: the unit says Type=notify, so whoever waits for it hears
// when it serves, and that it stops.
func TestServiceNotifies(t *testing.T) {
	t.Parallel()
	d := serviceDeployment(t)
	if kind := unitValues(t, "Type"); kind[0] != "notify" {
		t.Fatalf("the unit is of type %q", kind)
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: d.path("run/notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	d.env = append(d.env, "NOTIFY_SOCKET="+d.path("run/notify"))
	v := d.launch()
	awaitNotice(t, socket, "READY=1")
	d.awaitReady(v)
	if reached := listeningPorts(t, v.cmd.Process.Pid); !reached[d.gate] || reached[d.status] {
		t.Errorf("other machines reach %v, gate %d, status %d", reached, d.gate, d.status)
	}
	reload := strings.NewReplacer("/usr/bin/warder", "./warder", "/etc/warder/Caddyfile", "Caddyfile").Replace(unitValues(t, "ExecReload")[0])
	if done := d.run("bash", "-c", reload); done.code != 0 {
		t.Errorf("%s: %d %s", reload, done.code, done.stderr)
	}
	awaitNotice(t, socket, "RELOADING=1")
	awaitNotice(t, socket, "READY=1")
	if code := v.terminate(v.cmd.Process.Pid); code != 0 {
		t.Errorf("SIGTERM ends it with %d:\n%s", code, v.log)
	}
	awaitNotice(t, socket, "STOPPING=1")
}

func awaitNotice(t *testing.T, socket *net.UnixConn, wanted string) {
	t.Helper()
	_ = socket.SetReadDeadline(time.Now().Add(patience))
	for notice := make([]byte, 4096); ; {
		n, err := socket.Read(notice)
		if err != nil {
			t.Fatalf("waiting for %s: %v", wanted, err)
		}
		if string(notice[:n]) == wanted {
			return
		}
	}
}

// maxExposure is what `systemd-analyze security` may find at most: 0.0 is a
// service that can do nothing, 10.0 one that can do everything.
const maxExposure = "20" // tenths

func TestServiceUnit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skipf("SKIPPED: the unit is not analysed: %v", err)
	}
	// Only the path of the program differs: it is not installed here.
	unit := filepath.Join(t.TempDir(), "warder.service")
	text := strings.ReplaceAll(readFile(t, serviceUnit), "/usr/bin/warder", binary)
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+maxExposure, unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
