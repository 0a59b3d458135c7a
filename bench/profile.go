//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

// takeProfile has the binary do what it is made for and writes where its time
// went: a part of each for a key, a seen token and unseen ones, with an API
// behind. It has no section in README.md.
func (b *bench) takeProfile() (string, error) {
	var parts []string
	for _, k := range []kind{key, seenToken, unseenToken} {
		part := filepath.Join(b.dir, fmt.Sprintf("part-%d", k))
		if err := b.profileOf(contender{name: "Warder", program: b.warder, style: warder, kind: k, proxied: true}, part); err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	merged, err := exec.Command("go", append([]string{"tool", "pprof", "-proto"}, parts...)...).Output()
	if err != nil {
		return "", fmt.Errorf("merging profiles: %w", err)
	}
	return "", os.WriteFile(b.profile, merged, 0o644) //nolint:gosec // it holds names of functions
}

func (b *bench) profileOf(c contender, part string) error {
	r, err := c.run(part+"-server", b.upstream, nil)
	if err != nil {
		return err
	}
	defer r.kill()
	if _, err := b.soak(r, func() {}); err != nil { // what is only done once is not to weigh
		return err
	}
	done := make(chan error, 1)
	_, err = b.soak(r, func() {
		go func() { done <- r.readProfile(part, b.seconds) }()
	})
	if err != nil {
		return err
	}
	return <-done
}

// soak asks as fast as it is answered, and calls begun once it does.
func (b *bench) soak(r *running, begun func()) (int, error) {
	w, err := b.prepare(r)
	if err != nil {
		return 0, err
	}
	if err := w.cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting wrk: %w", err)
	}
	begun()
	return w.wait()
}

func (r *running) readProfile(part string, seconds int) error {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/profile?seconds=%d", r.Admin, seconds))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	profile, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(part, profile, 0o600)
}
