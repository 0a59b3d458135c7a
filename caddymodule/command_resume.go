package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// resume records in a file how much of an import's input the server has
// acknowledged. It serves to save time only: where it does not fit, the import
// ends before it does anything. The nil resume records and skips nothing.
type resume struct {
	name string
	was  resumeState // as the file had it
	read hash.Hash   // of all rows up to now
	rows int         // how many those are
	past bool        // the rows of was have been read
}

// resumeState is the content of the file.
type resumeState struct {
	Keys   int            `json:"keys"`     // acknowledged
	Lines  int            `json:"lines"`    // that the last of them begins on
	Digest string         `json:"sha256"`   // of those rows: another input is noticed
	Last   keystore.KeyID `json:"last_key"` // a server that does not know it is another
}

func (s *session) openResume() (*resume, error) {
	if !s.given("resume") {
		return nil, nil
	}
	r := &resume{name: s.text("resume"), read: sha256.New()}
	text, err := os.ReadFile(r.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("--resume: %w", err)
	case json.Unmarshal(text, &r.was) != nil:
		return nil, usagef("--resume: %s is not what an import has recorded; name another file", r.name)
	}
	if r.was.Keys > 0 {
		if err := s.knows(r); err != nil {
			return nil, err
		}
	}
	return r, r.write(r.was) // before anything is imported: it has to be possible
}

// knows makes sure that the server still has what was imported last: else it
// is another one, or was restored, and skipping would lose keys.
func (s *session) knows(r *resume) error {
	_, err := s.get(nil, "keys", string(r.was.Last))
	if p, ok := errors.AsType[*managementapi.Problem](err); ok && p.Status == http.StatusNotFound {
		return usagef("--resume: this server does not have %s, which %s says was imported last; remove the file to import everything again", r.was.Last, r.name)
	}
	return err
}

// skips reports whether row was acknowledged before.
func (r *resume) skips(row importRow) (bool, error) {
	if r == nil {
		return false, nil
	}
	if r.rows == r.was.Keys && !r.past {
		if r.past = true; r.was.Keys > 0 && r.digest() != r.was.Digest {
			return false, r.mismatch()
		}
	}
	if r.past {
		return false, nil
	}
	r.take(row)
	return true, nil
}

// end makes sure that the input is not shorter than what was recorded of it.
func (r *resume) end() error {
	if r == nil || r.past || (r.rows == r.was.Keys && (r.rows == 0 || r.digest() == r.was.Digest)) {
		return nil
	}
	return r.mismatch()
}

func (r *resume) mismatch() error {
	return usagef("--resume: %s is about another input; name another file, or remove it to import everything", r.name)
}

func (r *resume) skipped() int {
	if r == nil {
		return 0
	}
	return r.was.Keys
}

// record writes that rows were acknowledged, the last of them as the key last.
func (r *resume) record(rows []importRow, last keystore.KeyID) error {
	if r == nil {
		return nil
	}
	for _, row := range rows {
		r.take(row)
	}
	return r.write(resumeState{r.rows, rows[len(rows)-1].line, r.digest(), last})
}

func (r *resume) take(row importRow) {
	r.read.Write(row.body)
	r.read.Write([]byte{'\n'})
	r.rows++
}

func (r *resume) digest() string { return hex.EncodeToString(r.read.Sum(nil)) }

// write replaces the file as a whole.
func (r *resume) write(state resumeState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("--resume: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(r.name), filepath.Base(r.name)+".*") // 0600
	if err != nil {
		return fmt.Errorf("--resume: %w", err)
	}
	defer os.Remove(file.Name()) // nothing, once it is renamed
	_, err = file.Write(append(text, '\n'))
	if err == nil {
		err = file.Sync()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(file.Name(), r.name)
	}
	if err != nil {
		return fmt.Errorf("--resume: %w", err)
	}
	return nil
}
