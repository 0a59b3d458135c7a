package postgres

import (
	"fmt"

	"github.com/warderhq/warder/keystore"
)

func documentTargets(d *keystore.Document) []any {
	return []any{text(&d.Kind), text(&d.Name), &d.Body, number(&d.Revision)}
}

// Document implements keystore.DocumentTx.
func (t *tx) Document(kind keystore.Kind, name string) (keystore.Document, error) {
	d := keystore.Document{Kind: kind, Name: name}
	_, err := t.row("reading a document", documentTargets(&d), documentQuery+" WHERE kind = $1 AND name = $2", string(kind), storable(name))
	return d, err
}

// Documents implements keystore.DocumentTx.
func (t *tx) Documents(kind keystore.Kind) ([]keystore.Document, error) {
	var out []keystore.Document
	err := t.rows("reading documents", documentQuery+" WHERE kind = $1 ORDER BY name", []any{string(kind)}, into(&out, documentTargets))
	if err != nil {
		return nil, err
	}
	return out, nil
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
	if err := t.exec("writing a document", putDocument, string(d.Kind), d.Name, blob(d.Body), int64(revision)); err != nil {
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
	return t.exec("deleting a document", deleteDocument, string(kind), name)
}
