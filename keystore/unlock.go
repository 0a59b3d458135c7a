package keystore

import (
	"context"
	"errors"
	"fmt"
)

// Unlock opens the store's secret with master. If that is not the key it is
// sealed under but previous is, the secret is sealed anew under master:
// changing the master key is one restart. Of several nodes that do so at once,
// one seals and all others find it done. ErrWrongMasterKey, ErrCorrupt,
// ErrNewerSchema.
func Unlock(ctx context.Context, row SecretRow, master, previous MasterKey) (StoreSecret, error) {
	secret, err := unlock(ctx, row, master, previous)
	if errors.Is(err, ErrStaleEdit) {
		return unlock(ctx, row, master, MasterKey{}) // another one was faster; if not with this key, it is wrong now
	}
	return secret, err
}

func unlock(ctx context.Context, row SecretRow, master, previous MasterKey) (StoreSecret, error) {
	sealed, err := row.SealedSecret(ctx)
	if err != nil {
		return StoreSecret{}, fmt.Errorf("reading the sealed store secret: %w", err)
	}
	secret, err := OpenStoreSecret(master, sealed)
	if err == nil || previous.IsZero() || !errors.Is(err, ErrWrongMasterKey) {
		return secret, err
	}
	if secret, err = OpenStoreSecret(previous, sealed); err != nil {
		return StoreSecret{}, err
	}
	next, err := SealStoreSecret(master, secret)
	if err != nil {
		return StoreSecret{}, err
	}
	if err := row.ReplaceSealedSecret(ctx, sealed, next); err != nil {
		return StoreSecret{}, fmt.Errorf("sealing the store secret under the new master key: %w", err)
	}
	return secret, nil
}

// SealedGenesis returns a Genesis that makes a store secret sealed under master.
func SealedGenesis(master MasterKey) Genesis {
	return func() (SealedSecret, error) { return SealStoreSecret(master, NewStoreSecret()) }
}
