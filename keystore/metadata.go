package keystore

import (
	"encoding/json"
	"fmt"
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
	var target, patch any
	if err := json.Unmarshal([]byte(base), &target); err != nil {
		return "", fmt.Errorf("decoding metadata: %w", err)
	}
	if err := json.Unmarshal([]byte(over), &patch); err != nil {
		return "", fmt.Errorf("decoding metadata to lay over: %w", err)
	}
	merged, err := json.Marshal(MergePatch(target, patch))
	if err != nil {
		return "", fmt.Errorf("encoding metadata: %w", err)
	}
	return string(merged), nil
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
