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
	machine := b.machine()
	var (
		table, taken strings.Builder
		how          string
	)
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
		fmt.Fprintf(&taken, " %s: %s.", strings.ToUpper(title[:1])+title[1:], m.rounds)
		fmt.Fprintf(&table, "| %s | %.0f µs | %.0f µs | %.0f µs | %.0f µs | %.0f µs | %.0f–%.0f µs | %s | %s | %s | %d of %d |\n", title,
			m.bareP50.median, m.keyP50.median, m.bare.median, m.key.median, m.added.median, m.added.low, m.added.high,
			mebibytes(m.memory.resident), mebibytes(m.memory.anonymous), mebibytes(m.memory.peak), m.failed, m.sent)
	}
	return fmt.Sprintf("%s. %d requests a second, open loop, %d s a round, in turn; medians, and the middle half of the rounds.%s\n\n"+
		"| | p50 without | p50 with a key | p99 without | p99 with a key | added p99 | middle half | RSS | of which its own | highest RSS | failed |\n"+
		"| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n%s\n%.2f CPU and %s: %s.\n",
		machine, limitedRate, b.seconds, taken.String(), table.String(), limitedCPU, mebibytes(limitedMemory), how), nil
}

func (b *bench) reportFlood() (string, error) {
	machine := b.machine()
	f, err := b.measureFlood()
	if err != nil {
		return "", err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s. The owner of a good key asks %d times a second; beside it come %d requests a second. %d s a round, in turn; medians, and the middle half of the rounds: %s.\n\n",
		machine, ownerRate, floodRate, b.seconds, f.rounds)
	fmt.Fprintf(&s, "| beside the owner | owner's p99 | middle half | to alone | middle half |\n| --- | ---: | --- | ---: | --- |\n")
	for _, row := range []struct {
		name       string
		p99, ratio spread
	}{
		{"nobody", f.alone, spread{1, 1, 1}},
		{"the same rate of good requests", f.crowd, f.crowdRatio},
		{"a flood of made-up keys", f.flood, f.floodRatio},
	} {
		fmt.Fprintf(&s, "| %s | %.0f µs | %.0f–%.0f µs | %.2f | %.2f–%.2f |\n",
			row.name, row.p99.median, row.p99.low, row.p99.high, row.ratio.median, row.ratio.low, row.ratio.high)
	}
	fmt.Fprintf(&s, "\n%d made-up keys in all. RSS after the first round: %s, after the last: %s.\n", f.keys, mebibytes(f.memoryBefore.resident), mebibytes(f.memoryAfter.resident))
	return s.String(), nil
}

func (b *bench) reportRestart() (string, error) {
	machine := b.machine()
	m, err := b.measureRestart()
	if err != nil {
		return "", err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s. %d keys, imported in %s; %d requests a second, Zipf with exponent %.1f. Medians, and the middle half of the rounds: %s.\n\n",
		machine, m.keys, m.imported.Round(time.Second/10), restartRate, zipfExponent, m.rounds)
	fmt.Fprintf(&s, "| when | p99 | middle half | to before | middle half |\n| --- | ---: | --- | ---: | --- |\n| before the restart | %.0f µs | %.0f–%.0f µs | 1.00 | 1.00–1.00 |\n",
		m.before.median, m.before.low, m.before.high)
	for i, tail := range m.after {
		ratio := m.ratios[i]
		fmt.Fprintf(&s, "| second %d after it | %.0f µs | %.0f–%.0f µs | %.2f | %.2f–%.2f |\n", i+1, tail.median, tail.low, tail.high, ratio.median, ratio.low, ratio.high)
	}
	fmt.Fprintf(&s, "\nFrom the signal to the first connection: %.0f ms (%.0f–%.0f). After all of the restarts %d requests with %d different keys, counted for each restart anew, and %d look-ups in the store.\n",
		m.down.median, m.down.low, m.down.high, m.requests, m.asked, m.lookups)
	return s.String(), nil
}

func mebibytes(n int) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
