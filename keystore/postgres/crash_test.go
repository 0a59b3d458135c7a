//go:build unix

package postgres

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

const (
	crashURLEnv   = "WARDER_TEST_CRASH_URL"
	crashAcksEnv  = "WARDER_TEST_CRASH_ACKS"
	crashRoundEnv = "WARDER_TEST_CRASH_ROUND"
	crashSeedEnv  = "WARDER_CRASH_SEED" // replays the delays of a failed run
	crashKills    = 24
)

// TestKill9 kills a process that writes, or the whole server, again and again,
// at a random moment: of the first start, of later ones, of its writing. What
// was acknowledged is there; everything else is there whole, with log row,
// entry of the audit log and reply, or not at all.
func TestKill9(t *testing.T) {
	if url := os.Getenv(crashURLEnv); url != "" {
		writeUntilKilled(url, os.Getenv(crashAcksEnv), os.Getenv(crashRoundEnv))
		return
	}
	if testing.Short() {
		t.Skip("kills processes for some seconds")
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(crashSeedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", crashSeedEnv, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	server := postgrestest.Start(t, postgrestest.Options{})
	c := crash{server: server, url: server.Database(), acks: filepath.Join(t.TempDir(), "acks"), revisions: map[keystore.Revision]string{}}
	for round := range crashKills {
		writing, ofServer := round%2 == 1, round%6 == 5
		c.kill(t, round, writing, ofServer, time.Duration(random.Int64N(int64(150*time.Millisecond))))
		c.check(t, round)
	}
	if c.acknowledged < crashKills {
		t.Errorf("only %d acknowledgements in all: there was nothing to lose", c.acknowledged)
	}
	t.Logf("%d acknowledged, %d found beyond them, last revision %d", c.acknowledged, len(c.revisions)/2-c.acknowledged, c.head.Revision)
}

// writeUntilKilled is the child: four writers, each change two keys and a
// reply, each acknowledged in a file after Transact has returned.
func writeUntilKilled(url, acksPath, round string) {
	s, err := Open(context.Background(), Config{URL: keystore.Secret(url)}, testGenesis)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	acks, err := os.OpenFile(acksPath, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("r%sw%dn%d", round, w, n)
				revision, err := s.Transact(context.Background(), func(tx keystore.Tx) error {
					a, b := testKey("key_"+name+"_a"), testKey("key_"+name+"_b")
					return errors.Join(tx.PutKey(&a), tx.PutReply(crashReply(name)), tx.PutKey(&b),
						tx.AppendAudit(&keystore.AuditEntry{Object: string(a.ID)}), tx.AppendAudit(&keystore.AuditEntry{Object: string(b.ID)}))
				})
				if errors.Is(err, keystore.ErrUnavailable) {
					time.Sleep(time.Millisecond) // the server is killed first
					continue
				}
				if err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				_, err = fmt.Fprintf(acks, "%s %d\n", name, revision)
				if err = errors.Join(err, acks.Sync()); err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
			}
		})
	}
	writers.Wait()
}

func crashReply(name string) keystore.Reply {
	r := keystore.Reply{Key: keystore.KeyID("key_" + name + "_a"), Sealed: []byte(name), Created: 1}
	copy(r.ID[:], name)
	return r
}

// crash is what the parent knows.
type crash struct {
	server       *postgrestest.Server
	url, acks    string
	ackOffset    int64
	acknowledged int
	last         keystore.Number
	head         keystore.Position
	revisions    map[keystore.Revision]string // of every key ever seen
}

// kill starts a child and kills it, or the server before it, after the given
// time, counted from its first acknowledgement if it is to be killed while
// writing.
func (c *crash) kill(t *testing.T, round int, writing, ofServer bool, after time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill9$")
	cmd.Env = append(os.Environ(), crashURLEnv+"="+c.url, crashAcksEnv+"="+c.acks, crashRoundEnv+"="+strconv.Itoa(round))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); writing && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if info, err := os.Stat(c.acks); err == nil && info.Size() > c.ackOffset {
			break
		}
	}
	time.Sleep(after)
	if ofServer {
		c.server.Kill()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if ofServer {
		c.server.Restart()
	}
	if out.Len() != 0 {
		t.Fatalf("round %d: the child ended by itself: %s", round, &out)
	}
}

