package managementapi

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/warderhq/warder/keystore"
)

// keyFields is the part of a body that describes a key, whether it is to be
// made or changed.
type keyFields struct {
	name        field[string]
	scopes      field[[]string]
	permissions field[[]string]
	networks    field[[]string]
	limit       field[string]
	metadata    field[free]
}

func (f *keyFields) members() members {
	return members{
		"name": &f.name, "scopes": &f.scopes, "permissions": &f.permissions, "networks": &f.networks,
		"limit": &f.limit, "metadata": &f.metadata,
	}
}

// edit applies what is present; null is the default.
func (f *keyFields) edit(e *keystore.Editable) (err error) {
	f.name.applyTo(&e.Name)
	f.scopes.applyTo(&e.Scopes)
	f.permissions.applyTo(&e.Permissions)
	f.networks.applyTo(&e.Networks)
	if f.limit.present {
		if e.Limit, err = parseLimit(f.limit); err != nil {
			return err
		}
	}
	e.Metadata, err = patchMetadata(e.Metadata, f.metadata)
	return err
}

// newKey is the part of a body that describes the first key of an
// organization.
type newKey struct {
	keyFields
	expiry expiry
}

func (n *newKey) members() members { return n.expiry.members(n.keyFields.members()) }

func (n *newKey) asked(now time.Time) (keystore.NewKey, error) {
	limit, err := parseLimit(n.limit)
	if err != nil {
		return keystore.NewKey{}, err
	}
	expires, err := n.expiry.asked(now)
	return keystore.NewKey{
		Name: n.name.value, Scopes: n.scopes.value, Permissions: n.permissions.value, Networks: n.networks.value,
		Limit: limit, Metadata: n.metadata.value.stored(), Expires: expires,
	}, err
}

// ownedKey is the part of a body that describes a key to be made somewhere.
type ownedKey struct {
	newKey
	organization field[string]
	kind         field[string]
}

func (o *ownedKey) members() members {
	known := o.newKey.members()
	known["organization"], known["type"] = &o.organization, &o.kind
	return known
}

func (o *ownedKey) asked(now time.Time) (keystore.NewKey, error) {
	key, err := o.newKey.asked(now)
	if err != nil {
		return keystore.NewKey{}, err
	}
	key.Organization = o.organization.value
	if o.kind.given() {
		if key.Type, err = keystore.ParseType(o.kind.value); err != nil {
			return keystore.NewKey{}, &keystore.FieldError{Pointer: "/type", Reason: "must be standard or trial"}
		}
	}
	return key, nil
}

func (a *API) createKey(c *call) (answer, error) {
	var in ownedKey
	if err := c.body.into(in.members()); err != nil {
		return answer{}, err
	}
	key, err := in.asked(c.now)
	if err != nil {
		return answer{}, err
	}
	once, err := c.once()
	if err != nil {
		return answer{}, err
	}
	issued, err := a.Service.CreateKey(c.Context(), c.attempt(), key, once, c.now)
	if err != nil {
		return answer{}, in.expiry.blame(err)
	}
	ans := c.issued(&issued, nil)
	ans.status, ans.location = http.StatusCreated, "/keys/"+string(issued.Record.ID)
	return ans, nil
}

func (a *API) listKeys(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	q, err := c.keyQuery()
	if err != nil {
		return answer{}, err
	}
	page, err := a.Service.ListKeys(c.Context(), c.caller, q)
	if err != nil {
		return answer{}, err
	}
	list, err := a.keyPage(c, q, page)
	return answer{body: list}, err
}

