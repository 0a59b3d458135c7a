//go:build unix && !(linux && amd64)

package clustertest

import (
	"errors"
	"time"
)

// A clock cannot be set here.
type clock struct{}

func clockOf(int) (*clock, error) {
	return nil, errors.New("the clock of a process can only be set on Linux on amd64")
}

func (*clock) set(time.Duration) error { return nil }
