package deploy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what a test looks at of Grafana's model (schema version 38,
// that of Grafana 10).
type dashboard struct {
	UID           string
	Title         string
	ID            *int // Grafana's own; absent in a file
	SchemaVersion int
	Panels        []panel
	Templating    struct{ List []variable }
	Annotations   struct {
		List []struct{ Expr, TextFormat string }
	}
}

type panel struct {
	ID          int
	Type, Title string
	Datasource  datasource
	GridPos     struct{ X, Y, W, H int }
	Targets     []question
}

type datasource struct{ Type, UID string }

type question struct {
	RefID, Expr, LegendFormat string
	Datasource                datasource
}

type variable struct {
	Name, Type string
	Query      json.RawMessage
	Datasource datasource
}

const dashboardFile = "grafana/warder.json"

func loadDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// chosen is what Grafana puts in for its variables.
var chosen = strings.NewReplacer("$__rate_interval", "1m", "$job", ".+", "$instance", ".+")

// Every expression asks for what a running Warder shows, of the nodes chosen,
// and every legend names a label that there is.
func TestDashboardExpressions(t *testing.T) {
	d, shown := loadDashboard(t), show(t)
	check := func(what, expr, legend string) {
		if strings.Count(expr, `{job=~"$job", instance=~"$instance"`) != strings.Count(expr, "{") {
			t.Errorf("%s: %s does not keep to the nodes chosen", what, expr)
		}
		known := checkExpression(t, what, chosen.Replace(expr), shown)
		for _, name := range legendLabel.FindAllStringSubmatch(legend, -1) {
			if !slices.Contains(known, name[1]) {
				t.Errorf("%s: the legend names %s, which no series has", what, name[1])
			}
		}
	}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			check(fmt.Sprintf("%s, %s", p.Title, q.RefID), q.Expr, q.LegendFormat)
		}
	}
	for _, a := range d.Annotations.List {
		check("annotation", a.Expr, a.TextFormat)
	}
}

var (
	legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
)

// The variables find their values in what Warder shows.
func TestDashboardVariables(t *testing.T) {
	names := []string{}
	for _, v := range loadDashboard(t).Templating.List {
		names = append(names, v.Name+" "+v.Type)
		if v.Type != "query" {
			continue
		}
		var query struct{ Query string }
		if err := json.Unmarshal(v.Query, &query); err != nil {
			t.Fatal(err)
		}
		parts := labelValues.FindStringSubmatch(query.Query)
		if parts == nil {
			t.Fatalf("%s: %q", v.Name, query.Query)
		}
		if known := checkExpression(t, v.Name, chosen.Replace(parts[1]), show(t)); !slices.Contains(known, parts[2]) {
			t.Errorf("%s: no series has the label %s", v.Name, parts[2])
		}
		checkDatasource(t, v.Name, v.Datasource)
	}
	if want := []string{"datasource datasource", "job query", "instance query"}; !slices.Equal(names, want) {
		t.Errorf("the variables are %q, want %q", names, want)
	}
}

func checkDatasource(t *testing.T, what string, d datasource) {
	t.Helper()
	if d != (datasource{"prometheus", "${datasource}"}) {
		t.Errorf("%s asks %+v, and not what is chosen", what, d)
	}
}

// The file can be imported as it is: it has no identifier of one Grafana,
// every panel has its own, a title, a place on the grid and a data source that
// is chosen.
func TestDashboardImports(t *testing.T) {
	d := loadDashboard(t)
	if d.ID != nil || d.UID != "warder" || d.Title != "Warder" || d.SchemaVersion != 38 {
		t.Errorf("id %v, uid %q, title %q, schema %d", d.ID, d.UID, d.Title, d.SchemaVersion)
	}
	taken, ids := make(map[[2]int]string), make(map[int]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" {
			t.Errorf("%q has the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		occupy(t, taken, p)
		if p.Type == "row" {
			continue
		}
		checkDatasource(t, p.Title, p.Datasource)
		refs := make(map[string]bool)
		for _, q := range p.Targets {
			checkDatasource(t, p.Title, q.Datasource)
			if refs[q.RefID] || q.RefID == "" {
				t.Errorf("%s has two queries %q", p.Title, q.RefID)
			}
			refs[q.RefID] = true
		}
		if len(refs) == 0 {
			t.Errorf("%s asks nothing", p.Title)
		}
	}
}

// occupy takes a panel's place on the grid of 24 columns.
func occupy(t *testing.T, taken map[[2]int]string, p panel) {
	t.Helper()
	g := p.GridPos
	if g.X < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
		t.Errorf("%s lies at %+v", p.Title, g)
	}
	for x := g.X; x < g.X+g.W; x++ {
		for y := g.Y; y < g.Y+g.H; y++ {
			if other := taken[[2]int{x, y}]; other != "" {
				t.Fatalf("%s lies on %s", p.Title, other)
			}
			taken[[2]int{x, y}] = p.Title
		}
	}
}