// keyPage shows a page. A page before another has one after it by itself, and
// likewise the other way round.
func (a *API) keyPage(c *call, q keystore.Query, page keystore.Page) (KeyPage, error) {
	list := KeyPage{Keys: make([]Key, 0, len(page.Records))}
	ids := make([]keystore.KeyID, len(page.Records))
	for i := range ids {
		ids[i] = page.Records[i].ID
	}
	last, err := a.lastUsed(c, ids...)
	if err != nil {
		return list, err
	}
	for i := range page.Records {
		list.Keys = append(list.Keys, keyOf(&page.Records[i], last, c.now))
	}
	if n := len(page.Records); n > 0 {
		backwards := q.Before != 0
		if page.More || backwards {
			list.Next = cursorOf(page.Records[n-1].Number)
		}
		if backwards && page.More || !backwards && q.After != 0 {
			list.Previous = cursorOf(page.Records[0].Number)
		}
	}
	return list, nil
}

// lastUsed asks once for all that an answer shows. Calls that change a key ask
// before they do: what is done, and the secret it may have made, is not held up
// by this.
func (a *API) lastUsed(c *call, ids ...keystore.KeyID) (uses, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := a.Service.LastUsed(c.Context(), ids, c.now)
	if err != nil {
		return nil, fmt.Errorf("looking up last uses: %w", err)
	}
	return usesOf(list), nil
}

func (a *API) getKey(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	rec, err := a.Service.Key(c.Context(), c.caller, c.keyID())
	if err != nil {
		return answer{}, err
	}
	last, err := a.lastUsed(c, rec.ID)
	if err != nil {
		return answer{}, err
	}
	return c.key(&rec, last), nil
}

func (a *API) updateKey(c *call) (answer, error) {
	var in keyFields
	return a.transit(c, in.members(), func(ifMatch keystore.Revision) (keystore.Record, error) {
		return a.Service.Update(c.Context(), c.attempt(), c.keyID(), ifMatch, in.edit)
	})
}

func patchMetadata(current string, patch field[free]) (string, error) {
	switch {
	case !patch.present:
		return current, nil
	case patch.null:
		return "", nil
	default:
		return patch.value.patched(current)
	}
}

func (a *API) deleteKey(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchKey(c)
	if err != nil {
		return answer{}, err
	}
	revision, err := a.Service.DeleteKey(c.Context(), c.attempt(), c.keyID(), ifMatch)
	if err != nil {
		return answer{}, err
	}
	return answer{body: DeletedKey{ID: c.keyID(), Deleted: true, Revision: revision}}, nil
}

func (a *API) rotateKey(c *call) (answer, error) {
	var force field[bool]
	return a.reissue(c, members{"force": &force}, func(ifMatch keystore.Revision, once *keystore.Once) (keystore.Issued, error) {
		how := keystore.Rotation{Force: force.value, IfMatch: ifMatch}
		return a.Service.Rotate(c.Context(), c.attempt(), c.keyID(), how, once, c.now)
	})
}

func (a *API) regenerateKey(c *call) (answer, error) {
	var e expiry
	return a.reissue(c, e.members(members{}), func(ifMatch keystore.Revision, once *keystore.Once) (keystore.Issued, error) {
		expires, err := e.asked(c.now)
		if err != nil {
			return keystore.Issued{}, err
		}
		issued, err := a.Service.Regenerate(c.Context(), c.attempt(), c.keyID(), expires, ifMatch, once, c.now)
		return issued, e.blame(err)
	})
}

// reissue is what the calls that replace a secret have in common.
func (a *API) reissue(c *call, fields members, do func(keystore.Revision, *keystore.Once) (keystore.Issued, error)) (answer, error) {
	if err := c.body.into(fields); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchKey(c)
	if err != nil {
		return answer{}, err
	}
	once, err := c.once()
	if err != nil {
		return answer{}, err
	}
	last, err := a.lastUsed(c, c.keyID())
	if err != nil {
		return answer{}, err
	}
	issued, err := do(ifMatch, once)
	if err != nil {
		return answer{}, err
	}
	return c.issued(&issued, last), nil
}

func (a *API) renewKey(c *call) (answer, error) {
	var days field[int]
	return a.transit(c, members{"days": &days}, func(ifMatch keystore.Revision) (keystore.Record, error) {
		if !days.given() {
			return keystore.Record{}, &keystore.FieldError{Pointer: "/days", Reason: "is required: 1 to 36525"}
		}
		return a.Service.Renew(c.Context(), c.attempt(), c.keyID(), keystore.Days(days.value), ifMatch, c.now)
	})
}

