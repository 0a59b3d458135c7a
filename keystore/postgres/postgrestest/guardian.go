//go:build unix

package postgrestest

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// A guardian is a process that outlives this one by a moment, to end a server
// and to remove its directory: a test that panics or is killed cleans up
// nothing itself.
type guardian struct {
	leash io.Closer // the guardian acts when this is closed, by whomever
	cmd   *exec.Cmd
}

// A server that was halted has to go on to be ended, and its children too;
// where there is no pkill it kills them itself after a while.
const guard = `trap '' INT TERM
read -r _
if read -r pid <"$1/data/postmaster.pid"; then
	kill -QUIT "$pid"
	kill -CONT "$pid"
	pkill -CONT -P "$pid"
	n=0
	while kill -0 "$pid" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
fi
rm -rf -- "$1"`

func newGuardian(dir string) (*guardian, error) {
	cmd := exec.Command("sh", "-c", guard, "guardian", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the guardian of a server: %w", err)
	}
	return &guardian{leash, cmd}, nil
}

// act has the server ended and its directory removed.
func (g *guardian) act() error {
	g.leash.Close() // closed by Wait at the latest
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("removing a server: %w", err)
	}
	return nil
}
