package keystore

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limit is how often a key may be used: on average Requests in each Period,
// and up to Burst at once. The zero Limit is none of its own.
type Limit struct {
	Requests uint32
	Burst    uint32
	Period   time.Duration // a second, a minute, an hour or a day
}

// The periods by their letters.
var limitPeriods = []struct {
	letter string
	period time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}}

// The most that a limit may allow: finer, and a nanosecond would not tell two
// requests apart.
const (
	maximumLimitRequests = 1_000_000
	maximumLimitBurst    = 10_000_000
	maximumLimitRefill   = 366 * 24 * time.Hour
)

// ParseLimit reads "100/s" or "100/s burst 200"; letters as in s, m, h, d.
// Without a burst it is the number of requests. The empty text is no limit.
func ParseLimit(text string) (Limit, error) {
	if text == "" {
		return Limit{}, nil
	}
	words := strings.Fields(text)
	if len(words) != 1 && (len(words) != 3 || words[1] != "burst") {
		return Limit{}, errLimitForm
	}
	count, letter, _ := strings.Cut(words[0], "/")
	var l Limit
	for _, p := range limitPeriods {
		if p.letter == letter {
			l.Period = p.period
		}
	}
	requests, err := strconv.ParseUint(count, 10, 32)
	if err != nil || l.Period == 0 {
		return Limit{}, errLimitForm
	}
	l.Requests, l.Burst = uint32(requests), uint32(requests)
	if len(words) == 3 {
		burst, err := strconv.ParseUint(words[2], 10, 32)
		if err != nil {
			return Limit{}, errLimitForm
		}
		l.Burst = uint32(burst)
	}
	return l, l.Validate()
}

var errLimitForm = &FieldError{"/limit", `must be like "100/s burst 200"; the letter is s, m, h or d`}

// Validate refuses, with a *FieldError, a limit that lets nothing through or
// is finer than can be told.
func (l Limit) Validate() error {
	switch {
	case l == Limit{}:
		return nil
	case l.Requests < 1 || l.Requests > maximumLimitRequests || l.Burst < 1 || l.Burst > maximumLimitBurst:
		return &FieldError{"/limit", "must be 1 to 1000000 requests with a burst of 1 to 10000000"}
	case l.letter() == "":
		return errLimitForm
	case time.Duration(l.Burst) > maximumLimitRefill/l.interval():
		return &FieldError{"/limit", "the burst would take more than a year to come back"}
	default:
		return nil
	}
}

// String is the inverse of ParseLimit.
func (l Limit) String() string {
	switch {
	case l == Limit{}:
		return ""
	case l.Burst == l.Requests:
		return fmt.Sprintf("%d/%s", l.Requests, l.letter())
	default:
		return fmt.Sprintf("%d/%s burst %d", l.Requests, l.letter(), l.Burst)
	}
}

func (l Limit) letter() string {
	for _, p := range limitPeriods {
		if p.period == l.Period {
			return p.letter
		}
	}
	return ""
}

// interval is the time between two requests at the average rate.
func (l Limit) interval() time.Duration { return l.Period / time.Duration(l.Requests) }
