//go:build linux

// Command bench measures Warder beside other servers and beside itself. run.sh
// builds what it needs; README.md says what is measured, and how.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// bench is what all modes share.
type bench struct {
	dir        string // for what the servers keep
	warder     string // the binary as it is released
	unprofiled string // the same built without a profile; may be empty
	caddy      string
	readme     string // to write the figures into; may be empty
	plot       string
	profile    string // to write a profile to; may be empty

	rounds  int
	seconds int // of one round
	keys    int
	flooded int
	most    int    // pairs to compare; 0: all
	gogc    string // of every server of a comparison that is written in Go, so that none has it easier

	upstream int // the port of the API behind
}

// modes are what can be measured, in this order.
var modes = []struct {
	name    string
	measure func(*bench) (string, error) // the section of README.md
}{
	{"compare", (*bench).reportCompare},
	{"limits", (*bench).reportLimits},
	{"flood", (*bench).reportFlood},
	{"restart", (*bench).reportRestart},
	{"profile", (*bench).takeProfile},
}

func main() {
	// A server dies with the thread that started it: the one that does not end.
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var b bench
	flag.StringVar(&b.warder, "warder", "", "the binary that is measured")
	flag.StringVar(&b.unprofiled, "unprofiled", "", "the same built without a profile")
	flag.StringVar(&b.caddy, "caddy", "", "Caddy without Warder")
	flag.StringVar(&b.readme, "readme", "", "write the figures into this file")
	flag.StringVar(&b.plot, "plot", "", "draw the comparison into this file")
	flag.StringVar(&b.profile, "profile", "", "write the profile to this file")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of each measurement")
	flag.IntVar(&b.seconds, "seconds", 2, "seconds of each round")
	flag.IntVar(&b.keys, "keys", 100_000, "keys in the store that is restarted")
	flag.IntVar(&b.flooded, "flood", 1_000_000, "made-up keys in the flood")
	flag.IntVar(&b.most, "pairs", 0, "how many pairs to compare, the first ones (0: all)")
	awake := flag.Bool("awake", true, "keep the cores awake")
	serve := flag.Int("serve", 0, "be the API behind, on this port")
	flag.Parse()
	if *serve != 0 {
		return serveAPI(*serve)
	}
	b.gogc = cmp.Or(os.Getenv("GOGC"), "100")

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if b.dir, err = os.MkdirTemp("", "warder-bench-"); err != nil {
		return err
	}
	go func() {
		<-stop
		_ = os.RemoveAll(b.dir) // its end ends the servers
		os.Exit(1)
	}()
	defer os.RemoveAll(b.dir)
	if *awake {
		if err := keepAwake(); err != nil {
			return err
		}
	}
	api, err := startAPI(b.dir)
	if err != nil {
		return err
	}
	defer api.kill()
	b.upstream = api.port
	return b.measure(flag.Args())
}

// measure goes through the modes asked for.
func (b *bench) measure(asked []string) error {
	if len(asked) == 0 {
		return errors.New("nothing to measure: compare, limits, flood, restart or profile")
	}
	for _, name := range asked {
		known := false
		for _, mode := range modes {
			if mode.name != name {
				continue
			}
			known = true
			section, err := mode.measure(b)
			if err != nil {
				return fmt.Errorf("measuring %s: %w", name, err)
			}
			if err := b.publish(name, section); err != nil {
				return fmt.Errorf("writing the figures: %w", err)
			}
		}
		if !known {
			return fmt.Errorf("there is no measurement %q", name)
		}
	}
	return nil
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// machine says on what the figures were taken.
func (b *bench) machine() string {
	model, cores := "unknown processor", 0
	text, _ := os.ReadFile("/proc/cpuinfo") // else it stays unknown
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			cores++
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	busy, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%s, %d cores, %s, load before %s, %s", model, cores, runtime.Version(), busy, time.Now().UTC().Format(time.DateOnly))
}

// versions says what was measured.
func (b *bench) versions() string {
	var all []string
	for _, asked := range [][]string{{b.caddy, "version"}, {"nginx", "-v"}, {"haproxy", "-v"}, {"wrk", "-v"}} {
		said, _ := exec.Command(asked[0], asked[1:]...).CombinedOutput() // wrk fails after it has said it
		if line, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n"); line != "" {
			fields := strings.Fields(line)
			if asked[0] == b.caddy {
				fields = append([]string{"Caddy"}, fields[0])
			}
			all = append(all, strings.Join(fields[:min(3, len(fields))], " "))
		}
	}
	return strings.Join(all, "; ")
}
