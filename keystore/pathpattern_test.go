package keystore

import "testing"

func TestPathPatterns(t *testing.T) {
	for pattern, paths := range map[string]map[string]bool{
		"/":               {"/": true, "/a": false, "": false},
		"/*":              {"/": true, "/a": true, "/a/b": true, "": false},
		"/v1":             {"/v1": true, "/v1/": false, "/v1x": false, "/v": false, "/V1": false},
		"/v1/":            {"/v1/": true, "/v1": false},
		"/v1/*":           {"/v1/a": true, "/v1/a/b": true, "/v1/": true, "/v1": false, "/v1x": false, "/v2/a": false},
		"/v1/*/items":     {"/v1/7/items": true, "/v1/items": false, "/v1//items": false, "/v1/7/8/items": false, "/v1/7/items/1": false, "/v1/7/itemsx": false},
		"/v1/*/items/*":   {"/v1/7/items/1": true, "/v1/7/items/1/2": true, "/v1/7/items": false, "/v1/7/other/1": false},
		"/*/x":            {"/a/x": true, "/x": false, "//x": false, "/a/y": false},
		"/a;b":            {"/a;b": true, "/a": false},
		"/v1/%2F-decoded": nil,
	} {
		p, ok := ParsePathPattern(pattern)
		if ok != (paths != nil) {
			t.Errorf("%s: %v", pattern, ok)
		}
		if ok && p.String() != pattern {
			t.Errorf("%s is written as %s", pattern, p)
		}
		for path, want := range paths {
			if p.Matches(path) != want {
				t.Errorf("%s matches %q: %v", pattern, path, !want)
			}
		}
	}
	for _, pattern := range []string{"", "v1", "//", "/a//b", "/a/./b", "/..", "/a/..;x/b", "/v1*", "/a/b*/c", "/a/**", "/a?b", "/a#b", `/a\b`, "/a\x00", "*"} {
		if _, ok := ParsePathPattern(pattern); ok {
			t.Errorf("%q is a pattern", pattern)
		}
	}
	var zero PathPattern
	if zero.Matches("") || zero.Matches("/") {
		t.Error("the zero pattern matches")
	}
}

// FuzzPathPattern: what is a pattern matches the paths that it spells, and
// matching neither fails nor depends on what follows a path.
func FuzzPathPattern(f *testing.F) {
	f.Add("/v1/*/items/*", "/v1/7/items/1")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		p, ok := ParsePathPattern(pattern)
		matched := p.Matches(path)
		switch {
		case !ok && matched:
			t.Errorf("%q is no pattern, and matches %q", pattern, path)
		case ok && p.String() != pattern:
			t.Errorf("%q is written as %q", pattern, p)
		case ok && !p.below && !p.wild && matched != (path == pattern):
			t.Errorf("%q matches %q: %v", pattern, path, matched)
		}
	})
}
