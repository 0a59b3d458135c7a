package managementapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The document and the table say the same: each route is described, and each
// description is a route, by method, path, name, query and scope.
func TestDocumentAndRoutesAgree(t *testing.T) {
	described := documented.operations()
	routed := make(map[string]bool)
	for _, rt := range routes {
		name := rt.method + " " + documentPath(rt.pattern)
		routed[name] = true
		op, ok := described[name]
		if !ok {
			t.Errorf("%s is not described", name)
			continue
		}
		if op.OperationID != rt.operation {
			t.Errorf("%s is %q in the document and %q in the table", name, op.OperationID, rt.operation)
		}
		if got, want := op.demands(), demandOf(rt); got != want {
			t.Errorf("%s demands %s in the document and %s in the table", name, got, want)
		}
		query, path := op.parameters("query"), op.parameters("path")
		if got, want := strings.Join(query, " "), strings.Join(slices.Sorted(slices.Values(rt.parameters())), " "); got != want {
			t.Errorf("%s takes %q in the document and %q in the table", name, got, want)
		}
		for _, p := range path {
			if !strings.Contains(rt.pattern, "{"+p+"}") {
				t.Errorf("%s has no %s", name, p)
			}
		}
		if strings.Count(rt.pattern, "{") != len(path) && rt.pattern != "/{$}" {
			t.Errorf("%s describes %v", name, path)
		}
	}
	for name := range described {
		if !routed[name] {
			t.Errorf("%s is described, but there is no such route", name)
		}
	}
}

func demandOf(rt route) string {
	switch rt.scope {
	case anybody:
		return "nothing"
	case anyCaller:
		return "a credential"
	default:
		return rt.scope
	}
}

// A header that cannot be meant as it stands is refused by the routes that
// understand it, which are those that describe it.
func TestDocumentedHeaders(t *testing.T) {
	g := newRig(t)
	bad := map[string]string{"If-Match": "no tag", "Idempotency-Key": "no key"}
	for _, rt := range routes {
		op := documented.operations()[rt.method+" "+documentPath(rt.pattern)]
		for name, value := range bad {
			path := g.pathTo(rt, g.changed(`{"expires_in_days":30}`, "rotate"))
			var p Problem
			_ = json.Unmarshal(g.send(rt.method, path, bodyFor(rt, "default"), name, value).raw, &p) // an answer is no Problem
			if described := slices.Contains(op.parameters("header"), name); described != (p.Code == "invalid_header") {
				t.Errorf("%s %s: %s is described: %v, and answered %q", rt.method, path, name, described, p.Code)
			}
		}
	}
}

// Each field that the document names is one that the route knows: of a wrong
// type it is invalid, and not unknown.
func TestDocumentedFields(t *testing.T) {
	g := newRig(t)
	for _, rt := range routes {
		op := documented.operations()[rt.method+" "+documentPath(rt.pattern)]
		for _, name := range op.fields() {
			path := g.pathTo(rt, g.changed(`{"expires_in_days":30}`, "rotate"))
			body := fmt.Sprintf(`{%q:[[1]]}`, name)
			g.send(rt.method, path, body).refused(400, "invalid_field", "/"+name)
		}
	}
}

func TestDocumentedCodes(t *testing.T) {
	want := []string{"internal", "invalid_field", "invalid_parameter", "invalid_header"}
	for _, row := range slices.Concat(callerTable, readinessTable, errorTable) {
		want = append(want, row.code)
	}
	slices.Sort(want)
	var got []string
	for _, code := range documented.value().Components.Schemas["Code"].Enum {
		got = append(got, fmt.Sprint(code))
	}
	if got, want := strings.Join(slices.Sorted(slices.Values(got)), " "), strings.Join(slices.Compact(want), " "); got != want {
		t.Errorf("described:\n%s\nin the tables:\n%s", got, want)
	}
}

