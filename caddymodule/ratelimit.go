package caddymodule

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/warderhq/warder/keystore"
)

// setRateLimit says when to come again, and in the fields of
// draft-ietf-httpapi-ratelimit-headers-07 what the limit is: so many requests
// pass when RateLimit-Reset is over.
func setRateLimit(h http.Header, a keystore.Allowance) {
	h["Retry-After"] = []string{wholeSeconds(a.Retry)}
	h["Ratelimit-Limit"] = []string{strconv.FormatUint(uint64(a.Limit.Burst), 10)}
	h["Ratelimit-Remaining"] = []string{strconv.FormatUint(uint64(a.Remaining), 10)}
	h["Ratelimit-Reset"] = []string{wholeSeconds(a.Reset)}
	h["Ratelimit-Policy"] = []string{fmt.Sprintf("%d;w=%d;burst=%d", a.Limit.Requests, int(a.Limit.Period/time.Second), a.Limit.Burst)}
}

// wholeSeconds rounds up: who comes at the end of it does not come too early.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}
