package keystore

import (
	"context"
	"errors"
	"fmt"
)

// Unlock opens the store's secret with master. If that is not a key it is
// sealed under but previous is, the secret is sealed anew under master alone:
// of a store that one process has, changing the master key is one restart.
// ErrWrongMasterKey, ErrCorrupt, ErrNewerSchema.
func Unlock(ctx context.Context, row SecretRow, master, previous MasterKey) (StoreSecret, error) {
	return unlock(ctx, row, master, previous, func(_, next SealedSecret) SealedSecret { return next })
}

// UnlockShared is Unlock for a store of several nodes. The secret stays sealed
// under previous, too, so that nodes that are not given the new key yet can
// start, until FinishMasterKey.
func UnlockShared(ctx context.Context, row SecretRow, master, previous MasterKey) (StoreSecret, error) {
	return unlock(ctx, row, master, previous, SealedSecret.beside)
}

// unlockAttempts bounds how often others may change the row meanwhile: nodes
// that start at the same time do so once each.
const unlockAttempts = 10

func unlock(ctx context.Context, row SecretRow, master, previous MasterKey, join func(former, next SealedSecret) SealedSecret) (StoreSecret, error) {
	for attempt := 1; ; attempt++ {
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
		former, _ := sealed.under(previous) // has just opened it
		err = row.ReplaceSealedSecret(ctx, sealed, join(former, next))
		if errors.Is(err, ErrStaleEdit) && attempt < unlockAttempts {
			continue
		}
		if err != nil {
			return StoreSecret{}, fmt.Errorf("sealing the store secret under the new master key: %w", err)
		}
		return secret, nil
	}
}

// FinishMasterKey lets no key but master open the store's secret any more, and
// returns the fingerprints of those that did. ErrFormerMasterKey if master is
// not the newest one: a node that was not given the new key yet must not undo
// the change.
func FinishMasterKey(ctx context.Context, row SecretRow, master MasterKey) (dropped []string, err error) {
	sealed, err := row.SealedSecret(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the sealed store secret: %w", err)
	}
	if _, err := OpenStoreSecret(master, sealed); errors.Is(err, ErrWrongMasterKey) {
		return nil, fmt.Errorf("%w: %w", ErrFormerMasterKey, err)
	} else if err != nil {
		return nil, err
	}
	names := sealed.Fingerprints()
	if len(names) == 1 {
		return nil, nil
	}
	newest := sealed.seals()[0]
	if string(newest.Check) != string(master.check()) {
		return nil, ErrFormerMasterKey
	}
	if err := row.ReplaceSealedSecret(ctx, sealed, newest); err != nil {
		return nil, fmt.Errorf("dropping the former master key: %w", err)
	}
	return names[1:], nil
}

// SealedGenesis returns a Genesis that makes a store secret sealed under master.
func SealedGenesis(master MasterKey) Genesis {
	return func() (SealedSecret, error) { return SealStoreSecret(master, NewStoreSecret()) }
}
