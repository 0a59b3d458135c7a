//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes of the drawing, in its own units.
const (
	plotWidth  = 860
	plotLabels = 380 // the left part
	plotRow    = 24
	plotTop    = 56
	plotRight  = 60
)

// draw returns an SVG of the ratios: a bar for the median, a line for the
// spread, and an upright line where nothing is added.
func draw(all []costs, caption string) string {
	highest := 1.1
	for _, c := range all {
		highest = max(highest, c.ratio.high)
	}
	highest = math.Ceil(highest*10) / 10
	lowest := 0.8
	x := func(ratio float64) float64 {
		return plotLabels + (max(ratio, lowest)-lowest)/(highest-lowest)*(plotWidth-plotLabels-plotRight)
	}
	height := plotTop + plotRow*len(all) + 40
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="CPU for each request, A to B">
<style>text{fill:#24292f}.b{fill:#4c78a8}.p{fill:#9ecae9}.s{stroke:#24292f}.o{stroke:#c0392b}.g{stroke:#d0d7de}rect.bg{fill:#fff}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.s{stroke:#e6edf3}.g{stroke:#30363d}rect.bg{fill:#0d1117}}</style>
<rect class="bg" width="%d" height="%d"/>
<text x="12" y="20" font-size="15" font-weight="600">CPU for each request, A to B at the same time on one core</text>
<text x="12" y="38" font-size="11">%s</text>
`, plotWidth, height, plotWidth, height, html.EscapeString(caption))
	for tick := lowest; tick < highest+0.001; tick += gap(highest - lowest) {
		fmt.Fprintf(&s, "<line class=\"g\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.1f</text>\n",
			x(tick), x(tick), plotTop-6, height-30, x(tick), height-14, tick)
	}
	for i, c := range all {
		y := float64(plotTop + plotRow*i)
		class, where := "b", ""
		if c.pair.a.proxied {
			class, where = "p", ", proxied"
		}
		fmt.Fprintf(&s, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>", plotLabels-8, y+14, html.EscapeString(c.pair.a.name+" / "+c.pair.b.name+where))
		fmt.Fprintf(&s, "<rect class=\"%s\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"14\"/>", class, plotLabels, y+3, x(c.ratio.median)-plotLabels)
		fmt.Fprintf(&s, "<line class=\"s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", x(c.ratio.low), x(c.ratio.high), y+10, y+10)
		fmt.Fprintf(&s, "<text x=\"%.1f\" y=\"%.1f\">%.3f</text>\n", x(c.ratio.high)+6, y+14, c.ratio.median)
	}
	fmt.Fprintf(&s, "<line class=\"o\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n</svg>\n", x(1), x(1), plotTop-6, height-30)
	return s.String()
}

// gap is how far the upright lines are apart.
func gap(width float64) float64 {
	for _, g := range []float64{0.1, 0.2, 0.5, 1, 2, 5} {
		if width/g <= 8 {
			return g
		}
	}
	return 10
}
