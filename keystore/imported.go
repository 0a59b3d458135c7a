package keystore

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// A credential of another system is imported by its unsalted SHA-256, which is
// all that such a system may have kept, and goes on working as it is. What
// the store keeps is a keyed digest of that: a copy of the store alone tells
// nothing by which to guess weak ones.
//
// It has a name in place of an access key, under which its record is found,
// and which the same digest proves.

// importedPrefix begins the name of an imported credential. No access key and
// no KeyID begins so.
const importedPrefix = "imported_"

// MinimumImported and MaximumCredential bound an imported credential, in bytes.
const MinimumImported = 8

// Imported reports whether the pair is not ours: a credential of another
// system, which has no halves and cannot be traded for access tokens.
func (p *Pair) Imported() bool { return IsImported(LookupID(p.AccessKey)) }

// IsImported reports whether id names an imported credential.
func IsImported(id LookupID) bool { return strings.HasPrefix(string(id), importedPrefix) }

// ImportedPair returns what is kept of a credential of another system with the
// given SHA-256.
func (c *Credentials) ImportedPair(generation Generation, sum [sha256.Size]byte) Pair {
	digest := c.foreignDigest(sum)
	return Pair{Generation: generation, AccessKey: importedName(digest), Digest: digest}
}

func importedName(d Digest) AccessKey { return AccessKey(importedPrefix + hex.EncodeToString(d[:])) }

// foreignDigest is the keyed digest of a SHA-256.
func (c *Credentials) foreignDigest(sum [sha256.Size]byte) (d Digest) {
	mac := c.foreignMAC()
	mac.Write(sum[:])
	mac.Sum(d[:0])
	return d
}
