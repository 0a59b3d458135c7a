package managementapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/warderhq/warder/keystore"
)

// importedKey is the part of a body that describes one key with a credential
// of another system.
type importedKey struct {
	ownedKey
	credential field[keystore.Secret]
	sum        field[sum]
}

func (k *importedKey) members() members {
	known := k.ownedKey.members()
	known["credential"], known["sha256"] = &k.credential, &k.sum
	return known
}

// sum is a SHA-256 in hexadecimal.
type sum [sha256.Size]byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *sum) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(s)) {
		return errors.New("not 64 digits")
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// ImportedKeys is the answer to an import, in the order of the request.
type ImportedKeys struct {
	Keys []ImportedKey `json:"keys"`
}

// ImportedKey says which key has the credential now, and whether it had before.
type ImportedKey struct {
	ID      keystore.KeyID `json:"id"`
	Existed bool           `json:"existed"`
}

func (a *API) importKeys(c *call) (answer, error) {
	var list field[[]object]
	if err := c.body.into(members{"keys": &list}); err != nil {
		return answer{}, err
	}
	if len(list.value) > keystore.MaximumImport { // before any of them is looked at
		return answer{}, &keystore.FieldError{Pointer: "/keys", Reason: "must be 1 to 1000 keys"}
	}
	keys, asked := make([]importedKey, len(list.value)), make([]keystore.Import, len(list.value))
	for i := range keys {
		var err error
		if asked[i], err = keys[i].read(c, list.value[i]); err != nil {
			return answer{}, below("/keys/"+strconv.Itoa(i), err)
		}
	}
	done, err := a.Service.ImportKeys(c.Context(), c.attempt(), asked, c.now)
	if err != nil {
		return answer{}, blameItem(keys, err)
	}
	out := ImportedKeys{Keys: make([]ImportedKey, len(done))}
	for i, one := range done {
		out.Keys[i] = ImportedKey(one)
	}
	return answer{body: out}, nil
}

func (k *importedKey) read(c *call, in object) (keystore.Import, error) {
	if in == nil {
		return keystore.Import{}, &keystore.FieldError{Reason: expectation(in)}
	}
	if err := in.into(k.members()); err != nil {
		return keystore.Import{}, err
	}
	key, err := k.ownedKey.asked(c.now)
	return keystore.Import{NewKey: key, Credential: k.credential.value, SHA256: k.sum.value}, err
}

// blameItem makes an error of the core point at the field that was sent.
func blameItem(keys []importedKey, err error) error {
	f, ok := errors.AsType[*keystore.FieldError](err)
	if !ok {
		return err
	}
	index, _, _ := strings.Cut(strings.TrimPrefix(f.Pointer, "/keys/"), "/")
	i, parseErr := strconv.Atoi(index)
	if parseErr != nil || i < 0 || i >= len(keys) {
		return err
	}
	item := "/keys/" + index
	return below(item, keys[i].expiry.blame(&keystore.FieldError{Pointer: strings.TrimPrefix(f.Pointer, item), Reason: f.Reason}))
}
