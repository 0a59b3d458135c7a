//go:build linux

package main

import "fmt"

// keepAwake keeps the cores that are measured on busy with what gives way to
// anything else there. A virtual machine's core that sleeps is lent to other
// guests, and how long it takes to come back says nothing of a server.
func keepAwake() error {
	for _, core := range []string{serverCore, clientCore} {
		if err := pinned(core, []string{"chrt", "--idle", "0", "sh", "-c", "while :; do :; done"}).Start(); err != nil {
			return fmt.Errorf("keeping core %s awake: %w", core, err)
		}
	}
	return nil
}
