package pgserver

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// outputDelay is how long after a process's end we wait for what its own
// children still write.
const outputDelay = 2 * time.Second

// child is a process of ours.
type child struct {
	cmd *exec.Cmd
	// done is closed when the process has ended and been waited for; err, why
	// it ended, may be read then.
	done chan struct{}
	err  error
}

func (c *child) pid() int { return c.cmd.Process.Pid }

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

// startChild starts cmd with the attributes.
//
// The parent-death signal that they may hold is misnamed: the kernel sends it
// when the *thread* that made the process ends, and the Go runtime ends threads
// as it pleases. So the process is made by a goroutine that keeps its thread to
// itself until the process is gone.
func startChild(cmd *exec.Cmd, attr *syscall.SysProcAttr) (*child, error) {
	cmd.SysProcAttr = attr
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, <-started
}
