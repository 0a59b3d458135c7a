package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
	"github.com/warderhq/warder/managementapi"
)

const masterKeyShort = "Makes, shows and changes the key that the store is sealed under"

func masterKeyCommands() []*cobra.Command {
	return []*cobra.Command{
		newMasterKeyCommand(),
		upkeep{"status", "Shows which master key the store is sealed under, by its fingerprint", nil, showMasterKey}.command(),
		upkeep{"rotate", "Seals the store under a new master key", rotateMasterKeyFlags, rotateMasterKey}.command(),
	}
}

func newMasterKeyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "new", Short: "Prints a new master key, for a secret store or a file that master_key names", Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 0 {
			return fail(cmd, usagef("it is: %s", cmd.UseLine()))
		}
		s := &session{cmd: cmd, out: cmd.OutOrStdout()}
		return fail(cmd, s.print(keystore.NewMasterKey().Text().Reveal()+"\n"))
	}
	cmd.SetFlagErrorFunc(failFlag)
	return cmd
}

func rotateMasterKeyFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("finish", false, "Of a configured one: let the former not open the store any more, once every node has the new one")
	cmd.Long = cmd.Short + `.

A key file is replaced by a new one, in one step; the server may run or not. A
backup from before opens with the former key only: back up again, and keep the
former for as long as you keep such a backup.

A configured master key is changed by changing the configuration: set
master_key to a new one (warder master-key new) and previous_master_key to the
present one, and restart, with several nodes one after the other. Until all of
them have it, either key opens the store. When they have, end that with
--finish, and take previous_master_key away.` + upkeepNotes
}

// masterKey asks the server under which key its store is sealed.
func (s *session) masterKey() (managementapi.MasterKey, error) {
	raw, err := s.get(nil, "master-key")
	if err != nil {
		return managementapi.MasterKey{}, err
	}
	return decode[managementapi.MasterKey](raw)
}

func showMasterKey(s *session) error {
	var key managementapi.MasterKey
	asked, err := s.askServer(func() (err error) { key, err = s.masterKey(); return err })
	if err != nil {
		return err
	}
	if !asked {
		if key, err = s.masterKeyOfFiles(); err != nil {
			return err
		}
	}
	if s.format == formatJSON {
		return s.printValue(key)
	}
	return s.print(describeMasterKey(&key))
}

func describeMasterKey(key *managementapi.MasterKey) string {
	where := "configured"
	if key.KeyFile != "" {
		where = "in " + key.KeyFile
	}
	text := fmt.Sprintf("the store is sealed under master key %s, %s\n", key.Fingerprint, where)
	if len(key.Former) > 0 {
		text += fmt.Sprintf("%s opens it, too: once every node has the new one, run master-key rotate --finish\n", strings.Join(key.Former, ", "))
	}
	return text
}

// masterKeyOfFiles asks the database of a server that does not run, and changes
// nothing in it.
func (s *session) masterKeyOfFiles() (key managementapi.MasterKey, err error) {
	found, err := s.closedInstallation()
	if err != nil {
		return key, err
	}
	sealed, err := sqlite.SealedClosed(s.context(), found.path)
	if err != nil {
		return key, reachable(err)
	}
	names := sealed.Fingerprints()
	key = managementapi.MasterKey{Fingerprint: names[0], Former: append([]string{}, names[1:]...), Source: managementapi.SourceConfigured}
	if key.KeyFile, err = found.keyOf(sealed); key.KeyFile != "" {
		key.Source = managementapi.SourceKeyFile
	}
	return key, err
}

// closedInstallation is that of a server that does not run, but did.
func (s *session) closedInstallation() (*installation, error) {
	found, err := s.installation()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(found.path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no server runs, and there is no database %s", found.path)
	}
	return found, nil
}

// onFiles opens the database of a server that does not run.
func (s *session) onFiles(do func(*installation, *sqlite.Store) error) error {
	found, err := s.closedInstallation()
	if err != nil {
		return err
	}
	store, err := found.open(s)
	if err != nil {
		return reachable(err)
	}
	return errors.Join(do(found, store), store.Close())
}

func (i *installation) open(s *session) (*sqlite.Store, error) {
	if i.master.IsZero() {
		store, _, _, err := sqlite.OpenWithKeyFile(s.context(), i.path)
		return store, err
	}
	store, err := sqlite.Open(s.context(), i.path, keystore.SealedGenesis(i.master))
	if err != nil {
		return nil, err
	}
	if _, err := keystore.Unlock(s.context(), store, i.master, i.previous); err != nil {
		return nil, errors.Join(fmt.Errorf("opening database %s with the configured master_key: %w", i.path, err), store.Close())
	}
	return store, nil
}

func rotateMasterKey(s *session) error {
	step := "rotate"
	if s.on("finish") {
		step = "finish"
	}
	var done managementapi.MasterKeyRotation
	asked, err := s.askServer(func() error {
		raw, err := s.post(nil, "master-key", step)
		if err != nil {
			return err
		}
		done, err = decode[managementapi.MasterKeyRotation](raw)
		return err
	})
	if err != nil {
		return err
	}
	if !asked {
		if done, err = s.rotateFiles(); err != nil {
			return err
		}
	}
	if s.format == formatJSON {
		return s.printValue(done)
	}
	return s.print(describeRotation(&done))
}

// rotateFiles changes the key file of a server that does not run. What is
// configured has nothing to finish there: the next start does.
func (s *session) rotateFiles() (done managementapi.MasterKeyRotation, err error) {
	err = s.onFiles(func(found *installation, store *sqlite.Store) error {
		if found.keyFile() == "" && !s.on("finish") {
			return statef("the master key is configured: set master_key to a new one and previous_master_key to the present one, and start the server")
		}
		if s.on("finish") {
			return nil
		}
		former, _, err := store.RotateKeyFile(s.context())
		done.Dropped = []string{former}
		return err
	})
	if err == nil {
		done.MasterKey, err = s.masterKeyOfFiles()
	}
	return done, err
}

func describeRotation(done *managementapi.MasterKeyRotation) string {
	text := describeMasterKey(&done.MasterKey)
	if len(done.Dropped) == 0 {
		return text + "there is nothing to finish\n"
	}
	return text + fmt.Sprintf("%s opens it no more, but opens the backups from before: back up again, and keep it as long as you keep those\n", strings.Join(done.Dropped, ", "))
}
