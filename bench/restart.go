//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	errOwnerRefused     = errors.New("the owner of a good key was refused")
	errUnexpectedAnswer = errors.New("an answer was not the one expected")
)

const (
	restartRate  = 1000 // requests a second
	zipfExponent = 1.1
	calmSeconds  = 6
	afterSeconds = 6
)

// restarted is what a restart cost callers whose keys follow a Zipf
// distribution.
type restarted struct {
	keys, asked      int
	imported, down   time.Duration
	before           time.Duration   // p99 of the seconds before, the first two left out
	after            []time.Duration // p99, second by second
	lookups, request int
}

// measureRestart imports keys, asks with them, restarts, and asks again.
func (b *bench) measureRestart() (m restarted, err error) {
	c := contender{name: "Warder, keys", program: b.warder, style: warder, kind: key, proxied: true, keys: b.keys}
	r, err := c.run(filepath.Join(b.dir, "restart"), b.upstream, nil)
	if err != nil {
		return m, err
	}
	defer func() { r.kill() }()
	m.keys = b.keys
	begun := time.Now()
	if err := b.importKeys(r); err != nil {
		return m, err
	}
	m.imported = time.Since(begun)
	calm, _, err := b.zipf(r, calmSeconds)
	if err != nil {
		return m, err
	}
	m.before = p99(calm.since(2*time.Second, calmSeconds*time.Second))
	begun = time.Now()
	if err := r.stop(); err != nil {
		return m, err
	}
	if err := r.start(nil); err != nil {
		return m, err
	}
	m.down = time.Since(begun)
	again, distinct, err := b.zipf(r, afterSeconds)
	if err != nil {
		return m, err
	}
	for i := range time.Duration(afterSeconds) {
		m.after = append(m.after, p99(again.since(i*time.Second, (i+1)*time.Second)))
	}
	m.asked, m.request = distinct, len(again.latencies)
	m.lookups, err = r.lookups()
	return m, err
}

// credentialOf is the i-th of the imported credentials.
func credentialOf(i uint64) string { return fmt.Sprintf("imported-credential-%012d", i) }

func (b *bench) importKeys(r *running) error {
	var rows bytes.Buffer
	rows.WriteString("sha256,name\n")
	for i := range b.keys {
		fmt.Fprintf(&rows, "%x,key-%d\n", sha256.Sum256([]byte(credentialOf(uint64(i)))), i)
	}
	cmd := pinned(clientCore, []string{r.program, "import", "--address", fmt.Sprintf("127.0.0.1:%d", r.Admin)})
	cmd.Env = append(os.Environ(), "HOME="+r.dir)
	cmd.Stdin = &rows
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("importing keys: %w:\n%s", err, said)
	}
	return nil
}

// zipf asks with keys of which few are asked for often and most are seldom, and
// returns how many different ones that were.
func (b *bench) zipf(r *running, seconds int) (answers, int, error) {
	const connections = 8
	perConnection := restartRate * seconds / connections
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same each time
	pick := rand.NewZipf(random, zipfExponent, 1, uint64(b.keys-1))
	distinct := make(map[uint64]bool)
	texts := make([][]byte, connections*perConnection)
	for i := range texts {
		k := pick.Uint64()
		distinct[k] = true
		texts[i] = r.request("Bearer " + credentialOf(k))
	}
	a, err := load{
		address: r.address(), rate: restartRate, connections: connections, requests: len(texts), want: 200,
		request: func(connection, n int) []byte { return texts[n*connections+connection] },
	}.run()
	if err == nil && a.failed > 0 {
		err = errUnexpectedAnswer
	}
	return a, len(distinct), err
}

var lookupsLine = regexp.MustCompile(`(?m)^warder_store_lookups_total (\S+)$`)

// lookups returns how many keys this process has read from its store.
func (r *running) lookups() (int, error) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", r.Admin))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var text strings.Builder
	if err := resp.Write(&text); err != nil {
		return 0, err
	}
	found := lookupsLine.FindStringSubmatch(text.String())
	if found == nil {
		return 0, errors.New("there is no metric of look-ups")
	}
	n, err := strconv.ParseFloat(found[1], 64)
	return int(n), err
}
