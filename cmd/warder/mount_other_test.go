//go:build !linux

package main_test

import "testing"

func mountSmall(t *testing.T, _ string) { t.Skip("a small disk is mounted on Linux only") }
