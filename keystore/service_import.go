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
	end, err := s.Bulk.take(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting for other imports: %w", err)
	}
	defer end()
	var done []Imported
	_, err = s.transact(ctx, c.does("keys.import", KindKey, ""), func(tx Tx) error {
		done = make([]Imported, len(ins))
		owners := make(owners)
		for i := range ins {
			var err error
			if done[i], err = s.importKey(tx, c, owners, &ins[i], now); err != nil {
				return placed(fmt.Sprintf("/keys/%d", i), err)
			}
		}
		return noteImports(tx)
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// owners are the organizations of one transaction, each read once.
type owners map[string]*Organization

func (o owners) of(tx Tx, c Caller, asked string) (*Organization, error) {
	if org, known := o[asked]; known {
		return org, nil
	}
	org, err := owner(tx, c, asked)
	if err != nil {
		return nil, err
	}
	o[asked] = &org
	return &org, nil
}

func (s *Service) importKey(tx Tx, c Caller, owners owners, in *Import, now time.Time) (Imported, error) {
	sum, err := in.sum(s.Policy.Prefix)
	if err != nil {
		return Imported{}, err
	}
	org, err := owners.of(tx, c, in.Organization)
	if err != nil {
		return Imported{}, err
	}
	pair := s.Credentials.ImportedPair(1, sum)
	known, err := tx.KeyFoundBy(LookupID(pair.AccessKey))
	switch {
	case err != nil:
		return Imported{}, err
	case known.ID != "" && known.Organization != org.Slug:
		return Imported{}, ErrCredentialTaken
	case known.ID != "":
		return Imported{known.ID, true}, c.manages(&known)
	}
	rec, err := put(tx, c, org, in.NewKey, pair, now)
	return Imported{ID: rec.ID}, err
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
