package caddymodule

import (
	"context"
	"io"

	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// maintenance is what the admin endpoint does to the store as a whole.
type maintenance struct{ engine *engine }

// Copy implements managementapi.Maintenance.
func (m maintenance) Copy(ctx context.Context) (io.ReadCloser, error) {
	if m.engine.store.Copier == nil {
		return nil, managementapi.ErrNoCopy
	}
	copied, err := m.engine.store.Copier.Copy(ctx)
	if err == nil {
		engineLogger().Info("the store is copied for a backup")
	}
	return copied, err
}

// MasterKey implements managementapi.Maintenance.
func (m maintenance) MasterKey(ctx context.Context) (managementapi.MasterKey, error) {
	sealed, err := m.engine.store.SealedSecret(ctx)
	if err != nil {
		return managementapi.MasterKey{}, err
	}
	names := sealed.Fingerprints()
	key := managementapi.MasterKey{Fingerprint: names[0], Former: append([]string{}, names[1:]...), Source: managementapi.SourceConfigured}
	if m.engine.keepsKeyFile() {
		key.Source, key.KeyFile = managementapi.SourceKeyFile, m.engine.store.KeyFile.KeyFilePath()
	}
	return key, nil
}

// RotateMasterKey implements managementapi.Maintenance.
func (m maintenance) RotateMasterKey(ctx context.Context) (managementapi.MasterKeyRotation, error) {
	if !m.engine.keepsKeyFile() {
		return managementapi.MasterKeyRotation{}, managementapi.ErrMasterKeyConfigured
	}
	former, _, err := m.engine.store.KeyFile.RotateKeyFile(ctx)
	if err != nil {
		return managementapi.MasterKeyRotation{}, err
	}
	return m.changed(ctx, []string{former})
}

// FinishMasterKey implements managementapi.Maintenance. A key file is never
// left half changed: there is nothing to finish.
func (m maintenance) FinishMasterKey(ctx context.Context) (managementapi.MasterKeyRotation, error) {
	if m.engine.keepsKeyFile() {
		return m.changed(ctx, nil)
	}
	dropped, err := keystore.FinishMasterKey(ctx, m.engine.store, m.engine.masterKey())
	if err != nil {
		return managementapi.MasterKeyRotation{}, err
	}
	return m.changed(ctx, dropped)
}

func (m maintenance) changed(ctx context.Context, dropped []string) (managementapi.MasterKeyRotation, error) {
	key, err := m.MasterKey(ctx)
	if err == nil && len(dropped) > 0 {
		engineLogger().Warn("the master key was changed: back up the new one, and keep the former for as long as there are backups from before",
			zap.String("master_key", key.Fingerprint), zap.Strings("former", dropped))
	}
	return managementapi.MasterKeyRotation{MasterKey: key, Dropped: append([]string{}, dropped...)}, err
}

// Interface guards.
var _ managementapi.Maintenance = maintenance{}
