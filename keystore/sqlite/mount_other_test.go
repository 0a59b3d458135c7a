//go:build unix && !linux

package sqlite

import "testing"

func mountSmall(t *testing.T) string {
	t.Skip("a small disk is mounted on Linux only; TestFullDatabase does without")
	return ""
}
