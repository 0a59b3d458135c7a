package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// SealedSecret implements keystore.SecretRow.
func (s *Store) SealedSecret(ctx context.Context) (secret keystore.SealedSecret, err error) {
	err = s.ask(ctx, s.scans, "reading the store secret", func(ctx context.Context, conn *pgx.Conn) error {
		return scanSecret(conn.QueryRow(ctx, secretQuery), &secret)
	})
	if err != nil {
		return keystore.SealedSecret{}, err
	}
	return secret, nil
}

func scanSecret(row pgx.Row, secret *keystore.SealedSecret) error {
	err := row.Scan(number(&secret.Version), &secret.Sealed, &secret.Check)
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("%w: the store secret is missing", keystore.ErrCorrupt)
	}
	return err
}

// ReplaceSealedSecret implements keystore.SecretRow. It is one statement, and
// so one transaction.
func (s *Store) ReplaceSealedSecret(ctx context.Context, old, next keystore.SealedSecret) error {
	const doing = "replacing the store secret"
	if err := s.enter(ctx, s.writer, doing); err != nil {
		return err
	}
	defer s.writer.leave()
	bounded, cancel := context.WithTimeout(ctx, s.writer.limit)
	defer cancel()
	// Once only: a second time would find it replaced.
	tag, err := s.pool.Exec(bounded, replaceSecret, int64(next.Version), blob(next.Sealed), blob(next.Check), int64(old.Version), blob(old.Sealed), blob(old.Check))
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%s: %w", doing, keystore.ErrStaleEdit)
	}
	return nil
}