// Whoever reaches the mount gets the document, and it says where the mount is.
func TestDocumentIsOpenAndNamesItsMount(t *testing.T) {
	g := newRig(t)
	g.refuseCallers(errDisk)
	r := g.send("GET", "/openapi.json", "")
	doc := ok[openAPI](r, 200)
	if doc.OpenAPI != "3.1.0" || len(doc.Servers) != 1 || doc.Servers[0].URL != "/warder/v1" || r.header.Get("Content-Type") != jsonType {
		t.Errorf("%+v %v", doc.Servers, r.header)
	}
	g.send("GET", "/openapi.json?x=1", "").refused(400, "invalid_parameter", "x")
	g.send("GET", "/openapi.json", "", "Origin", "http://evil.example").refused(403, "cross_origin", "")
	g.send("GET", "/keys", "").refused(500, "internal", "")
}

// redocly is the linter and its version, so that a new rule of its does not
// break an old commit.
const redocly = "@redocly/cli@2.77.0"

// What people generate clients with finds nothing in the document.
func TestDocumentIsLinted(t *testing.T) {
	npx, err := exec.LookPath("npx")
	if err != nil {
		t.Skip("SKIPPED: THE OPENAPI DOCUMENT IS NOT LINTED: there is no npx here; install Node.js")
	}
	run := func(arguments ...string) ([]byte, error) {
		c := exec.CommandContext(t.Context(), npx, append([]string{"--yes", redocly}, arguments...)...)
		c.Dir = t.TempDir() // no configuration of anybody's
		c.Env = append(os.Environ(), "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true")
		return c.Output()
	}
	if _, err := run("--version"); err != nil {
		t.Skipf("SKIPPED: THE OPENAPI DOCUMENT IS NOT LINTED: %s cannot be had here: %v", redocly, err)
	}
	file := filepath.Join(t.TempDir(), "openapi.json")
	if err := os.WriteFile(file, documentAt("/warder/v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run("lint", "--extends=recommended", "--format=json", file)
	var found struct {
		Totals   struct{ Errors, Warnings, Ignored int }
		Problems []struct{ Message string }
	}
	if jsonErr := json.Unmarshal(out, &found); jsonErr != nil {
		t.Fatalf("%v, %v: %s", err, jsonErr, out)
	}
	if err != nil || found.Totals.Errors+found.Totals.Warnings+found.Totals.Ignored != 0 {
		t.Errorf("%v: %+v", err, found)
	}
}

// documented is the document, read once.
var documented document

// document holds every answer in the tests to what is described.
type document struct {
	once     sync.Once
	parsed   openAPI
	compiler *jsonschema.Compiler
	mux      *http.ServeMux

	mu      sync.Mutex // guards schemas
	schemas map[string]*jsonschema.Schema
}

// openAPI is as much of the format as the tests read.
type openAPI struct {
	OpenAPI    string
	Servers    []struct{ URL string }
	Paths      map[string]map[string]operation
	Components struct {
		Schemas    map[string]struct{ Enum []any }
		Parameters map[string]parameter
	}
}

type operation struct {
	OperationID string
	Security    []map[string][]string
	Parameters  []parameter
	RequestBody *struct {
		Content map[string]struct {
			Schema struct {
				Ref string `json:"$ref"`
			}
		}
	}
	Responses map[string]json.RawMessage
}

type parameter struct {
	Ref      string `json:"$ref"`
	Name, In string
}

func (d *document) load() {
	d.once.Do(func() {
		must(json.Unmarshal(openapi, &d.parsed))
		raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(openapi))
		must(err)
		closeAnswers(raw)
		d.compiler = jsonschema.NewCompiler()
		d.compiler.AssertFormat()
		must(d.compiler.AddResource("openapi.json", raw))
		d.mux, d.schemas = New(Config{Prefix: "/warder/v1"}).mux, make(map[string]*jsonschema.Schema)
	})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// closeAnswers makes every object with named members refuse others: clients
// have to live with new ones, these tests have not. What is laid over another
// schema is closed as a whole, where it is referred to or, in an answer, stands.
func closeAnswers(doc any) {
	schemas := doc.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any)
	var walk func(v any, laidOver bool)
	walk = func(v any, laidOver bool) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item, laidOver)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && !laidOver {
				if target, ok := schemas[ref[strings.LastIndex(ref, "/")+1:]].(map[string]any); ok && (target["properties"] != nil || target["allOf"] != nil) && target["additionalProperties"] == nil {
					v["unevaluatedProperties"] = false
				}
			}
			for name, member := range v {
				if schema, ok := member.(map[string]any); ok && name == "schema" && schema["allOf"] != nil {
					schema["unevaluatedProperties"] = false
				}
				walk(member, name == "allOf")
			}
		}
	}
	walk(doc, false)
}

