package keystore

import (
	"encoding/json"
	"fmt"
	"strings"
)

// OverlayMetadata lays one JSON object over another as a JSON merge patch
// (RFC 7396): members of over win, nested objects are laid over each other,
// and null takes a member away. Empty stands for no object.
func OverlayMetadata(base, over string) (string, error) {
	switch {
	case over == "":
		return base, nil
	case base == "":
		base = "{}"
	}
	target, err := decodeExactly(base)
	if err != nil {
		return "", fmt.Errorf("decoding metadata: %w", err)
	}
	patch, err := decodeExactly(over)
	if err != nil {
		return "", fmt.Errorf("decoding metadata to lay over: %w", err)
	}
	var merged strings.Builder
	e := json.NewEncoder(&merged)
	e.SetEscapeHTML(false) // no longer than what was laid over each other
	if err := e.Encode(MergePatch(target, patch)); err != nil {
		return "", fmt.Errorf("encoding metadata: %w", err)
	}
	return strings.TrimSuffix(merged.String(), "\n"), nil
}

// decodeExactly keeps numbers as they are written: an id beyond 2^53 survives.
func decodeExactly(text string) (value any, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	err = d.Decode(&value)
	return value, err
}

// MergePatch applies an RFC 7396 patch to a decoded JSON value.
func MergePatch(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = make(map[string]any, len(members))
	}
	for name, value := range members {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = MergePatch(object[name], value)
		}
	}
	return object
}
