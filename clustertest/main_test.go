//go:build unix

package clustertest

import "time"

// patience bounds every wait. It is there to end what hangs, not to measure.
const patience = time.Minute
