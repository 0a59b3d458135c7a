package managementapi

import (
	"context"
	"errors"
	"fmt"

	"github.com/warderhq/warder/keystore"
)

// slowStore holds every transaction until it is let go.
type slowStore struct {
	keystore.ServiceStore
	inside chan<- struct{}
	leave  <-chan struct{}
}

func (s slowStore) Transact(ctx context.Context, fn func(keystore.Tx) error) (keystore.Revision, error) {
	s.inside <- struct{}{}
	<-s.leave
	return s.ServiceStore.Transact(ctx, fn)
}

// brokenStore fails with err, or panics if there is none.
type brokenStore struct{ err error }

func (s brokenStore) fail() error {
	if s.err == nil {
		panic("secret text of a panic")
	}
	return s.err
}

func (s brokenStore) Lookup(context.Context, keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	return keystore.Record{}, 0, s.fail()
}

func (s brokenStore) List(context.Context, keystore.Query) (keystore.Page, error) {
	return keystore.Page{}, s.fail()
}

func (s brokenStore) Audit(context.Context, keystore.AuditQuery) (keystore.AuditPage, error) {
	return keystore.AuditPage{}, s.fail()
}

func (s brokenStore) AddUsage(context.Context, keystore.UsageBatch) error { return s.fail() }

func (s brokenStore) Usage(context.Context, keystore.UsageQuery) ([]keystore.UsageRow, error) {
	return nil, s.fail()
}

func (s brokenStore) LastUsed(context.Context, []keystore.KeyID) ([]keystore.LastUse, error) {
	return nil, s.fail()
}

func (s brokenStore) Count(context.Context, keystore.Query) (int, error) { return 0, s.fail() }

func (s brokenStore) Transact(context.Context, func(keystore.Tx) error) (keystore.Revision, error) {
	return 0, s.fail()
}

var (
	errDisk = errors.New("secret text of the disk")
	errLate = fmt.Errorf("%w: %w", keystore.ErrUnavailable, errDisk)
)
