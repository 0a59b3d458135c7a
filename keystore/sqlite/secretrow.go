//go:build unix

package sqlite

import (
	"context"
	"fmt"

	"github.com/warderhq/warder/keystore"
)

// SealedSecret implements keystore.SecretRow.
func (s *Store) SealedSecret(ctx context.Context) (keystore.SealedSecret, error) {
	const doing = "reading the store secret"
	if err := s.enter(ctx, s.scans, doing); err != nil {
		return keystore.SealedSecret{}, err
	}
	defer s.scans.leave()
	row, err := s.readSecret(ctx)
	if err != nil {
		return keystore.SealedSecret{}, s.failure(ctx, doing, err)
	}
	return row, nil
}

func (s *Store) readSecret(ctx context.Context) (row keystore.SealedSecret, err error) {
	err = s.read.secret.QueryRowContext(ctx).Scan(number(&row.Version), &row.Sealed, &row.Check)
	return row, missing(err, "the store secret is missing")
}

// ReplaceSealedSecret implements keystore.SecretRow. It is one statement, and
// so one transaction.
func (s *Store) ReplaceSealedSecret(ctx context.Context, old, next keystore.SealedSecret) error {
	const doing = "replacing the store secret"
	if err := s.enter(ctx, s.writer, doing); err != nil {
		return err
	}
	defer s.writer.leave()
	result, err := s.write.replaceSecret.ExecContext(context.WithoutCancel(ctx),
		next.Version, blob(next.Sealed), blob(next.Check), old.Version, blob(old.Sealed), blob(old.Check))
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	if n == 0 {
		return fmt.Errorf("%s: %w", doing, keystore.ErrStaleEdit)
	}
	return nil
}
