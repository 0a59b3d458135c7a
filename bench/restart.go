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

// restarted is what restarts cost callers whose keys follow a Zipf
// distribution.
type restarted struct {
	rounds
	keys     int
	imported time.Duration
	down     spread   // milliseconds
	before   spread   // p99 of the seconds before, the first two left out, in microseconds
	after    []spread // p99, second by second
	ratios   []spread // to before

	requests, asked, lookups int // after all of the restarts: requests, different keys of each, look-ups
}

// measureRestart imports keys, and then asks with them, restarts, and asks
// again, time after time.
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
	m.rounds, err = takeRounds(b.rounds, func(int) ([]float64, error) { return b.restart(r, &m) })
	if err != nil {
		return m, err
	}
	m.down, m.before = halfOf(m.columns[0]), halfOf(m.columns[1])
	for i := range afterSeconds {
		m.after = append(m.after, halfOf(m.columns[2+2*i]))
		m.ratios = append(m.ratios, halfOf(m.columns[3+2*i]))
	}
	return m, nil
}

// restart restarts once. Its figures are how long nobody listened, the p99
// before, and that of each second after, each with its ratio.
func (b *bench) restart(r *running, m *restarted) ([]float64, error) {
	time.Sleep(settled) // what a server does once after its start is not what it is like before a restart
	calm, _, err := b.zipf(r, calmSeconds)
	if err != nil {
		return nil, err
	}
	before := microseconds(p99(calm.since(2*time.Second, calmSeconds*time.Second)))
	begun := time.Now()
	if err := r.stop(); err != nil {
		return nil, err
	}
	if err := r.start(nil); err != nil {
		return nil, err
	}
	figures := []float64{float64(time.Since(begun)) / float64(time.Millisecond), before}
	again, asked, err := b.zipf(r, afterSeconds)
	if err != nil {
		return nil, err
	}
	for i := range time.Duration(afterSeconds) {
		tail := microseconds(p99(again.since(i*time.Second, (i+1)*time.Second)))
		figures = append(figures, tail, tail/before)
	}
	lookups, err := r.lookups()
	m.requests, m.asked, m.lookups = m.requests+len(again.latencies), m.asked+asked, m.lookups+lookups
	return figures, err
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
