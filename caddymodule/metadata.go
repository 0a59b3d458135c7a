package caddymodule

import (
	"encoding/base64"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/warderhq/warder/keystore"
)

// metadataHeaders remembers the header values of keys that have metadata.
// Laying one JSON object over another costs more than the rest of a request.
// Entries are found by the very records they were made of, which never change,
// so that they cannot be out of date.
type metadataHeaders struct {
	made *lru.Cache[metadataSource, string]
}

type metadataSource struct {
	key          *keystore.Record
	organization *keystore.Organization
}

// maxMetadataHeaders bounds how many are remembered, of at most 4 KiB each.
const maxMetadataHeaders = 4096

func newMetadataHeaders() metadataHeaders {
	made, err := lru.New[metadataSource, string](maxMetadataHeaders)
	if err != nil {
		panic(err) // only a size below 1 fails
	}
	return metadataHeaders{made}
}

// of returns base64url of the organization's metadata with the key's laid over
// it, or nothing if neither has any. organization may be nil.
func (m metadataHeaders) of(key *keystore.Record, organization *keystore.Organization) string {
	if key.Metadata == "" && (organization == nil || organization.Metadata == "") {
		return "" // nearly always
	}
	source := metadataSource{key, organization}
	if value, ok := m.made.Get(source); ok {
		return value
	}
	value := encodeMetadata(key, organization)
	m.made.Add(source, value)
	return value
}

func encodeMetadata(key *keystore.Record, organization *keystore.Organization) string {
	metadata := key.Metadata
	if organization != nil && organization.Metadata != "" {
		merged, err := keystore.OverlayMetadata(organization.Metadata, metadata)
		if err != nil {
			return "" // both were validated as objects when they were stored
		}
		metadata = merged
	}
	return base64.RawURLEncoding.EncodeToString([]byte(metadata))
}
