package sqlite

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/warderhq/warder/keystore"
)

// How the types of package keystore lie in columns. Reading is written out
// here because database/sql goes through formatted text for types it does not
// know; NULL, which an outer join gives for an absent row, reads as zero.

// integer reads an INTEGER column into *to.
type integer[T ~int | ~int32 | ~int64 | ~uint64 | ~uint8] struct{ to *T }

func number[T ~int | ~int32 | ~int64 | ~uint64 | ~uint8](to *T) integer[T] { return integer[T]{to} }

func (c integer[T]) Scan(src any) error {
	switch v := src.(type) {
	case int64:
		*c.to = T(v)
	case nil:
		*c.to = 0
	default:
		return fmt.Errorf("%w: %T where a number should be", keystore.ErrCorrupt, src)
	}
	return nil
}

// characters reads a TEXT column into *to.
type characters[T ~string] struct{ to *T }

func text[T ~string](to *T) characters[T] { return characters[T]{to} }

func (c characters[T]) Scan(src any) error {
	switch v := src.(type) {
	case string:
		*c.to = T(v)
	case nil:
		*c.to = ""
	default:
		return fmt.Errorf("%w: %T where text should be", keystore.ErrCorrupt, src)
	}
	return nil
}

// boolean reads an INTEGER column that is 0 or 1.
type boolean struct{ to *bool }

func flag(to *bool) boolean { return boolean{to} }

func (c boolean) Scan(src any) error {
	v, ok := src.(int64)
	if !ok && src != nil {
		return fmt.Errorf("%w: %T where 0 or 1 should be", keystore.ErrCorrupt, src)
	}
	*c.to = v != 0
	return nil
}

// bytes32 reads a BLOB of 32 bytes; an empty one reads as zeros.
type bytes32[T ~[32]byte] struct{ to *T }

func fixed[T ~[32]byte](to *T) bytes32[T] { return bytes32[T]{to} }

func (c bytes32[T]) Scan(src any) error {
	v, ok := src.([]byte)
	if !ok && src != nil || len(v) != 0 && len(v) != 32 {
		return fmt.Errorf("%w: %T of %d bytes where a digest should be", keystore.ErrCorrupt, src, len(v))
	}
	*c.to = T{}
	copy((*c.to)[:], v)
	return nil
}

// digest is bytes32 the other way: zeros, which mean none, take no room.
func digest(d keystore.Digest) []byte {
	if d == (keystore.Digest{}) {
		return []byte{}
	}
	return d[:]
}

// blob is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// limited reads a TEXT column that ParseLimit understands.
type limited struct{ to *keystore.Limit }

func (c limited) Scan(src any) (err error) {
	var written string
	if err := text(&written).Scan(src); err != nil {
		return err
	}
	if *c.to, err = keystore.ParseLimit(written); err != nil {
		return fmt.Errorf("%w: reading a limit: %w", keystore.ErrCorrupt, err)
	}
	return nil
}

// seconds reads an INTEGER column of whole seconds.
type seconds struct{ to *time.Duration }

func (c seconds) Scan(src any) error {
	var n int64
	err := number(&n).Scan(src)
	*c.to = time.Duration(n) * time.Second
	return err
}

// list reads a JSON array of strings; NULL and the empty text read as nil.
type list[T ~string] struct{ to *[]T }

func (c list[T]) Scan(src any) error {
	v, ok := src.(string)
	if !ok && src != nil {
		return fmt.Errorf("%w: %T where a list should be", keystore.ErrCorrupt, src)
	}
	*c.to = nil
	if v == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(v), c.to); err != nil {
		return fmt.Errorf("%w: reading a list: %w", keystore.ErrCorrupt, err)
	}
	return nil
}

// listText is list the other way; nil is NULL if it may be, else empty.
func listText[T ~string](items []T) any {
	if items == nil {
		return nil
	}
	out, err := json.Marshal(items)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(out)
}
