//go:build !linux

package main_test

import "syscall"

func noOrphan(*syscall.SysProcAttr) {}
