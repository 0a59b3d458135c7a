package postgres

import (
	"strings"

	"github.com/warderhq/warder/keystore"
)

// The payload of a notification: empty, or a word that says what follows.
const (
	payloadKeys  = "keys" // and the ids of keys that changed, each after a space
	payloadBeat  = "beat"
	payloadLimit = 7999 // bytes that PostgreSQL takes
	idLimit      = 64
)

// noticeOf tells of as many keys as a notification holds.
func noticeOf(changed []keystore.KeyID) string {
	var out strings.Builder
	told := make(map[keystore.KeyID]bool, len(changed))
	for _, id := range changed {
		if told[id] || !isKeyID(string(id)) {
			continue
		}
		told[id] = true
		if out.Len() == 0 {
			out.WriteString(payloadKeys)
		}
		if out.Len()+1+len(id) > payloadLimit {
			break
		}
		out.WriteByte(' ')
		out.WriteString(string(id))
	}
	return out.String()
}

// parseNotice reads a payload, which anybody may have sent who can use the
// database. What is not as noticeOf writes it says only that something was.
func parseNotice(payload string) keystore.Notice {
	if payload == payloadBeat {
		return keystore.Notice{Beat: true}
	}
	rest, isKeys := strings.CutPrefix(payload, payloadKeys+" ")
	if !isKeys || len(payload) > payloadLimit {
		return keystore.Notice{}
	}
	var keys []keystore.KeyID
	for id := range strings.SplitSeq(rest, " ") {
		if !isKeyID(id) {
			return keystore.Notice{}
		}
		keys = append(keys, keystore.KeyID(id))
	}
	return keystore.Notice{Keys: keys}
}

// isKeyID reports whether s looks like a key's id.
func isKeyID(s string) bool {
	if s == "" || len(s) > idLimit {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
