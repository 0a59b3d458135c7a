package managementapi

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// used counts requests of a key on a day.
func (g *rig) used(id keystore.KeyID, organization string, day keystore.Day, outcome keystore.Outcome, requests uint64) {
	g.t.Helper()
	err := g.store.AddUsage(g.t.Context(), keystore.UsageBatch{Counts: []keystore.UsageCount{{
		Key: id, Organization: organization, Day: day, Outcome: outcome, Requests: requests,
	}}})
	if err != nil {
		g.t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	one, two, other := g.make(`{}`).ID, g.make(`{}`).ID, g.make(`{"organization":"acme"}`).ID
	today := keystore.DayOf(keystore.InstantOf(time.Now()))
	g.used(one, "default", 20260930, keystore.OutcomeAllowed, 100)
	g.used(one, "default", 20261001, keystore.OutcomeAllowed, 10)
	g.used(one, "default", 20261031, keystore.OutcomeBlocked, 3)
	g.used(two, "default", 20261031, keystore.OutcomeAllowed, 5)
	g.used(two, "default", 20261031, keystore.OutcomeLimited, 4)
	g.used(other, "acme", 20261031, keystore.OutcomeSuperseded, 7)
	g.used(one, "default", today, keystore.OutcomeAllowed, 2)

	sums := func(query string) string {
		t.Helper()
		u := ok[Usage](g.send("GET", "/usage"+query, ""), 200)
		var out []string
		for _, s := range u.Usage {
			var reasons []string
			for reason, n := range s.Refused {
				reasons = append(reasons, fmt.Sprint(reason, "=", n))
			}
			sort.Strings(reasons)
			out = append(out, fmt.Sprint(s.Period, strings.TrimPrefix(" "+string(s.Key), " "), " ", s.Requests, "/", s.Allowed, "/", s.Keys, " ", strings.Join(reasons, ",")))
		}
		return strings.Join(out, "; ")
	}
	now := time.Now().UTC()
	byKey := []string{fmt.Sprintf("2026-10%s 13/10/1 blocked=3", one), fmt.Sprintf("2026-10%s 9/5/1 limited=4", two), fmt.Sprintf("2026-10%s 7/0/0 superseded=7", other)}
	sort.Strings(byKey)
	for query, want := range map[string]string{
		"":                                 now.Format("2006-01") + " 2/2/1 ",
		"?by=day":                          now.Format("2006-01-02") + " 2/2/1 ",
		"?from=2026-09&to=2026-10":         "2026-09 100/100/1 ; 2026-10 29/15/2 blocked=3,limited=4,superseded=7",
		"?to=2026-10":                      "2026-10 29/15/2 blocked=3,limited=4,superseded=7",
		"?to=2026-10&organization=default": "2026-10 22/15/2 blocked=3,limited=4",
		"?to=2026-10&key=" + string(two):   "2026-10 9/5/1 limited=4",
		"?to=2026-10&group=key":            strings.Join(byKey, "; "),
		"?by=day&from=2026-10-01&to=2026-10-31&key=" + string(one): "2026-10-01 10/10/1 ; 2026-10-31 3/0/0 blocked=3",
		"?by=day&to=2026-10-01":                            "2026-10-01 10/10/1 ",
		"?from=2020-01&to=2020-12":                         "",
		"?organization=nowhere":                            "",
		"?organization=acme&to=2026-10&key=" + string(one): "",
	} {
		if got := sums(query); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	for query, place := range map[string]string{
		"by=week": "by", "group=organization": "group", "from=2026-11-22": "from", "from=2026-13": "from", "to=november": "to", "by=day&from=2026-11": "from",
		"by=day&to=2026-02-30": "to", "from=2026-11&to=2026-10": "to", "from=2999-01": "to", "limit=1": "limit", "by=": "by", "to=0001-01": "to",
	} {
		g.send("GET", "/usage?"+query, "").refused(400, "invalid_parameter", place)
	}
	g.as("acme", "warder:read")
	if got := sums("?to=2026-10"); got != "2026-10 7/0/0 superseded=7" {
		t.Errorf("acme sees %s", got)
	}
	if got := sums("?to=2026-10&key=" + string(one)); got != "" {
		t.Errorf("acme sees %s", got)
	}
}

// Of more than an answer holds, what is there is whole.
func TestUsageOfMoreThanAnAnswerHolds(t *testing.T) {
	row := func(key string, o keystore.Outcome) keystore.UsageRow {
		return keystore.UsageRow{Month: 202611, Key: keystore.KeyID(key), Outcome: o, Requests: 1, Keys: 1}
	}
	rows := []keystore.UsageRow{row("a", 0), row("a", 1), row("b", 0), row("b", 1)}
	if u := usageOf(rows, 4); u.More || len(u.Usage) != 2 || u.Usage[1].Requests != 2 {
		t.Errorf("%+v", u)
	}
	if u := usageOf(rows, 3); !u.More || len(u.Usage) != 1 || u.Usage[0].Requests != 2 {
		t.Errorf("%+v", u)
	}
}

// One sees who still uses the old secret, and may end its grace period early.
func TestLastUseOfEachSecret(t *testing.T) {
	g := newRig(t)
	id := g.make(`{}`).ID
	path := "/keys/" + string(id)
	if key := ok[Key](g.send("GET", path, ""), 200); key.LastUsedAt != nil || key.Previous != nil {
		t.Errorf("%+v", key)
	}
	first, second := keystore.InstantOf(time.Now().Add(-2*time.Hour)), keystore.InstantOf(time.Now().Add(-time.Hour))
	use := func(gen keystore.Generation, at keystore.Instant) {
		t.Helper()
		if err := g.store.AddUsage(t.Context(), keystore.UsageBatch{Last: []keystore.LastUse{{Key: id, Generation: gen, At: at}}}); err != nil {
			t.Fatal(err)
		}
	}
	use(1, first)
	rotated := ok[IssuedKey](g.send("POST", path+"/rotate", ""), 200)
	if rotated.LastUsedAt != nil || rotated.Previous == nil || !rotated.Previous.LastUsedAt.Equal(first.Time()) {
		t.Errorf("%+v %+v", rotated.Key, rotated.Previous)
	}
	use(2, second)
	shown := []Key{ok[Key](g.send("GET", path, ""), 200), ok[KeyPage](g.send("GET", "/keys", ""), 200).Keys[0], ok[Key](g.send("PATCH", path, `{"name":"n"}`), 200)}
	for _, key := range shown {
		if !key.LastUsedAt.Equal(second.Time()) || !key.Previous.LastUsedAt.Equal(first.Time()) || key.Previous.Generation != 1 || key.PreviousGeneration != 1 || !key.Previous.GraceEnd.Equal(*key.GraceEnd) {
			t.Errorf("%+v", key)
		}
	}
	tomorrow := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	if key := ok[Key](g.send("POST", path+"/grace", `{"ends_at":"`+tomorrow.Format(time.RFC3339)+`"}`), 200); !key.GraceEnd.Equal(tomorrow) {
		t.Errorf("%+v", key)
	}
	if key := ok[Key](g.send("POST", path+"/grace", `{"ends_in_seconds":60}`), 200); time.Until(*key.GraceEnd) > time.Minute {
		t.Errorf("%+v", key)
	}
	ended := ok[Key](g.send("POST", path+"/grace", `{"ends_in_seconds":0}`), 200)
	if ended.GraceEnd != nil || ended.PreviousGeneration != 0 || ended.Previous == nil || ended.Previous.GraceEnd != nil {
		t.Errorf("%+v %+v", ended, ended.Previous)
	}
	rec := g.record(id)
	if err := rec.Admit(1, time.Now()); err == nil {
		t.Error("the old secret still passes")
	}
	g.send("POST", path+"/grace", `{"ends_in_seconds":60}`).refused(409, "no_grace_period", "")
	ok[IssuedKey](g.send("POST", path+"/rotate", ""), 200)
	for body, place := range map[string]string{
		`{}`: "/ends_at", `{"ends_at":"` + tomorrow.Format(time.RFC3339) + `","ends_in_seconds":1}`: "/ends_at", `{"ends_at":"soon"}`: "/ends_at",
		`{"ends_in_seconds":-1}`: "/ends_in_seconds", `{"ends_in_seconds":9223372036854775807}`: "/ends_in_seconds", `{"ends_in_seconds":"1"}`: "/ends_in_seconds",
		`{"ends_at":"2220-01-01T00:00:00Z"}`: "/ends_at",
	} {
		g.send("POST", path+"/grace", body).refused(400, "invalid_field", place)
	}
	g.send("POST", "/keys/"+string(g.make(`{}`).ID)+"/grace", `{"ends_in_seconds":1}`).refused(409, "no_grace_period", "")
}
