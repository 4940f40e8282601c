//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bootTimeout bounds the time from the power switch to a service that is ready;
// QEMU without KVM needs a while.
const bootTimeout = 3 * time.Minute

// machine is a virtual machine that runs.
type machine struct {
	url     string // of what it serves
	disk    *disk
	console string // a file: what the machine says, since it was started
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
	socket  net.Listener
	served  chan error // how the serving of its disk ended
}

// boot starts a machine that does one thing ([beGuest]) with the disk of a file.
func boot(ctx context.Context, dir, vm, accel, image, task string) (_ *machine, err error) {
	m := &machine{console: filepath.Join(dir, "console.log"), exited: make(chan struct{}), served: make(chan error, 1)}
	if m.disk, err = newDisk(image); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "disk.sock")
	if m.socket, err = (&net.ListenConfig{}).Listen(ctx, "unix", socket); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for QEMU: %w", err), m.disk.close())
	}
	go func() {
		conn, err := m.socket.Accept()
		if err == nil {
			err = serveDisk(conn, m.disk)
			_ = conn.Close()
		}
		m.served <- err
	}()
	if err := m.start(ctx, vm, accel, socket, task); err != nil {
		return nil, errors.Join(err, m.socket.Close(), m.disk.close())
	}
	return m, nil
}

func (m *machine) start(ctx context.Context, vm, accel, socket, task string) error {
	free, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	addr := free.Addr().(*net.TCPAddr)
	if err := free.Close(); err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	m.url = "http://" + addr.String()
	log, err := os.OpenFile(m.console, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the console's log: %w", err)
	}
	defer func() { _ = log.Close() }() // QEMU has its own
	// Not with ctx: whoever ends the run pulls the plug.
	m.cmd = exec.CommandContext(context.WithoutCancel(ctx), "qemu-system-x86_64", //nolint:gosec // G204: our own arguments
		"-accel", accel, "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", filepath.Join(vm, "vmlinuz"), "-initrd", filepath.Join(vm, "initramfs"),
		"-append", "console=ttyS0 quiet panic=-1 powercut="+task,
		// The network leads nowhere but to us. QEMU keeps nothing of the disk to
		// itself: cache=writeback tells the machine that the disk has a volatile
		// cache, and passes its flushes on.
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%d-:8080", addr.Port),
		"-device", "virtio-net-pci,netdev=net,romfile=",
		"-drive", "if=none,id=disk,format=raw,cache=writeback,file=nbd+unix:///?socket="+socket,
		"-device", fmt.Sprintf("virtio-blk-pci,drive=disk,logical_block_size=%d,physical_block_size=%[1]d", pageSize))
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	go func() {
		defer close(m.exited)
		_ = m.cmd.Wait() // killed, as a rule
	}()
	return nil
}

// ready waits until a path of the machine's service answers 200.
func (m *machine) ready(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, http.NoBody)
		if err != nil {
			return err
		}
		if response, err := client.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-m.exited:
			return fmt.Errorf("the machine ended by itself; its console ends:\n%s", m.consoleTail())
		case <-ctx.Done():
			return fmt.Errorf("the machine is not ready: %w; its console ends:\n%s", ctx.Err(), m.consoleTail())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// cut cuts the power: what is in the machine's memory is gone, and a part of what
// is in its disk's cache.
func (m *machine) cut(random *rand.Rand) (lost, of int, err error) {
	_ = m.cmd.Process.Kill() // it may have ended by itself
	lost, of, err = m.disk.cut(random)
	<-m.exited
	errs := []error{err, m.socket.Close()}
	served := <-m.served
	for _, expected := range []error{net.ErrClosed, errNoPower, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(served, expected) {
			served = nil
		}
	}
	errs = append(errs, served, m.disk.close())
	return lost, of, errors.Join(errs...)
}

// end cuts the power too, where nobody asks what it did.
func (m *machine) end(random *rand.Rand) error {
	_, _, err := m.cut(random)
	return err
}

// mounted waits until the machine has its disk.
func (m *machine) mounted(ctx context.Context) error {
	for range int(bootTimeout / (10 * time.Millisecond)) {
		if text, err := os.ReadFile(m.console); err == nil && strings.Contains(string(text), "guest: ") {
			return nil
		}
		select {
		case <-m.exited:
			return fmt.Errorf("the machine ended by itself; its console ends:\n%s", m.consoleTail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("the machine does not start; its console ends:\n%s", m.consoleTail())
}

// consoleTail is the end of what the machine said.
func (m *machine) consoleTail() string {
	text, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

// format makes an empty disk with a file system.
func format(ctx context.Context, image string) error {
	file, err := os.Create(image) //nolint:gosec // G304: a file of ours
	if err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	if err := errors.Join(file.Truncate(diskSize), file.Close()); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	mkfs := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-b", strconv.Itoa(pageSize), image) //nolint:gosec // G204: our own arguments
	mkfs.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("format the disk: %w: %s", err, out)
	}
	return nil
}