func (d *document) value() *openAPI {
	d.load()
	return &d.parsed
}

// operations are all that is described, by method and path.
func (d *document) operations() map[string]*operation {
	all := make(map[string]*operation)
	for path, methods := range d.value().Paths {
		for method, op := range methods {
			all[strings.ToUpper(method)+" "+path] = &op
		}
	}
	return all
}

func documentPath(pattern string) string {
	if pattern == "" || pattern == "/{$}" {
		return "/"
	}
	return pattern
}

func (op *operation) demands() string {
	switch {
	case len(op.Security) == 0:
		return "nothing"
	case len(op.Security[0]["credential"]) == 0:
		return "a credential"
	default:
		return strings.Join(op.Security[0]["credential"], " ")
	}
}

// parameters returns the names of those in a place, sorted.
func (op *operation) parameters(in string) []string {
	var names []string
	for _, p := range op.Parameters {
		if p.Ref != "" {
			p = documented.value().Components.Parameters[p.Ref[strings.LastIndex(p.Ref, "/")+1:]]
		}
		if p.In == in {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// fields returns the names of the members of the body, sorted.
func (op *operation) fields() []string {
	if op.RequestBody == nil {
		return nil
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	must(json.Unmarshal(openapi, &doc))
	ref := op.RequestBody.Content[jsonType].Schema.Ref
	return slices.Sorted(maps.Keys(doc.Components.Schemas[ref[strings.LastIndex(ref, "/")+1:]].Properties))
}

// check holds an answer to the document, and what was asked, if it was done.
func (d *document) check(t *testing.T, r *http.Request, asked string, resp *http.Response, raw []byte) {
	t.Helper()
	d.load()
	_, pattern := d.mux.Handler(r)
	if pattern == "" || r.Method == http.MethodHead {
		return
	}
	method, path, _ := strings.Cut(pattern, " ")
	path = documentPath(strings.TrimPrefix(path, "/warder/v1"))
	pointer := "/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/" + strings.ToLower(method)
	name := method + " " + path
	op := d.operations()[name]
	if op == nil {
		t.Errorf("%s is not described", name)
		return
	}
	status := strconv.Itoa(resp.StatusCode)
	answer := pointer + "/responses/" + status + "/content/application~1json/schema"
	if resp.StatusCode >= 400 {
		status = status[:1] + "XX"
		answer = "/components/schemas/Problem"
	}
	if op.Responses[status] == nil {
		t.Errorf("%s answers %d, which is not described", name, resp.StatusCode)
		return
	}
	if resp.StatusCode < 300 && resp.Header.Get("Content-Type") == BackupType {
		if !bytes.Contains(op.Responses[status], []byte(BackupType)) {
			t.Errorf("%s sends a copy, which is not described", name)
		}
		return
	}
	d.validate(t, name+" "+status, answer, raw)
	if body := strings.TrimSpace(asked); resp.StatusCode < 300 && body != "" && (body != "{}" || op.RequestBody != nil) {
		d.validate(t, name+" asked", pointer+"/requestBody/content/application~1json/schema", []byte(asked))
	}
}

func (d *document) validate(t *testing.T, name, pointer string, raw []byte) {
	t.Helper()
	schema, err := d.schema(pointer)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Errorf("%s: %v in %s", name, err, raw)
		return
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s is not as described: %v\n%s", name, err, raw)
	}
}

func (d *document) schema(pointer string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.schemas[pointer]; ok {
		return s, nil
	}
	s, err := d.compiler.Compile("openapi.json#" + strings.ReplaceAll(strings.ReplaceAll(pointer, "{", "%7B"), "}", "%7D"))
	if err == nil {
		d.schemas[pointer] = s
	}
	return s, err
}
