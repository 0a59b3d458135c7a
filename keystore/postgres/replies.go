package postgres

import (
	"time"

	"github.com/warderhq/warder/keystore"
)

// Reply implements keystore.ReplyTx.
func (t *tx) Reply(id keystore.ReplyID) (keystore.Reply, bool, error) {
	var r keystore.Reply
	to := []any{fixed(&r.ID), fixed(&r.Request), text(&r.Key), &r.Sealed, number(&r.Created)}
	found, err := t.row("reading a reply", to, replyQuery, id[:])
	if err != nil || !found {
		return keystore.Reply{}, false, err
	}
	return r, true, nil
}

// PutReply implements keystore.ReplyTx.
func (t *tx) PutReply(r keystore.Reply) error {
	overdue := func(life time.Duration) int64 { return int64(r.Created) - life.Microseconds() }
	if err := t.exec("dropping old replies", dropReplies, overdue(keystore.ReplayLife)); err != nil {
		return err
	}
	if err := t.exec("dropping old sealed answers", dropSealed, overdue(keystore.ReplaySecretLife)); err != nil {
		return err
	}
	return t.exec("keeping a reply", putReply, r.ID[:], r.Request[:], string(r.Key), blob(r.Sealed), int64(r.Created))
}