// moveGraceEnd takes a time or a number of seconds from now, of which zero is
// now.
func (a *API) moveGraceEnd(c *call) (answer, error) {
	var at field[moment]
	var seconds field[int]
	return a.transit(c, members{"ends_at": &at, "ends_in_seconds": &seconds}, func(ifMatch keystore.Revision) (keystore.Record, error) {
		pointer, end := "/ends_at", keystore.Instant(at.value)
		switch {
		case at.given() == seconds.given():
			return keystore.Record{}, &keystore.FieldError{Pointer: pointer, Reason: "must be there, or ends_in_seconds, but not both"}
		case seconds.given():
			pointer = "/ends_in_seconds"
			if seconds.value < 0 || seconds.value > maxGraceSeconds {
				return keystore.Record{}, &keystore.FieldError{Pointer: pointer, Reason: "must be 0 to 3155760000"}
			}
			end = keystore.InstantOf(c.now.Add(time.Duration(seconds.value) * time.Second))
		}
		rec, err := a.Service.MoveGraceEnd(c.Context(), c.attempt(), c.keyID(), end, ifMatch, c.now)
		if f, ok := errors.AsType[*keystore.FieldError](err); ok {
			err = &keystore.FieldError{Pointer: pointer, Reason: f.Reason}
		}
		return rec, err
	})
}

const maxGraceSeconds = int(keystore.MaximumDays) * 24 * 60 * 60

func (a *API) expireKey(c *call) (answer, error) {
	return a.transit(c, nil, func(ifMatch keystore.Revision) (keystore.Record, error) {
		return a.Service.Expire(c.Context(), c.attempt(), c.keyID(), ifMatch, c.now)
	})
}

func (a *API) activateKey(c *call) (answer, error)   { return a.setDeactivated(c, false) }
func (a *API) deactivateKey(c *call) (answer, error) { return a.setDeactivated(c, true) }
func (a *API) blockKey(c *call) (answer, error)      { return a.setBlocked(c, true) }
func (a *API) unblockKey(c *call) (answer, error)    { return a.setBlocked(c, false) }

func (a *API) setDeactivated(c *call, on bool) (answer, error) {
	return a.transit(c, nil, func(ifMatch keystore.Revision) (keystore.Record, error) {
		return a.Service.SetDeactivated(c.Context(), c.attempt(), c.keyID(), on, ifMatch)
	})
}

func (a *API) setBlocked(c *call, on bool) (answer, error) {
	return a.transit(c, nil, func(ifMatch keystore.Revision) (keystore.Record, error) {
		return a.Service.SetBlocked(c.Context(), c.attempt(), c.keyID(), on, ifMatch)
	})
}

// transit is what the calls that only change a key's state have in common.
func (a *API) transit(c *call, fields members, do func(keystore.Revision) (keystore.Record, error)) (answer, error) {
	if err := c.body.into(fields); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchKey(c)
	if err != nil {
		return answer{}, err
	}
	last, err := a.lastUsed(c, c.keyID())
	if err != nil {
		return answer{}, err
	}
	rec, err := do(ifMatch)
	if err != nil {
		return answer{}, err
	}
	return c.key(&rec, last), nil
}

func (a *API) ifMatchKey(c *call) (keystore.Revision, error) {
	return c.ifMatch(func() (keystore.Revision, error) {
		rec, err := a.Service.Key(c.Context(), c.caller, c.keyID())
		return rec.Revision, err
	})
}

func (c *call) keyID() keystore.KeyID { return keystore.KeyID(c.PathValue("id")) }

func (c *call) key(r *keystore.Record, last uses) answer {
	return answer{body: keyOf(r, last, c.now), revision: r.Revision}
}

func (c *call) issued(i *keystore.Issued, last uses) answer {
	return answer{body: issuedKeyOf(i, last, c.now), revision: i.Record.Revision, replayed: i.Replayed}
}
