package managementapi

import (
	"github.com/warderhq/warder/keystore"
)

// DeletedKeys is the answer to a bulk deletion.
type DeletedKeys struct {
	Deleted []keystore.KeyID `json:"deleted"`
	Failed  []FailedDelete   `json:"failed"`
	More    bool             `json:"more"` // more expired keys are there than one call takes
	DryRun  bool             `json:"dry_run"`
}

// FailedDelete is a key that stays, and why, as a Problem would say it.
type FailedDelete struct {
	ID     keystore.KeyID `json:"id"`
	Code   string         `json:"code"`
	Detail string         `json:"detail"`
}

func (a *API) deleteKeys(c *call) (answer, error) {
	var (
		ids             field[[]keystore.KeyID]
		expired, dryRun field[bool]
		organization    field[string]
	)
	if err := c.body.into(members{"ids": &ids, "expired": &expired, "organization": &organization, "dry_run": &dryRun}); err != nil {
		return answer{}, err
	}
	done, err := a.Service.DeleteKeys(c.Context(), c.attempt(), keystore.BulkDelete{
		IDs: ids.value, Expired: expired.value, Organization: organization.value, DryRun: dryRun.value,
	}, c.now)
	if err != nil {
		return answer{}, err
	}
	out := DeletedKeys{
		Deleted: append([]keystore.KeyID{}, done.Deleted...), Failed: []FailedDelete{}, More: done.More, DryRun: dryRun.value,
	}
	for _, one := range done.Failed {
		p := ProblemOf(one.Err)
		out.Failed = append(out.Failed, FailedDelete{one.ID, p.Code, p.Detail})
	}
	return answer{body: out}, nil
}
