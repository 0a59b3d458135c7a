package keystore

import "strings"

// PathPattern matches request paths in their normal form: exactly
// ("/v1/hello"), all below ("/v1/*"), or with any one segment inside
// ("/v1/*/items", "/v1/*/items/*"). The zero PathPattern matches nothing.
type PathPattern struct {
	segments string // up to and without the last "/*" of a prefix
	below    bool   // whatever follows after a slash
	wild     bool   // segments has "*" in it
}

const maxPathPattern = 1024

// ParsePathPattern reads a pattern; false if it could never match: not from
// the root, with empty or dot segments, or with what a path cannot hold.
func ParsePathPattern(s string) (PathPattern, bool) {
	if s == "" || s[0] != '/' || len(s) > maxPathPattern || strings.ContainsAny(s, "?#%\\") {
		return PathPattern{}, false
	}
	path, below := strings.CutSuffix(s, "/*")
	for i, segment := range strings.Split(path, "/") {
		last := !below && i == strings.Count(path, "/")
		switch {
		case segment == "" && i > 0 && !last, segment == "." || segment == "..", !validSegment(segment):
			return PathPattern{}, false
		}
	}
	return PathPattern{path, below, strings.Contains(path, "*")}, true
}

// validSegment: a star stands for a whole segment or not at all.
func validSegment(segment string) bool {
	if strings.Contains(segment, "*") && segment != "*" {
		return false
	}
	for i := range len(segment) {
		if c := segment[i]; c < ' ' || c == 0x7f {
			return false
		}
	}
	name, _, _ := strings.Cut(segment, ";")
	return name == segment || name != "." && name != ".."
}

// Matches reports whether path, in normal form, is one of the pattern's. It
// does not allocate.
func (p PathPattern) Matches(path string) bool {
	if !p.wild {
		if p.below {
			return len(path) > len(p.segments) && path[:len(p.segments)] == p.segments && path[len(p.segments)] == '/'
		}
		return p.segments != "" && path == p.segments
	}
	return p.matchesWild(path)
}

func (p PathPattern) matchesWild(path string) bool {
	pattern := p.segments
	for {
		var want, got string
		var moreWanted, moreGot bool
		want, pattern, moreWanted = strings.Cut(pattern, "/")
		got, path, moreGot = strings.Cut(path, "/")
		if want != got && (want != "*" || got == "") {
			return false
		}
		switch {
		case !moreWanted:
			return moreGot == p.below
		case !moreGot:
			return false
		}
	}
}

// String is the inverse of ParsePathPattern.
func (p PathPattern) String() string {
	if p.below {
		return p.segments + "/*"
	}
	return p.segments
}
