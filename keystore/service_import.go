package keystore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Import asks for a key whose first credential is one of another system: by
// value, which is read once, or by its unsalted SHA-256.
type Import struct {
	NewKey
	Credential Secret
	SHA256     [sha256.Size]byte // if there is no Credential
}

// Imported says what came of one Import.
type Imported struct {
	ID      KeyID
	Existed bool // its credential was already imported
}

// MaximumImport is how many keys one call imports at most.
const MaximumImport = 1000

// ImportKeys makes a key for each of ins, all or none. What was imported
// before is left as it is, so that an interrupted import can be run again. A
// *FieldError points into "/keys/<index>".
func (s *Service) ImportKeys(ctx context.Context, c Caller, ins []Import, now time.Time) ([]Imported, error) {
	if len(ins) < 1 || len(ins) > MaximumImport {
		return nil, &FieldError{"/keys", "must be 1 to 1000 keys"}
	}
	done, revision, err := s.commitImport(ctx, c, ins, now)
	if err != nil {
		return nil, err
	}
	// While this node applies what it has written, the next import may write.
	if err := s.takeEffect(ctx, revision); err != nil {
		return nil, err
	}
	return done, nil
}

func (s *Service) commitImport(ctx context.Context, c Caller, ins []Import, now time.Time) (done []Imported, _ Revision, _ error) {
	end, err := s.Bulk.take(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("waiting for other imports: %w", err)
	}
	defer end()
	revision, err := s.commit(ctx, c.does("keys.import", KindKey, ""), func(tx Tx) (err error) {
		if done, err = s.importKeys(tx, c, ins, now); err != nil {
			return err
		}
		return noteImports(tx)
	})
	return done, revision, err
}

// imports is what one transaction knows of what it imports, each thing read
// once: the store is asked for all of a thousand keys in one question.
type imports struct {
	tx     Tx
	caller Caller
	owners map[string]*Organization // by what was asked for
	known  map[AccessKey]Record     // by their imported credentials
}

func (s *Service) importKeys(tx Tx, c Caller, ins []Import, now time.Time) ([]Imported, error) {
	pairs, err := s.importedPairs(ins)
	if err != nil {
		return nil, err
	}
	batch := imports{tx, c, make(map[string]*Organization), make(map[AccessKey]Record)}
	if err := batch.read(pairs); err != nil {
		return nil, err
	}
	done := make([]Imported, len(ins))
	for i := range ins {
		if done[i], err = batch.bring(ins[i].NewKey, pairs[i], now); err != nil {
			return nil, placed(fmt.Sprintf("/keys/%d", i), err)
		}
	}
	return done, nil
}

func (s *Service) importedPairs(ins []Import) ([]Pair, error) {
	pairs := make([]Pair, len(ins))
	for i := range ins {
		sum, err := ins[i].sum(s.Policy.Prefix)
		if err != nil {
			return nil, placed(fmt.Sprintf("/keys/%d", i), err)
		}
		pairs[i] = s.Credentials.ImportedPair(1, sum)
	}
	return pairs, nil
}

func (b *imports) read(pairs []Pair) error {
	names := make([]LookupID, len(pairs))
	for i := range pairs {
		names[i] = LookupID(pairs[i].AccessKey)
	}
	found, err := b.tx.KeysFoundBy(names)
	for i := range found {
		for _, alias := range found[i].Aliases() {
			b.known[AccessKey(alias)] = found[i]
		}
	}
	return err
}

// bring makes the key, unless its credential is there already.
func (b *imports) bring(in NewKey, pair Pair, now time.Time) (Imported, error) {
	org, err := b.owner(in.Organization)
	if err != nil {
		return Imported{}, err
	}
	switch known, exists := b.known[pair.AccessKey]; {
	case exists && known.Organization != org.Slug:
		return Imported{}, ErrCredentialTaken
	case exists:
		return Imported{known.ID, true}, b.caller.manages(&known)
	}
	rec, err := put(b.tx, b.caller, org, in, pair, now)
	b.known[pair.AccessKey] = rec
	return Imported{ID: rec.ID}, err
}

func (b *imports) owner(asked string) (*Organization, error) {
	if org, known := b.owners[asked]; known {
		return org, nil
	}
	org, err := owner(b.tx, b.caller, asked)
	if err != nil {
		return nil, err
	}
	b.owners[asked] = &org
	return &org, nil
}

// sum refuses what could never be presented: the shape of a credential alone
// says whether it is looked up as an imported one.
func (in *Import) sum(prefix string) ([sha256.Size]byte, error) {
	const pointer = "/credential"
	text := in.Credential.Reveal()
	switch {
	case text == "" && in.SHA256 == [sha256.Size]byte{}:
		return in.SHA256, &FieldError{pointer, "is required, or sha256"}
	case text == "":
		return in.SHA256, nil
	case in.SHA256 != [sha256.Size]byte{}:
		return in.SHA256, &FieldError{pointer, "cannot stand beside sha256"}
	case len(text) < MinimumImported || len(text) > MaximumCredential || !isOneCredential(text):
		return in.SHA256, &FieldError{pointer, "must be 8 to 4096 visible ASCII characters without a comma"}
	case native(prefix, text) || strings.Count(text, ".") == 2:
		return in.SHA256, &FieldError{pointer, "has the form of a key or token of this system, and would be taken for one"}
	default:
		return sha256.Sum256([]byte(text)), nil
	}
}

// placed moves the place of an error under pointer. A refusal without a place
// gets one: of a thousand keys, which.
func placed(pointer string, err error) error {
	if f, ok := errors.AsType[*FieldError](err); ok {
		return &FieldError{pointer + f.Pointer, f.Reason}
	}
	if _, refused := refusalReason(err); refused {
		return &ItemError{pointer, err}
	}
	return err
}

// importsDocument says that the store holds imported credentials, so that
// nodes look for them; without it none is looked for.
const importsDocument = "imports"

func noteImports(tx Tx) error {
	d, err := tx.Document(KindSettings, importsDocument)
	if err != nil || d.Revision != 0 {
		return err
	}
	d.Body = []byte("{}")
	return tx.PutDocument(&d)
}

// settleImports takes the note away with the last imported credential.
func settleImports(tx Tx, before, after *Record) error {
	if !before.importedLess(after) {
		return nil
	}
	page, err := tx.Keys(Query{Imported: true, Limit: 1})
	if err != nil || len(page.Records) > 0 {
		return err
	}
	return tx.DeleteDocument(KindSettings, importsDocument)
}

// importedLess reports whether r has an imported credential that after lacks.
func (r *Record) importedLess(after *Record) bool {
	for _, alias := range r.Aliases() {
		if IsImported(alias) && !after.FoundBy(alias) {
			return true
		}
	}
	return false
}
