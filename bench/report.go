//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// publish writes a section between its marks in README.md, and on the terminal.
func (b *bench) publish(name, section string) error {
	if section == "" {
		return nil
	}
	fmt.Println(section)
	if b.readme == "" {
		return nil
	}
	text, err := os.ReadFile(b.readme)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s has no place for %q", b.readme, name)
	}
	return os.WriteFile(b.readme, []byte(before+begin+"\n"+section+"\n"+end+after), 0o644) //nolint:gosec // it is published
}

func (b *bench) reportCompare() (string, error) {
	machine := b.machine()
	all, err := b.compare()
	if err != nil {
		return "", err
	}
	if b.plot != "" {
		if err := os.WriteFile(b.plot, []byte(draw(all, machine)), 0o644); err != nil { //nolint:gosec // it is published
			return "", err
		}
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s. %s. %d rounds of %d s; medians, and the lowest and highest of the ratios.\n", machine, b.versions(), b.rounds, b.seconds)
	for _, proxied := range []bool{false, true} {
		title := "Answering by itself"
		if proxied {
			title = "With an API behind"
		}
		fmt.Fprintf(&s, "\n%s:\n\n| A | B | A, µs of CPU | B, µs of CPU | A/B | spread |\n| --- | --- | ---: | ---: | ---: | --- |\n", title)
		for _, c := range all {
			if c.pair.a.proxied == proxied {
				fmt.Fprintf(&s, "| %s | %s | %.1f | %.1f | %.3f | %.3f–%.3f |\n",
					c.pair.a.name, c.pair.b.name, c.a.median, c.b.median, c.ratio.median, c.ratio.low, c.ratio.high)
			}
		}
	}
	return s.String(), nil
}

func (b *bench) reportLimits() (string, error) {
	var s strings.Builder
	fmt.Fprintf(&s, "%s. %d requests a second, open loop, %d rounds of %d s each, in turn.\n\n", b.machine(), limitedRate, b.rounds, 2*b.seconds)
	fmt.Fprintf(&s, "| | p50 without | p50 with a key | p99 without | p99 with a key | added p99 | spread | RSS | of which its own | highest RSS | failed |\n| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n")
	how := ""
	for _, proxied := range []bool{false, true} {
		m, err := b.measureLimits(proxied)
		if err != nil {
			return "", err
		}
		title := "answering by itself"
		if proxied {
			title = "with an API behind"
		}
		how = m.how
		fmt.Fprintf(&s, "| %s | %.0f µs | %.0f µs | %.0f µs | %.0f µs | %.0f µs | %.0f–%.0f µs | %s | %s | %s | %d of %d |\n", title,
			m.bareP50.median, m.keyP50.median, m.bare.median, m.key.median, m.added.median, m.added.low, m.added.high,
			mebibytes(m.memory.resident), mebibytes(m.memory.anonymous), mebibytes(m.memory.peak), m.failed, m.sent)
	}
	fmt.Fprintf(&s, "\n%.2f CPU and %s: %s.\n", limitedCPU, mebibytes(limitedMemory), how)
	return s.String(), nil
}

func (b *bench) reportFlood() (string, error) {
	machine := b.machine()
	f, err := b.measureFlood()
	if err != nil {
		return "", err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s. The owner of a good key asks %d times a second; beside it come %d requests a second.\n\n", machine, ownerRate, floodRate)
	fmt.Fprintf(&s, "| beside the owner | owner's p99 | spread | to alone |\n| --- | ---: | --- | ---: |\n")
	for _, row := range []struct {
		name string
		p99  spread
	}{
		{"nobody", f.alone}, {"the same rate of good requests", f.crowd},
		{fmt.Sprintf("a flood of %d made-up keys", f.keys), f.flood}, {"nobody, afterwards", f.after},
	} {
		fmt.Fprintf(&s, "| %s | %.0f µs | %.0f–%.0f µs | %.2f |\n", row.name, row.p99.median, row.p99.low, row.p99.high, row.p99.median/f.alone.median)
	}
	fmt.Fprintf(&s, "\nRSS before and after: %s, %s.\n", mebibytes(f.memoryBefore.resident), mebibytes(f.memoryAfter.resident))
	return s.String(), nil
}

func (b *bench) reportRestart() (string, error) {
	machine := b.machine()
	m, err := b.measureRestart()
	if err != nil {
		return "", err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s. %d keys, imported in %s; %d requests a second, Zipf with exponent %.1f.\n\n",
		machine, m.keys, m.imported.Round(time.Second/10), restartRate, zipfExponent)
	fmt.Fprintf(&s, "| when | p99 | to before |\n| --- | ---: | ---: |\n| before the restart | %.0f µs | 1.00 |\n", microseconds(m.before))
	for i, tail := range m.after {
		fmt.Fprintf(&s, "| second %d after it | %.0f µs | %.2f |\n", i+1, microseconds(tail), float64(tail)/float64(m.before))
	}
	fmt.Fprintf(&s, "\nFrom the signal to the first connection: %s. %d requests with %d different keys after it, %d look-ups in the store.\n",
		m.down.Round(time.Millisecond), m.request, m.asked, m.lookups)
	return s.String(), nil
}

func mebibytes(n int) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
