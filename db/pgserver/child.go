package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// outputDelay is how long after a process's end we wait for what its own
// children still write.
const outputDelay = 2 * time.Second

// child is a process of ours, which ends when we do.
type child struct {
	cmd *exec.Cmd
	// orders leads to the supervisor that has made the process, cmd being the
	// supervisor then; nil: the process is cmd.
	orders *os.File
	// number is the process's id.
	number int
	// done is closed when the process has ended and been waited for; err, why
	// it ended, may be read then.
	done chan struct{}
	err  error
}

func (c *child) pid() int { return c.number }

// ended reports whether the process is gone.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// endsWithin waits for the process's end and reports whether it came before
// the limit and before cancel was closed.
func (c *child) endsWithin(cancel <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
	case <-cancel:
	}
	return c.ended()
}

// signal sends sig to the process, whose end is no error.
func (c *child) signal(sig syscall.Signal) error {
	var err error
	if c.orders != nil {
		_, err = c.orders.Write([]byte{byte(sig)}) //nolint:gosec // G115: signals have small numbers
	} else {
		err = c.cmd.Process.Signal(sig)
	}
	if err == nil || errors.Is(err, os.ErrProcessDone) || errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("send %v: %w", sig, err)
}

// startChild starts cmd as id. When we die without a word, the process gets
// deathSignal: from the kernel where it can, else from a supervisor.
//
// The kernel's parent-death signal is misnamed: it is sent when the *thread*
// that made the process ends, and the Go runtime ends threads as it pleases. So
// the process is made by a goroutine that keeps its thread to itself until the
// process is gone.
func startChild(cmd *exec.Cmd, id identity, deathSignal syscall.Signal) (*child, error) {
	c := &child{cmd: cmd, done: make(chan struct{})}
	cmd.SysProcAttr = id.attributes(deathSignal)
	start := cmd.Start
	if id.supervised {
		var err error
		if start, err = superviseChild(c, cmd, deathSignal); err != nil {
			return nil, err
		}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start()
		if err == nil && c.orders == nil {
			c.number = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		if c.orders != nil {
			_ = c.orders.Close() // nobody listens any more
		}
		close(c.done)
	}()
	return c, <-started
}
