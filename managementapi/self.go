package managementapi

// Self is the caller as the API knows it.
type Self struct {
	Actor        string   `json:"actor"` // the id of its key, or "local"
	Organization *string  `json:"organization"`
	Scopes       []string `json:"scopes"` // those of this call: an access token may hold fewer than its key
	Key          *Key     `json:"key"`    // null: the caller is no key
}

func (a *API) self(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	who := Self{Actor: c.caller.Actor, Organization: textOf(c.caller.Organization), Scopes: listed(c.caller.Scopes.List())}
	rec, isKey, err := a.Service.Self(c.Context(), c.caller)
	if err != nil || !isKey {
		return answer{body: who}, err
	}
	last, err := a.lastUsed(c, rec.ID)
	key := keyOf(&rec, last, c.now)
	who.Key = &key
	return answer{body: who}, err
}
