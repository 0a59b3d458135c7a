package keystore

import "errors"

// Outcome is how a request that named a key ended, as far as the key goes.
type Outcome uint8

// The outcomes that usage tells apart.
const (
	OutcomeAllowed Outcome = iota
	OutcomeBlocked
	OutcomeExpired
	OutcomeDeactivated
	OutcomeSuperseded
	OutcomeNetwork
	OutcomePermission
	OutcomeScope
	OutcomeLimited
	outcomes
)

var outcomeNames = [...]string{
	OutcomeAllowed: "allowed", OutcomeBlocked: "blocked", OutcomeExpired: "expired", OutcomeDeactivated: "deactivated",
	OutcomeSuperseded: "superseded", OutcomeNetwork: "network", OutcomePermission: "permission", OutcomeScope: "scope",
	OutcomeLimited: "limited",
}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "unknown"
}

// Day is a day of the calendar in UTC, as the number 20261122.
type Day int32

// DayOf returns the day in which i lies.
func DayOf(i Instant) Day {
	y, m, d := i.Time().Date()
	return Day(y*10_000 + int(m)*100 + d)
}

// Month is a month of the calendar in UTC, as the number 202611.
type Month int32

// Month returns the month in which d lies.
func (d Day) Month() Month { return Month(d / 100) }

// UsageDaysKept is for how long usage is kept by day. By month it is kept for
// good.
const UsageDaysKept = 92

// UsageBatch is what was counted since the last one.
type UsageBatch struct {
	Counts []UsageCount
	Last   []LastUse
	// Oldest is the first day to stay; earlier ones are let go, their months
	// stay. Zero: all stay.
	Oldest Day
}

// UsageCount is how often a key met with an outcome on a day.
type UsageCount struct {
	Key          KeyID
	Organization string
	Day          Day
	Outcome      Outcome
	Requests     uint64
}

// LastUse is when a generation of a key was last let pass.
type LastUse struct {
	Key        KeyID
	Generation Generation
	At         Instant
}

// UsageQuery asks for sums by period and outcome. Exactly one pair of bounds
// is set; both are inclusive.
type UsageQuery struct {
	Organization       string // empty: all
	Key                KeyID  // empty: all
	FromDay, ToDay     Day
	FromMonth, ToMonth Month
	ByKey              bool // a row for each key, too
	Limit              int  // at most so many rows; zero: all
}

// ByMonth reports which of the two is asked for; an error unless it is exactly
// one, with both bounds.
func (q UsageQuery) ByMonth() (bool, error) {
	days, months := q.FromDay != 0 && q.ToDay != 0, q.FromMonth != 0 && q.ToMonth != 0
	switch {
	case days && q.FromMonth == 0 && q.ToMonth == 0:
		return false, nil
	case months && q.FromDay == 0 && q.ToDay == 0:
		return true, nil
	default:
		return false, errors.New("asked neither by days nor by months")
	}
}

// UsageRow is one sum, in the order of period, key, outcome.
type UsageRow struct {
	Day      Day   // of a query by days
	Month    Month // of a query by months
	Key      KeyID // with ByKey
	Outcome  Outcome
	Requests uint64
	Keys     int // how many keys are in the sum
}
