package main_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An image is the last stage of the Dockerfile around the binary under test. It
// is built by buildah, which needs no daemon and, with chroot isolation, no more
// than root.
type image struct {
	t     *testing.T
	store string // where buildah keeps everything
	temp  string // and what it needs for a moment
	work  string // the name of the working container
	root  string // its files

	config struct {
		User, WorkingDir, StopSignal string
		Env, Entrypoint, Cmd         []string
		Volumes                      map[string]struct{}
		Healthcheck                  struct{ Test []string }
	}
}

func newImage(t *testing.T) *image {
	t.Helper()
	for _, program := range []string{"buildah", "strip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: the image is not built: %v", err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: the image is not built: chroot isolation takes root")
	}
	m := &image{t: t, store: t.TempDir(), temp: t.TempDir()}
	built := t.TempDir()
	if err := os.MkdirAll(filepath.Join(built, "out", "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The linker leaves out for the image what strip takes away here.
	if out, err := exec.Command("strip", "-o", filepath.Join(built, "out", "warder"), binary).CombinedOutput(); err != nil {
		t.Fatalf("strip: %v\n%s", err, out)
	}
	if err := os.Chmod(filepath.Join(built, "out", "warder"), 0o700); err != nil { // as a strict umask leaves it
		t.Fatal(err)
	}
	m.buildah("build", "--isolation", "chroot", "--format", "docker", "--build-context", "build="+built, "-t", "warder", "../..")
	m.work = m.buildah("from", "--name", "warder-test", "warder")
	m.root = m.buildah("mount", m.work)
	var inspected struct {
		Docker struct{ Config json.RawMessage }
	}
	if err := json.Unmarshal([]byte(m.buildah("inspect", "--type", "image", "warder")), &inspected); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(inspected.Docker.Config, &m.config); err != nil {
		t.Fatal(err)
	}
	return m
}

// arguments are those of buildah for a command on this image's store.
func (m *image) arguments(args ...string) []string {
	return append([]string{"--root", filepath.Join(m.store, "root"), "--runroot", filepath.Join(m.store, "run"), "--storage-driver", "vfs"}, args...)
}

func (m *image) buildah(args ...string) string {
	m.t.Helper()
	cmd := exec.Command("buildah", m.arguments(args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+m.temp)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("buildah %q: %v\n%s%s", args, err, out, &said)
	}
	return strings.TrimSpace(string(out))
}

// uid is the user of the image, by number.
func (m *image) uid() int {
	m.t.Helper()
	user, group, _ := strings.Cut(m.config.User, ":")
	uid, err := strconv.Atoi(user)
	if err != nil || uid == 0 || group != user {
		m.t.Fatalf("the image's user is %q", m.config.User)
	}
	return uid
}

// files lists what an image holds beyond what a runtime mounts over.
func (m *image) files() (list []string) {
	m.t.Helper()
	err := filepath.WalkDir(m.root, func(path string, e fs.DirEntry, err error) error {
		if name := strings.TrimPrefix(path, m.root); err == nil && !e.IsDir() && !slices.Contains(mounted, name) {
			list = append(list, name)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return list
}

var mounted = []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"}

// TestImage builds the image, and takes the whole tour in containers of it.
func TestImage(t *testing.T) {
	needsCurl(t)
	t.Parallel()
	m := newImage(t)
	want := []string{"/etc/warder/Caddyfile", "/usr/bin/warder"}
	if got := m.files(); !slices.Equal(got, want) {
		t.Errorf("the image holds %q, want %q", got, want)
	}
	c := m.config
	if !slices.Equal(c.Healthcheck.Test, []string{"CMD", "warder", "health"}) || c.StopSignal != "SIGTERM" || len(c.Volumes) != 1 || c.WorkingDir != "/data" {
		t.Errorf("the image's configuration: %+v", c)
	}
	t.Run("source", m.testSource)
	t.Run("buildah", m.testBuildah)
	t.Run("read-only", m.testReadOnly)
	t.Run("drains", m.testDrains)
	if got := m.files(); !slices.Equal(got, want) {
		t.Errorf("after all, the image holds %q, want %q", got, want)
	}
}

// testSource: what the Dockerfile's first stage is given is all that the program
// takes, and is not more.
func (m *image) testSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Dockerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\nCOPY . /\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.buildah("build", "--isolation", "chroot", "--file", file, "--tag", "source", "../..")
	source := m.buildah("mount", m.buildah("from", "--name", "source-test", "source"))
	list := exec.Command("go", "list", "-deps", "./cmd/warder") // fails if a file is missing
	list.Dir = source
	list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOPROXY=off", "GOWORK=off")
	if out, err := list.CombinedOutput(); err != nil {
		t.Errorf("go list: %v\n%s", err, out)
	}
	for _, unwanted := range []string{".git", "README.md", "data", "deploy/compose.yaml", "cmd/warder/container_linux_test.go"} {
		if _, err := os.Stat(filepath.Join(source, unwanted)); err == nil {
			t.Errorf("%s is given to the build", unwanted)
		}
	}
}

// newContainer makes a deployment whose ./warder runs the image's by prefix.
func (m *image) newContainer(t *testing.T, prefix func(*deployment) []string) *deployment {
	t.Helper()
	d := newDeployment(t, "Caddyfile")
	if err := os.Chown(d.path("data"), m.uid(), m.uid()); err != nil {
		t.Fatal(err)
	}
	for dir := d.path("data"); dir != filepath.Dir(os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	if err := os.Remove(d.path("warder")); err != nil {
		t.Fatal(err)
	}
	d.runBy(prefix(d))
	d.env = append(append(d.env, m.config.Env...), d.places()...)
	d.env = append(d.env, "PATH="+os.Getenv("PATH")) // of what runs the container
	return d
}

// runBy has ./warder run what prefix begins with.
func (d *deployment) runBy(prefix []string) {
	d.t.Helper()
	d.write("warder", "#!/bin/sh\nexec '"+strings.Join(prefix, "' '")+"' \"$@\"\n")
	if err := os.Chmod(d.path("warder"), 0o755); err != nil {
		d.t.Fatal(err)
	}
}

// places are the variables that move the image's configuration to ports of the
// deployment's own.
func (d *deployment) places() []string {
	return []string{
		fmt.Sprint("WARDER_SITE=:", d.gate), fmt.Sprint("WARDER_STATUS=:", d.status),
		fmt.Sprint("WARDER_UPSTREAM=127.0.0.1:", d.demo), fmt.Sprint("WARDER_ISSUER=http://localhost:", d.gate),
	}
}

// startDemoOutside starts the demo API beside the container.
func (d *deployment) startDemoOutside(t *testing.T) {
	t.Helper()
	api := newSite(t, "")
	api.demo = d.demo
	api.configure(readFile(t, filepath.Join(deployDirectory, "demo-api.Caddyfile")))
	api.start()
}

// testBuildah runs the container with buildah, and commands in it as `docker
// exec` would: in the mounts and below the root of the process that serves.
func (m *image) testBuildah(t *testing.T) {
	d := m.newContainer(t, func(d *deployment) []string {
		// Processes of its own, which end with the first of them, however that ends,
		// and which it finds below /proc by the numbers that it knows them by.
		args := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "env", "TMPDIR=" + m.temp, "buildah"}
		args = append(args, m.arguments("run", "--isolation", "chroot", "--volume", d.path("data")+":/data")...)
		for _, variable := range d.places() {
			args = append(args, "--env", variable)
		}
		return append(append(args, m.work, "--"), m.config.Entrypoint...)
	})
	d.startDemoOutside(t)
	v := d.launchProgram("./warder", m.config.Cmd...)
	d.awaitReady(v)
	pid := descendant(t, v.cmd.Process.Pid, "warder")
	m.checkUser(t, pid)
	there, user := fmt.Sprintf("/proc/%d/", pid), fmt.Sprint(m.uid())
	d.runBy([]string{"nsenter", "--mount=" + there + "ns/mnt", "--root=" + there + "root", "--wd=" + there + "cwd",
		"--setgid", user, "--setuid", user, filepath.Join("/usr/bin", m.config.Entrypoint[0])})
	d.checkWhole(v, pid)
}

// testReadOnly runs the container with a read-only root and within the limits
// of a small sidecar.
func (m *image) testReadOnly(t *testing.T) {
	d := m.readOnlyContainer(t)
	d.startDemoOutside(t)
	limit := newLimits(t)
	began := time.Now()
	v := d.launchProgram("./warder", m.config.Cmd...)
	limit.hold(v.cmd.Process.Pid)
	d.awaitReady(v)
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
	limit.check(v)
	m.checkUser(t, v.cmd.Process.Pid)
	d.checkDoctor()
	d.checkWhole(v, v.cmd.Process.Pid)
	limit.report()
	left := names(t, d.path("data"))
	if !slices.Equal(left, []string{"caddy", "warder.db", "warder.db.key", "warder.db.lock"}) {
		t.Errorf("left in the volume: %q", left)
	}
}

func (m *image) testDrains(t *testing.T) {
	d := m.readOnlyContainer(t)
	behind := newSlowAPI(t)
	d.env = append(d.env, "WARDER_UPSTREAM="+behind.address)
	v := d.launchProgram("./warder", m.config.Cmd...)
	d.awaitReady(v)
	d.checkDrains(v, v.cmd.Process.Pid, behind)
}

func (m *image) readOnlyContainer(t *testing.T) *deployment {
	t.Helper()
	script, err := filepath.Abs("testdata/container.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(m.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m.newContainer(t, func(d *deployment) []string {
		return append([]string{script, m.root, d.path("data"), fmt.Sprint(m.uid())}, filepath.Join("/usr/bin", m.config.Entrypoint[0]))
	})
}

// checkUser demands that a process is the image's user and may do nothing more.
func (m *image) checkUser(t *testing.T, pid int) {
	t.Helper()
	status := readFile(t, fmt.Sprintf("/proc/%d/status", pid))
	contains(t, "the process", status, fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", m.uid()), "CapEff:\t0000000000000000\n")
}

// checkDoctor demands that a trial of the configuration finds room in the image,
// which has no directory for what is temporary.
func (d *deployment) checkDoctor() {
	d.t.Helper()
	done := d.warder("doctor", "--config", "/etc/warder/Caddyfile")
	contains(d.t.(*testing.T), "warder doctor", done.stdout, "/etc/warder/Caddyfile would be served")
}

// descendant finds the process of a name below another.
func descendant(t *testing.T, pid int, name string) int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	named := map[int]bool{}
	for _, file := range processes {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var child, parent int
		before, after, _ := strings.Cut(string(text), ") ")
		_, comm, _ := strings.Cut(before, "(")
		if _, err := fmt.Sscanf(before, "%d", &child); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(after[2:], "%d", &parent); err != nil {
			t.Fatal(err)
		}
		children[parent] = append(children[parent], child)
		named[child] = comm == name
	}
	for below := children[pid]; len(below) > 0; below = below[1:] {
		if named[below[0]] {
			return below[0]
		}
		below = append(below, children[below[0]]...)
	}
	t.Fatalf("no %s runs below process %d", name, pid)
	return 0
}
