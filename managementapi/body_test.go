package managementapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestStrictBodies(t *testing.T) {
	g := newRig(t)
	deep := strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth)
	long := strings.Repeat("n", 10_000)
	for _, c := range []struct {
		body, code, place string
		status            int
	}{
		{`{"name":"a"}{"name":"b"}`, "invalid_json", "", 400},
		{`{"name":"a"} x`, "invalid_json", "", 400},
		{`{"name":"a",}`, "invalid_json", "", 400},
		{`{'name':'a'}`, "invalid_json", "", 400},
		{`{"name":"a"`, "invalid_json", "", 400},
		{`[{"name":"a"}]`, "invalid_json", "", 400},
		{`"name"`, "invalid_json", "", 400},
		{`null`, "invalid_json", "", 400},
		{"\xef\xbb\xbf{}", "invalid_json", "", 400},
		{"{\"name\":\"\xff\"}", "invalid_json", "", 400},
		{`{"metadata":{"x":NaN}}`, "invalid_json", "", 400},
		{`{"name":"a","name":"b"}`, "duplicate_field", "/name", 400},
		{`{"name":"a","n\u0061me":"b"}`, "duplicate_field", "/name", 400},
		{`{"metadata":{"a":{"b":1,"b":2}}}`, "duplicate_field", "/metadata/a/b", 400},
		{`{"metadata":{"a":[0,{"b":1,"b":2}]}}`, "duplicate_field", "/metadata/a/1/b", 400},
		{`{"Name":"a"}`, "unknown_field", "/Name", 400},
		{`{"NAME":"a"}`, "unknown_field", "/NAME", 400},
		{`{"\u017fcopes":["a"]}`, "unknown_field", "/ſcopes", 400}, // folds to s
		{`{"metadata":` + deep + `}`, "too_deep", "", 400},
		{strings.Repeat("[", 100_000), "invalid_json", "", 400},
		{`{"metadata":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, "too_deep", "", 400},
		{`{"` + long + `":1}`, "unknown_field", "/" + long[:maxPointer-1], 400},
		{`{"metadata":{"x":"` + strings.Repeat("x", maxBody) + `"}}`, "body_too_large", "", 413},
	} {
		g.send("POST", "/keys", c.body).refused(c.status, c.code, c.place)
	}
	if page := ok[KeyPage](g.send("GET", "/keys", ""), 200); len(page.Keys) != 0 {
		t.Errorf("a refused body made a key: %+v", page)
	}
	for _, body := range []string{"", " ", "{}", " { } \n", `{"metadata":{"a":1e999,"A":2}}`} {
		if r := g.send("POST", "/keys", body); r.status != 201 {
			t.Errorf("%q: %s", body, r.raw)
		}
	}
}

func TestOversizedBodyOnEveryRoute(t *testing.T) {
	g := newRig(t)
	big := `{"x":"` + strings.Repeat("x", maxBody) + `"}`
	for _, rt := range routes {
		path := strings.NewReplacer("{id}", "key_x", "{slug}", "default", "/{$}", "/").Replace(rt.pattern)
		g.send(rt.method, path, big).refused(413, "body_too_large", "")
		g.send(rt.method, path, `{"surprise":1}`).refused(400, "unknown_field", "/surprise")
	}
}

func TestMediaTypes(t *testing.T) {
	g := newRig(t)
	path := "/keys/" + string(g.make(`{}`).ID)
	for _, c := range []struct {
		method, path, media string
		good                bool
	}{
		{"POST", "/keys", "application/json", true}, {"POST", "/keys", "Application/JSON; charset=UTF-8", true},
		{"PATCH", path, "application/merge-patch+json", true}, {"PATCH", path, "application/json", true},
		{"POST", "/keys", "application/merge-patch+json", false}, {"POST", "/keys", "text/plain", false}, {"POST", "/keys", "", false},
		{"POST", "/keys", "application/x-www-form-urlencoded", false}, {"POST", "/keys", "multipart/form-data; boundary=x", false},
		{"POST", "/keys", "application/json; charset=utf-16", false}, {"POST", "/keys", "text/plain; application/json", false},
		{"POST", "/keys", "application/jsonp", false}, {"PATCH", path, "application/json-patch+json", false},
	} {
		r := g.send(c.method, c.path, "{}", "Content-Type", c.media)
		if c.good && r.status/100 != 2 {
			t.Errorf("%s %s: %s", c.method, c.media, r.raw)
		}
		if !c.good {
			r.refused(415, "unsupported_media_type", "")
			if r.header.Get("Accept-Patch") != mergePatchType {
				t.Errorf("%v", r.header)
			}
		}
	}
}

// A body that never comes does not hold a connection for good, nor is half a
// body taken for a whole one.
func TestBodyThatIsCutOff(t *testing.T) {
	g := newRig(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("POST /warder/v1/keys HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{}")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, _ := conn.Read(buf)
	if !bytes.Contains(buf[:n], []byte("400")) {
		t.Errorf("%q", buf[:n])
	}
	if page := ok[KeyPage](g.send("GET", "/keys", ""), http.StatusOK); len(page.Keys) != 0 {
		t.Errorf("half a body made a key: %+v", page)
	}
}

// FuzzParseObject: whatever is accepted has one meaning: another strict
// reader finds exactly these members, and writing them again is stable.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"a":2}`, `{"a":{"b":[1,{"c":null}]}}`, `{"a":1}x`, "\xff", `{"\ud800":1}`, `[[[[`, `{"A":1,"a":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := ParseObject(raw)
		if err != nil {
			if p := ProblemOf(err); p.Status != http.StatusBadRequest {
				t.Fatalf("%v is no bad request", err)
			}
			return
		}
		var v map[string]any
		if len(bytes.TrimSpace(raw)) > 0 {
			if err := json.Unmarshal(raw, &v); err != nil && !isRange(err) {
				t.Fatalf("accepted %q: %v", raw, err)
			}
		}
		once, err := object(o).digestible()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseObject(once)
		if err != nil {
			t.Fatalf("%q became %q, which is refused: %v", raw, once, err)
		}
		if twice, err := object(again).digestible(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q and then %q", raw, once, twice)
		}
	})
}

// isRange: a number that no float holds is still good JSON.
func isRange(err error) bool {
	typed := (*json.UnmarshalTypeError)(nil)
	return errors.As(err, &typed) && strings.HasPrefix(typed.Value, "number")
}
