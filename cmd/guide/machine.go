//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"serversync/cmd/internal/siege"
)

const (
	bootTimeout = 2 * time.Minute
	haltTimeout = 30 * time.Second
)

// machine is a minimal Debian in a directory, and, once it is booted, its first
// process. It has a network of its own with nothing but a loopback interface.
type machine struct {
	dir, root string
	out       io.Writer
	nspawn    *exec.Cmd
	ended     chan struct{}
	init      int // pid of its first process, as we see it
}

// newMachine makes the directory: Debian's smallest set with systemd.
func newMachine(ctx context.Context, out io.Writer) (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can make and boot a machine: run it as root, on Debian")
	}
	dir, err := os.MkdirTemp("/var/tmp", "guide-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	m := &machine{dir: dir, root: filepath.Join(dir, "root"), out: out}
	return m, m.host(ctx, "debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,ca-certificates", debianRelease, m.root)
}

// debianRelease is what the machine runs.
const debianRelease = "bookworm"

// host runs a program beside the machine. What it printed is in the error.
func (m *machine) host(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // G204: programs of ours
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if printed, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, lastLines(string(printed), 20))
	}
	return nil
}

// install installs Debian's packages before the machine boots; with download they
// are only fetched, so that apt finds them there without a network.
func (m *machine) install(ctx context.Context, download bool, packages ...string) error {
	args := []string{m.root, "apt-get", "-y", "-q", "--no-install-recommends", "install"}
	if download {
		args = []string{m.root, "apt-get", "-y", "-q", "--download-only", "install"}
	}
	return m.host(ctx, "chroot", append(args, packages...)...)
}

// bring copies a file there.
func (m *machine) bring(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from) //nolint:gosec // G304: files that we were told to bring
	if err != nil {
		return fmt.Errorf("bring %s to the machine: %w", filepath.Base(from), err)
	}
	to = filepath.Join(m.root, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // G301: as a machine's folders are
		return fmt.Errorf("bring %s to the machine: %w", filepath.Base(from), err)
	}
	if err := os.WriteFile(to, data, mode); err != nil { //nolint:gosec // G703: below a directory of our own
		return fmt.Errorf("bring %s to the machine: %w", filepath.Base(from), err)
	}
	return nil
}

// boot starts the machine and waits until its systemd has started everything.
func (m *machine) boot(ctx context.Context) error {
	log, err := os.Create(filepath.Join(m.dir, "console.log"))
	if err != nil {
		return fmt.Errorf("open the console's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	// Not with ctx: halt shuts it down.
	m.nspawn = exec.CommandContext(context.WithoutCancel(ctx), "systemd-nspawn", "--quiet", "--directory="+m.root, "--boot", //nolint:gosec // G204: our own directory
		"--register=no", "--keep-unit", "--private-network", "--machine="+filepath.Base(m.dir))
	m.nspawn.Stdout, m.nspawn.Stderr = log, log
	m.nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := m.nspawn.Start(); err != nil {
		return fmt.Errorf("boot the machine: %w", err)
	}
	m.ended = make(chan struct{})
	go func() {
		_ = m.nspawn.Wait() // a machine that ends shows as one that does not answer
		close(m.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if m.init == 0 {
			m.init = childOf(m.nspawn.Process.Pid)
		} else if out, _ := m.command(ctx, "systemctl", "is-system-running").Output(); // degraded is an exit code, too
		strings.Contains("running degraded", strings.TrimSpace(string(out))) && len(out) > 1 {
			return nil
		}
		select {
		case <-m.ended:
			return fmt.Errorf("the machine ended while it booted: see %s", log.Name())
		default:
			siege.Pause(ctx, 200*time.Millisecond)
		}
	}
	return fmt.Errorf("the machine did not boot within %s: see %s", bootTimeout, log.Name())
}

// childOf is the first child of a process; 0: it has none yet.
func childOf(pid int) int {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(children)), " ")
	child, _ := strconv.Atoi(first) // 0 where there is none
	return child
}

// command is a program on the running machine, as root, with an environment like
// that of a login.
func (m *machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{"--target", strconv.Itoa(m.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", name}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...) //nolint:gosec // G204: what the page says, on a machine made for it
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb",
		"DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=cat", "PAGER=cat",
	}
	return cmd
}

// halt shuts the machine down and, unless it is kept, removes its files.
func (m *machine) halt(ctx context.Context, keep bool) error {
	if m.ended != nil {
		_ = m.nspawn.Process.Signal(syscall.SIGTERM) // shuts down; fails when it has ended
		timer := time.AfterFunc(haltTimeout, func() { _ = m.nspawn.Process.Kill() })
		defer timer.Stop()
		<-m.ended
	}
	if keep {
		fmt.Fprintf(m.out, "the machine's files are kept in %s\n", m.dir)
		return nil
	}
	// Debian's own rm: os.RemoveAll stops at attributes that systemd sets.
	return m.host(ctx, "rm", "-rf", "--one-file-system", m.dir)
}

// lastLines are the last n lines of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
