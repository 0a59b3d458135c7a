package clustertest

import "syscall"

// noOrphan ends the process with the test, however the test ends.
func noOrphan(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
