package postgres

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/warderhq/warder/keystore"
)

// How the types of package keystore lie in columns. NULL, which an outer join
// gives for an absent row, reads as zero.

// integer reads a bigint column into *to. Of unsigned numbers it holds the
// bits.
type integer[T ~int | ~int32 | ~int64 | ~uint64 | ~uint8] struct{ to *T }

func number[T ~int | ~int32 | ~int64 | ~uint64 | ~uint8](to *T) integer[T] { return integer[T]{to} }

// ScanInt64 implements pgtype.Int64Scanner.
func (c integer[T]) ScanInt64(v pgtype.Int8) error {
	*c.to = T(v.Int64)
	return nil
}

// characters reads a text column into *to.
type characters[T ~string] struct{ to *T }

func text[T ~string](to *T) characters[T] { return characters[T]{to} }

// ScanText implements pgtype.TextScanner.
func (c characters[T]) ScanText(v pgtype.Text) error {
	*c.to = T(v.String)
	return nil
}

// boolean reads a boolean column.
type boolean struct{ to *bool }

func flag(to *bool) boolean { return boolean{to} }

// ScanBool implements pgtype.BoolScanner.
func (c boolean) ScanBool(v pgtype.Bool) error {
	*c.to = v.Bool
	return nil
}

// bytes32 reads a bytea of 32 bytes; an empty one reads as zeros.
type bytes32[T ~[32]byte] struct{ to *T }

func fixed[T ~[32]byte](to *T) bytes32[T] { return bytes32[T]{to} }

// ScanBytes implements pgtype.BytesScanner.
func (c bytes32[T]) ScanBytes(v []byte) error {
	if len(v) != 0 && len(v) != 32 {
		return fmt.Errorf("%w: %d bytes where a digest should be", keystore.ErrCorrupt, len(v))
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

// blob is never NULL, and stays as it is while it waits to be sent.
func blob(b []byte) []byte { return append([]byte{}, b...) }

// limited reads a text column that ParseLimit understands.
type limited struct{ to *keystore.Limit }

// ScanText implements pgtype.TextScanner.
func (c limited) ScanText(v pgtype.Text) (err error) {
	if *c.to, err = keystore.ParseLimit(v.String); err != nil {
		return fmt.Errorf("%w: reading a limit: %w", keystore.ErrCorrupt, err)
	}
	return nil
}

// seconds reads a bigint column of whole seconds, micros one of microseconds.
type (
	seconds struct{ to *time.Duration }
	micros  struct{ to *time.Duration }
)

// ScanInt64 implements pgtype.Int64Scanner.
func (c seconds) ScanInt64(v pgtype.Int8) error {
	*c.to = time.Duration(v.Int64) * time.Second
	return nil
}

// ScanInt64 implements pgtype.Int64Scanner.
func (c micros) ScanInt64(v pgtype.Int8) error {
	*c.to = time.Duration(v.Int64) * time.Microsecond
	return nil
}

// texts is a list of strings as the column text[] takes it; nil is NULL.
func texts[T ~string](items []T) []string {
	if items == nil {
		return nil
	}
	out := make([]string, len(items))
	for i, item := range items {
		out[i] = string(item)
	}
	return out
}
