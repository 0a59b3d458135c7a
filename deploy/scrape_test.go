// Package deploy holds what runs and watches Warder. It is a module of its own
// for its tests' sake: they judge by Prometheus's own parser and engine, on
// which Warder does not depend.
package deploy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// sample is one series at one moment.
type sample struct {
	labels.Labels
	value float64
}

func (s sample) name() string { return s.Get(labels.MetricName) }

// The target's labels, which Prometheus adds to all that it scrapes.
var target = []string{"job", "warder", "instance", "warder.example:2019"}

// scraped is what a real Warder shows, as Prometheus would keep it: with the
// target's labels, and its own series "up".
var scraped = sync.OnceValues(scrape)

func show(t *testing.T) []sample {
	t.Helper()
	samples, err := scraped()
	if err != nil {
		t.Fatal(err)
	}
	return samples
}

const (
	buildTime = 10 * time.Minute
	startTime = time.Minute
)

// configuration is the least with which Warder runs.
const configuration = `{
	admin unix/admin.sock
	persist_config off
	warder {
		issuer http://localhost:8080
	}
}
`

func scrape() ([]sample, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary, err := built(dir)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(configuration), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	warder := exec.CommandContext(ctx, binary, "run")
	warder.Dir = dir
	warder.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var said strings.Builder
	warder.Stderr = &said
	if err := warder.Start(); err != nil {
		return nil, err
	}
	samples, err := ask(ctx, filepath.Join(dir, "admin.sock"))
	cancel()
	if ended := warder.Wait(); err != nil {
		return nil, fmt.Errorf("%w\n%w\n%s", err, ended, said.String())
	}
	return samples, nil
}

// built returns the binary that all tests share, or one made for this one with
// the versions that the main module names.
func built(dir string) (string, error) {
	if binary := os.Getenv("WARDER_BINARY"); binary != "" {
		return binary, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	binary := filepath.Join(dir, "warder")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/warder")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Warder: %w\n%s", err, out)
	}
	return binary, nil
}

// ask asks the admin endpoint until the configuration has been loaded.
func ask(ctx context.Context, socket string) ([]sample, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/metrics", nil)
		if err != nil {
			return nil, err
		}
		if answer, err := client.Do(r); err == nil {
			samples, err := read(answer)
			if err != nil || loaded(samples) {
				return samples, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func loaded(samples []sample) bool {
	return slices.ContainsFunc(samples, func(s sample) bool {
		return s.name() == "caddy_config_last_reload_successful" && s.value == 1
	})
}

func read(answer *http.Response) (samples []sample, err error) {
	defer answer.Body.Close()
	samples = append(samples, sample{labels.FromStrings(append([]string{labels.MetricName, "up"}, target...)...), 1})
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		end := strings.LastIndexByte(lines.Text(), ' ')
		series, err := promql.ParseMetric(lines.Text()[:max(end, 0)])
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", lines.Text(), err)
		}
		value, err := strconv.ParseFloat(lines.Text()[end+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", lines.Text(), err)
		}
		full := labels.NewBuilder(series)
		for i := 0; i < len(target); i += 2 {
			full.Set(target[i], target[i+1])
		}
		samples = append(samples, sample{full.Labels(), value})
	}
	return samples, lines.Err()
}

// promql parses as a Prometheus does that has no experiment enabled.
var promql = parser.NewParser(parser.Options{})
