//go:build unix

package sqlite

import (
	"bytes"
	"context"
	"os"

	"github.com/warderhq/warder/keystore"
)

// KeyFilePath returns where the master key is when none is configured.
func (s *Store) KeyFilePath() string { return KeyFile(s.path) }

// RotateKeyFile seals the store's secret under a new master key, which takes
// the place of the one in the key file, and returns the fingerprints of both.
//
// The new key is on the disk under the pending name before anything is sealed
// under it, and takes the final name after. So there is no moment at which
// neither of the two files opens the database, and whoever opens it next
// finds the right one; see keyFile.open.
func (s *Store) RotateKeyFile(ctx context.Context) (former, present string, err error) {
	s.rekeying.Lock()
	defer s.rekeying.Unlock()
	r := s.newKeyRotation()
	for _, step := range r.steps() {
		if err := step(ctx); err != nil {
			return "", "", err
		}
	}
	return r.former.Fingerprint(), r.next.Fingerprint(), nil
}

// keyRotation is one change of the key file.
type keyRotation struct {
	store        *Store
	file         keyFile
	former, next keystore.MasterKey
	secret       keystore.StoreSecret
}

func (s *Store) newKeyRotation() *keyRotation {
	return &keyRotation{store: s, file: keyFile{path: KeyFile(s.path), database: s.path}, next: keystore.NewMasterKey()}
}

// steps are what may be interrupted between any two.
func (r *keyRotation) steps() []func(context.Context) error {
	return []func(context.Context) error{r.settle, r.propose, r.reseal, r.adopt}
}

// settle brings a rotation that was interrupted to its end.
func (r *keyRotation) settle(ctx context.Context) (err error) {
	r.former, r.secret, err = r.file.open(ctx, r.store)
	return err
}

func (r *keyRotation) propose(context.Context) error { return r.file.propose(r.next) }

// reseal changes the database. If it fails, the pending key is removed only if
// it is certain that nothing is sealed under it.
func (r *keyRotation) reseal(ctx context.Context) error {
	before, err := r.store.SealedSecret(ctx)
	if err != nil {
		return err
	}
	next, err := keystore.SealStoreSecret(r.next, r.secret)
	if err != nil {
		return err
	}
	if err := r.store.ReplaceSealedSecret(ctx, before, next); err != nil {
		if now, readErr := r.store.SealedSecret(context.WithoutCancel(ctx)); readErr == nil && bytes.Equal(now.Sealed, before.Sealed) {
			_ = os.Remove(r.file.pending())
		}
		return err
	}
	return nil
}

func (r *keyRotation) adopt(context.Context) error { return r.file.adopt() }
