package postgres

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// head is the row that says how far the store is.
type head struct {
	keystore.Position
	pruneAt keystore.Revision

	// The numbers given last.
	keys, organizations, entries keystore.Number
}

// headColumns are what every reader of the head asks for, whatever else: it
// learns whether it may trust the server, and work on this schema at all.
const headColumns = "head.revision, head.mark, head.prune_at, head.keys, head.organizations, head.entries, head.usable_from, pg_is_in_recovery()"

const (
	headQuery = "SELECT " + headColumns + " FROM head"
	lockHead  = headQuery + " FOR UPDATE"

	updateHead = "UPDATE head SET revision = $1, mark = $2, prune_at = $3, keys = $4, organizations = $5, entries = $6"
)

// verdict is what is read of the head besides.
type verdict struct {
	usableFrom int
	standby    bool
}

func (h *head) targets(v *verdict) []any {
	return []any{
		number(&h.Revision), number(&h.Mark), number(&h.pruneAt), number(&h.keys), number(&h.organizations), number(&h.entries),
		number(&v.usableFrom), flag(&v.standby),
	}
}

func (h *head) values() []any {
	return []any{int64(h.Revision), int64(h.Mark), int64(h.pruneAt), int64(h.keys), int64(h.organizations), int64(h.entries)}
}

// err says why nothing may be believed that was read along with the head.
func (v verdict) err() error {
	switch {
	case v.standby:
		return errStandby
	case v.usableFrom > schemaVersion:
		return fmt.Errorf("the schema is usable from version %d, known is %d: %w", v.usableFrom, schemaVersion, keystore.ErrNewerSchema)
	default:
		return nil
	}
}

func (h *head) scan(row pgx.Row) error {
	var v verdict
	err := row.Scan(h.targets(&v)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNoHead
	}
	if err != nil {
		return err
	}
	return v.err()
}

var errNoHead = fmt.Errorf("%w: the head is missing", keystore.ErrCorrupt)

// next raises the head by one change.
func (h *head) next() keystore.Position {
	h.Position = keystore.Position{Revision: h.Revision + 1, Mark: newMark()}
	return h.Position
}

func newMark() keystore.Mark {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program first
	return keystore.Mark(binary.LittleEndian.Uint64(b[:]))
}