// check opens the store as the next process does and compares.
func (c *crash) check(t *testing.T, round int) {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: keystore.Secret(c.url)}, testGenesis)
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer s.Close()
	// Behind whatever the server has not noticed yet that nobody waits for.
	if _, err := s.Transact(t.Context(), func(keystore.Tx) error { return nil }); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	found := c.newKeys(t, s)
	for _, ack := range c.newAcks(t) {
		r, ok := found["key_"+ack.name+"_b"]
		if !ok || r.Revision != ack.revision {
			t.Fatalf("round %d: %s was acknowledged at revision %d; found: %v, at %d", round, ack.name, ack.revision, ok, r.Revision)
		}
		c.acknowledged++
	}
	c.checkWhole(t, s, found)
	c.checkLog(t, s, found)
}

// newKeys returns the keys that were not there at the last check.
func (c *crash) newKeys(t *testing.T, s *Store) map[string]keystore.Record {
	t.Helper()
	found := map[string]keystore.Record{}
	for more := true; more; {
		page, err := s.List(t.Context(), keystore.Query{After: c.last, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			if other, taken := c.revisions[r.Revision]; taken {
				t.Fatalf("revision %d belongs to %s and %s", r.Revision, other, r.ID)
			}
			c.revisions[r.Revision], c.last = string(r.ID), r.Number
			found[string(r.ID)] = r
		}
		more = page.More
	}
	return found
}

type ack struct {
	name     string
	revision keystore.Revision
}

// newAcks returns what the child acknowledged since the last check.
func (c *crash) newAcks(t *testing.T) (acks []ack) {
	t.Helper()
	content, err := os.ReadFile(c.acks)
	if err != nil {
		return nil // killed before the first
	}
	lines := bufio.NewScanner(bytes.NewReader(content[c.ackOffset:]))
	for lines.Scan() {
		var a ack
		if _, err := fmt.Sscan(lines.Text(), &a.name, &a.revision); err != nil {
			t.Fatalf("acknowledgement %q: %v", lines.Text(), err)
		}
		acks = append(acks, a)
	}
	c.ackOffset = int64(len(content))
	return acks
}

// checkWhole: of each change there is everything, and every way to it leads there.
func (c *crash) checkWhole(t *testing.T, s *Store, found map[string]keystore.Record) {
	t.Helper()
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		for id := range found {
			name := id[len("key_") : len(id)-len("_a")]
			reply, kept, err := tx.Reply(crashReply(name).ID)
			if err != nil || !kept || string(reply.Sealed) != name {
				t.Errorf("%s is there, its reply: %v %v", id, kept, err)
			}
			for _, half := range []string{"_a", "_b"} {
				if _, ok := found["key_"+name+half]; !ok {
					t.Errorf("%s is there, its other half is not", id)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range found {
		if got, _, err := s.Lookup(t.Context(), keystore.LookupID(r.Current.AccessKey)); err != nil || got != r {
			t.Errorf("%s by its access key: %+v %v", id, got, err)
		}
		if page, err := s.Audit(t.Context(), keystore.AuditQuery{Object: id, Limit: 2}); err != nil || len(page.Entries) != 1 {
			t.Errorf("%s is there, its entries: %d %v", id, len(page.Entries), err)
		}
	}
}

// checkLog: the log goes on from where it was, without a gap, one row for each
// key and each key with its row.
func (c *crash) checkLog(t *testing.T, s *Store, found map[string]keystore.Record) {
	t.Helper()
	if c.head == (keystore.Position{}) {
		row := s.pool.QueryRow(t.Context(), "SELECT revision, mark FROM log WHERE revision = 1")
		if err := row.Scan(number(&c.head.Revision), number(&c.head.Mark)); err != nil {
			t.Fatal(err)
		}
	}
	rows := 0
	for {
		batch, err := s.Changes(t.Context(), c.head, 500)
		if err != nil {
			t.Fatalf("after %v: %v", c.head, err)
		}
		for _, change := range batch.Changes {
			if change.Revision != c.head.Revision+1 {
				t.Fatalf("revision %d follows %d", change.Revision, c.head.Revision)
			}
			if r, ok := found[change.Name]; !ok || r.Revision != change.Revision || change.Key == nil || *change.Key != r {
				t.Fatalf("log row %d is of %s, which is there: %v, at revision %d", change.Revision, change.Name, ok, r.Revision)
			}
			c.head, rows = change.Position, rows+1
		}
		if c.head == batch.Head {
			break
		}
	}
	if rows != len(found) {
		t.Errorf("%d log rows for %d new keys", rows, len(found))
	}
}
