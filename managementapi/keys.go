package managementapi

import (
	"net/http"

	"github.com/warderhq/warder/keystore"
)

// newKey is the part of a body that describes a key to be made.
type newKey struct {
	name     field[string]
	scopes   field[[]string]
	metadata field[free]
	expiry   expiry
}

func (n *newKey) members() members {
	return n.expiry.members(members{"name": &n.name, "scopes": &n.scopes, "metadata": &n.metadata})
}

func (n *newKey) asked(c *call) (keystore.NewKey, error) {
	expires, err := n.expiry.asked(c.now)
	return keystore.NewKey{
		Name: n.name.value, Scopes: n.scopes.value, Metadata: n.metadata.value.stored(), Expires: expires,
	}, err
}

func (a *API) createKey(c *call) (answer, error) {
	var in newKey
	var organization, kind field[string]
	fields := in.members()
	fields["organization"], fields["type"] = &organization, &kind
	if err := c.body.into(fields); err != nil {
		return answer{}, err
	}
	key, err := in.asked(c)
	if err != nil {
		return answer{}, err
	}
	key.Organization = organization.value
	if kind.given() {
		if key.Type, err = keystore.ParseType(kind.value); err != nil {
			return answer{}, &keystore.FieldError{Pointer: "/type", Reason: "must be standard or trial"}
		}
	}
	once, err := c.once()
	if err != nil {
		return answer{}, err
	}
	issued, err := a.Service.CreateKey(c.Context(), c.caller, key, once, c.now)
	if err != nil {
		return answer{}, in.expiry.blame(err)
	}
	ans := c.issued(&issued)
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
	list := KeyPage{Keys: make([]Key, 0, len(page.Records))}
	for i := range page.Records {
		list.Keys = append(list.Keys, keyOf(&page.Records[i], c.now))
	}
	if n := len(page.Records); page.More && n > 0 {
		list.Next = cursorOf(page.Records[n-1].Number)
	}
	return answer{body: list}, nil
}

func (a *API) getKey(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	rec, err := a.Service.Key(c.Context(), c.caller, c.keyID())
	if err != nil {
		return answer{}, err
	}
	return c.key(&rec), nil
}

func (a *API) updateKey(c *call) (answer, error) {
	var (
		name     field[string]
		scopes   field[[]string]
		metadata field[free]
	)
	if err := c.body.into(members{"name": &name, "scopes": &scopes, "metadata": &metadata}); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchKey(c)
	if err != nil {
		return answer{}, err
	}
	rec, err := a.Service.Update(c.Context(), c.caller, c.keyID(), ifMatch, func(e *keystore.Editable) (err error) {
		if name.present {
			e.Name = name.value
		}
		if scopes.present {
			e.Scopes = scopes.value
		}
		e.Metadata, err = patchMetadata(e.Metadata, metadata)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	return c.key(&rec), nil
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
	revision, err := a.Service.DeleteKey(c.Context(), c.caller, c.keyID(), ifMatch)
	if err != nil {
		return answer{}, err
	}
	return answer{body: DeletedKey{ID: c.keyID(), Deleted: true, Revision: revision}}, nil
}

func (a *API) rotateKey(c *call) (answer, error) {
	var force field[bool]
	return a.reissue(c, members{"force": &force}, func(ifMatch keystore.Revision, once *keystore.Once) (keystore.Issued, error) {
		how := keystore.Rotation{Force: force.value, IfMatch: ifMatch}
		return a.Service.Rotate(c.Context(), c.caller, c.keyID(), how, once, c.now)
	})
}

func (a *API) regenerateKey(c *call) (answer, error) {
	var e expiry
	return a.reissue(c, e.members(members{}), func(ifMatch keystore.Revision, once *keystore.Once) (keystore.Issued, error) {
		expires, err := e.asked(c.now)
		if err != nil {
			return keystore.Issued{}, err
		}
		issued, err := a.Service.Regenerate(c.Context(), c.caller, c.keyID(), expires, ifMatch, once, c.now)
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
	issued, err := do(ifMatch, once)
	if err != nil {
		return answer{}, err
	}
	return c.issued(&issued), nil
}

func (a *API) renewKey(c *call) (answer, error) {
	var days field[int]
	return a.transit(c, members{"days": &days}, func(ifMatch keystore.Revision) (keystore.Record, error) {
		if !days.given() {
			return keystore.Record{}, &keystore.FieldError{Pointer: "/days", Reason: "is required: 1 to 36525"}
		}
		return a.Service.Renew(c.Context(), c.caller, c.keyID(), keystore.Days(days.value), ifMatch, c.now)
	})
}

func (a *API) expireKey(c *call) (answer, error) {
	return a.transit(c, nil, func(ifMatch keystore.Revision) (keystore.Record, error) {
		return a.Service.Expire(c.Context(), c.caller, c.keyID(), ifMatch, c.now)
	})
}

func (a *API) activateKey(c *call) (answer, error)   { return a.setDeactivated(c, false) }
func (a *API) deactivateKey(c *call) (answer, error) { return a.setDeactivated(c, true) }
func (a *API) blockKey(c *call) (answer, error)      { return a.setBlocked(c, true) }
func (a *API) unblockKey(c *call) (answer, error)    { return a.setBlocked(c, false) }

func (a *API) setDeactivated(c *call, on bool) (answer, error) {
	return a.transit(c, nil, func(ifMatch keystore.Revision) (keystore.Record, error) {
		return a.Service.SetDeactivated(c.Context(), c.caller, c.keyID(), on, ifMatch)
	})
}

func (a *API) setBlocked(c *call, on bool) (answer, error) {
	return a.transit(c, nil, func(ifMatch keystore.Revision) (keystore.Record, error) {
		return a.Service.SetBlocked(c.Context(), c.caller, c.keyID(), on, ifMatch)
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
	rec, err := do(ifMatch)
	if err != nil {
		return answer{}, err
	}
	return c.key(&rec), nil
}

func (a *API) ifMatchKey(c *call) (keystore.Revision, error) {
	return c.ifMatch(func() (keystore.Revision, error) {
		rec, err := a.Service.Key(c.Context(), c.caller, c.keyID())
		return rec.Revision, err
	})
}

func (c *call) keyID() keystore.KeyID { return keystore.KeyID(c.PathValue("id")) }

func (c *call) key(r *keystore.Record) answer {
	return answer{body: keyOf(r, c.now), revision: r.Revision}
}

func (c *call) issued(i *keystore.Issued) answer {
	return answer{body: issuedKeyOf(i, c.now), revision: i.Record.Revision, replayed: i.Replayed}
}
