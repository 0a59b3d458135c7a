//go:build unix

package sqlite

import (
	"fmt"

	"github.com/warderhq/warder/keystore"
)

const documentColumns = "kind, name, body, revision"

func documentTargets(d *keystore.Document) []any {
	return []any{text(&d.Kind), text(&d.Name), &d.Body, number(&d.Revision)}
}

// Document implements keystore.DocumentTx.
func (t *tx) Document(kind keystore.Kind, name string) (keystore.Document, error) {
	d := keystore.Document{Kind: kind, Name: name}
	_, err := t.row("reading a document", t.store.write.document, documentTargets(&d), string(kind), name)
	return d, err
}

// PutDocument implements keystore.DocumentTx.
func (t *tx) PutDocument(d *keystore.Document) error {
	if d.Kind == "" || d.Kind == keystore.KindKey || d.Kind == keystore.KindOrganization {
		return fmt.Errorf("writing document %s: %q is no kind of document", d.Name, d.Kind)
	}
	revision, err := t.log(d.Kind, d.Name, nil)
	if err != nil {
		return err
	}
	if err := t.exec("writing a document", t.store.write.putDocument, string(d.Kind), d.Name, blob(d.Body), int64(revision)); err != nil {
		return err
	}
	d.Revision = revision
	return nil
}

// DeleteDocument implements keystore.DocumentTx.
func (t *tx) DeleteDocument(kind keystore.Kind, name string) error {
	d, err := t.Document(kind, name)
	if err != nil || d.Revision == 0 {
		return err
	}
	if _, err := t.log(kind, name, nil); err != nil {
		return err
	}
	return t.exec("deleting a document", t.store.write.deleteDocument, string(kind), name)
}
