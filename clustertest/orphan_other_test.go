//go:build unix && !linux

package clustertest

import "syscall"

func noOrphan(*syscall.SysProcAttr) {}
