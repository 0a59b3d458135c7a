package tokenissuer

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/warderhq/warder/keystore"
)

// The ring's document. Purpose and context are part of the stored format: a
// body moved to another document does not open there.
const (
	ringDocument   = "default"
	ringPurpose    = "warder signing ring v1"
	ringContext    = string(keystore.KindSigningRing) + "/" + ringDocument
	ringBodyFormat = 1
)

// sealedRing is the ring as JSON, readable only while it is sealed or opened.
type sealedRing struct {
	Format   int              `json:"format"`
	Interval keystore.Days    `json:"interval_days"`
	RotateAt keystore.Instant `json:"rotate_at"`
	Keys     []sealedKey      `json:"keys"`
}

type sealedKey struct {
	KID       string           `json:"kid"`
	Algorithm string           `json:"alg"`
	Role      string           `json:"role"`
	PKCS8     []byte           `json:"pkcs8"`
	Created   keystore.Instant `json:"created"`
	Published keystore.Instant `json:"published"`
	Activated keystore.Instant `json:"activated,omitzero"`
	Retired   keystore.Instant `json:"retired,omitzero"`
}

// seal returns the body of the ring's document.
func (r ring) seal(secret keystore.StoreSecret) ([]byte, error) {
	body := sealedRing{Format: ringBodyFormat, Interval: r.interval, RotateAt: r.rotateAt}
	for _, k := range r.keys {
		material, err := k.material()
		if err != nil {
			return nil, err
		}
		body.Keys = append(body.Keys, sealedKey{
			k.kid, k.alg.String(), k.role.String(), material, k.created, k.published, k.activated, k.retired,
		})
	}
	plain, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encoding the signing ring: %w", err)
	}
	defer clear(plain)
	return secret.Seal(ringPurpose, ringContext, plain), nil
}

// openRing reverses seal: ErrCorrupt for what is damaged or no ring,
// ErrNewerSchema for a format of the future.
func openRing(secret keystore.StoreSecret, body []byte) (ring, error) {
	plain, err := secret.Open(ringPurpose, ringContext, body)
	if err != nil {
		return ring{}, fmt.Errorf("opening the signing ring: %w", err)
	}
	defer clear(plain)
	stored, err := decodeRing(plain)
	if err != nil {
		return ring{}, err
	}
	r := ring{interval: stored.Interval, rotateAt: stored.RotateAt}
	for _, k := range stored.Keys {
		key, err := parseSigningKey(k.KID, k.Algorithm, k.PKCS8)
		if err != nil {
			return ring{}, err
		}
		r.keys = append(r.keys, ringKey{key, parseRole(k.Role), k.Created, k.Published, k.Activated, k.Retired})
	}
	if !r.valid() {
		return ring{}, fmt.Errorf("reading the signing ring: not one active and one next key: %w", keystore.ErrCorrupt)
	}
	return r, nil
}

func decodeRing(plain []byte) (sealedRing, error) {
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(plain, &format); err != nil {
		return sealedRing{}, fmt.Errorf("decoding the signing ring: %w", keystore.ErrCorrupt)
	}
	if format.Format > ringBodyFormat {
		return sealedRing{}, fmt.Errorf("signing ring has format %d: %w", format.Format, keystore.ErrNewerSchema)
	}
	var stored sealedRing
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil || stored.Format != ringBodyFormat {
		return sealedRing{}, fmt.Errorf("decoding the signing ring: %w", keystore.ErrCorrupt)
	}
	return stored, nil
}
