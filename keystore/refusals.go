package keystore

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Refusals bounds how many refused attempts of each caller the audit log
// keeps, which nothing ever removes: a key that may do nothing could else fill
// the disk. The last one kept says that more are not. The nil Refusals keeps
// all. Safe for concurrent use.
type Refusals struct {
	mu      sync.Mutex // guards byActor
	byActor *simplelru.LRU[string, *rate.Limiter]
}

// So many at once, then one in ten seconds: some thousands a day.
const (
	refusalsAtOnce   = 1000
	refusalInterval  = 10 * time.Second
	maxRefusalActors = 4096
)

const moreRefusals = "; more of this caller are not kept for a while"

// NewRefusals returns Refusals that know no caller yet.
func NewRefusals() *Refusals {
	byActor, err := simplelru.NewLRU[string, *rate.Limiter](maxRefusalActors, nil)
	if err != nil {
		panic(err) // only a size below 1 fails
	}
	return &Refusals{byActor: byActor}
}

// keep returns the reason as it is to be kept, or false if it is not.
func (r *Refusals) keep(actor, reason string, now time.Time) (string, bool) {
	if r == nil {
		return reason, true
	}
	left := r.limiter(actor)
	switch {
	case !left.AllowN(now, 1):
		return "", false
	case left.TokensAt(now) < 1:
		return reason + moreRefusals, true
	default:
		return reason, true
	}
}

func (r *Refusals) limiter(actor string) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, known := r.byActor.Get(actor)
	if !known {
		l = rate.NewLimiter(rate.Every(refusalInterval), refusalsAtOnce)
		r.byActor.Add(actor, l)
	}
	return l
}
