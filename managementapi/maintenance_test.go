package managementapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
)

// maintained is the maintenance of a store whose master key is of no concern.
type maintained struct {
	*sqlite.Store
	refusal error
}

func (m maintained) MasterKey(context.Context) (MasterKey, error) {
	return MasterKey{"0badc0de", []string{}, SourceConfigured, ""}, m.refusal
}

func (m maintained) RotateMasterKey(ctx context.Context) (MasterKeyRotation, error) {
	key, err := m.MasterKey(ctx)
	return MasterKeyRotation{key, []string{"deadbeef"}}, err
}

func (m maintained) FinishMasterKey(ctx context.Context) (MasterKeyRotation, error) {
	return m.RotateMasterKey(ctx)
}

// brokenCopy fails after some bytes.
type brokenCopy struct {
	maintained
	good int64
}

func (m brokenCopy) Copy(ctx context.Context) (io.ReadCloser, error) {
	c, err := m.Store.Copy(ctx)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(c, m.good), failingReader{}), c}, nil
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errDisk }

func backupRequest() Request { return Request{Method: http.MethodGet, Path: []string{"backup"}} }

// What is downloaded is the store, whole, and the audit log tells of it.
func TestBackup(t *testing.T) {
	g := newRig(t)
	for range 20 {
		g.make(`{}`)
	}
	name := filepath.Join(t.TempDir(), "copy.db")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := g.client().Download(t.Context(), backupRequest(), f); err != nil {
		t.Fatal(err)
	}
	found, err := sqlite.CheckBackup(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if now := g.everything(); now != fmt.Sprint(found.Head.Revision) {
		t.Errorf("copied at revision %d, now %s", found.Head.Revision, now)
	}
	if page := ok[AuditPage](g.send("GET", "/audit?operation=store.backup", ""), 200); len(page.Entries) != 1 || page.Entries[0].Actor != "local" {
		t.Errorf("%+v", page)
	}
	if r := g.send("HEAD", "/backup", ""); r.status != 200 || len(r.raw) != 0 {
		t.Errorf("HEAD: %d and %d bytes", r.status, len(r.raw))
	}
}

// A copy of which the end is missing, or which is not what was sent, is none.
func TestBackupIncomplete(t *testing.T) {
	g := newRig(t)
	g.make(`{}`)
	for _, good := range []int64{0, 1, 4096, 50_000, 1 << 40} {
		cfg := g.config
		cfg.Maintenance = brokenCopy{maintained{Store: g.store}, good}
		g.serve(cfg)
		if _, err := g.client().Download(t.Context(), backupRequest(), io.Discard); !errors.Is(err, ErrIncomplete) {
			t.Errorf("after %d bytes: %v", good, err)
		}
		if logged := strings.Join(g.takeLog(), "\n"); !strings.Contains(logged, errDisk.Error()) {
			t.Errorf("after %d bytes the log says %q", good, logged)
		}
	}
	g.serve(g.config)
	for what, spoil := range map[string]func([]byte) []byte{
		"cut at a chunk":  func(b []byte) []byte { return b[:bytes.LastIndex(b, []byte("0\r\nContent-Digest"))] },
		"without trailer": func(b []byte) []byte { return append(b[:bytes.LastIndex(b, []byte("Content-Digest"))], "\r\n"...) },
		"one byte other":  func(b []byte) []byte { b[len(b)-2000] ^= 1; return b },
	} {
		c := NewClient(Endpoint{"tcp", spoiled(t, g.url, spoil)}, "/warder/v1")
		c.known.Store(true)
		if _, err := c.Download(t.Context(), backupRequest(), io.Discard); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := g.client().Download(t.Context(), backupRequest(), failingWriter{}); !errors.Is(err, errDisk) {
		t.Errorf("what cannot be written: %v", err)
	}
	if _, err := g.client().Download(t.Context(), Request{Method: http.MethodGet, Path: []string{"keys"}}, io.Discard); !errors.Is(err, ErrNotWarder) {
		t.Errorf("what is no copy: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errDisk }

// spoiled serves the answer to one request after it was changed on its way.
func spoiled(t *testing.T, url string, spoil func([]byte) []byte) string {
	t.Helper()
	_, address, _ := strings.Cut(url, "://")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer server.Close()
		_, _ = io.WriteString(server, "GET /warder/v1/backup HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n")
		raw, err := io.ReadAll(server)
		if err == nil {
			_, _ = client.Write(spoil(raw))
		}
	}()
	return l.Addr().String()
}

// What the store, or its key, does not allow is refused; and a mount on a
// site offers none of it.
func TestMaintenanceRefused(t *testing.T) {
	g := newRig(t)
	for _, c := range []struct {
		err  error
		code string
	}{
		{ErrMasterKeyConfigured, "master_key_configured"}, {keystore.ErrFormerMasterKey, "former_master_key"},
	} {
		cfg := g.config
		cfg.Maintenance = maintained{g.store, c.err}
		g.serve(cfg)
		g.send("POST", "/master-key/rotate", "").refused(409, c.code, "")
		g.send("POST", "/master-key/finish", "").refused(409, c.code, "")
	}
	cfg := g.config
	cfg.Maintenance = nil
	g.serve(cfg)
	for _, route := range []string{"GET /backup", "GET /master-key", "POST /master-key/rotate", "POST /master-key/finish"} {
		method, path, _ := strings.Cut(route, " ")
		g.send(method, path, "").refused(403, "local_only", "")
	}
}
