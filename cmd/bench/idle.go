package main

import (
	"context"
	"errors"
	"fmt"
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

// idle measures the whole program, as it is installed, while nothing happens.
func (b *bench) idle(ctx context.Context) error {
	m := b.results.section("idle", "Idle",
		"The installed program, `serversync serve` with PostgreSQL and the broker embedded and nothing to do. *first start* makes the database; *start* is from the second on; both until `/readyz` says that it is ready. "+
			"Memory is what the processes have for themselves plus their share of what they have in common (PSS): *serversync* with the broker in it, and PostgreSQL with all its processes. Processor time is that of all of them together.")
	data := filepath.Join(b.dir, "idle")
	if err := os.Mkdir(data, 0o711); err != nil { //nolint:gosec // G301: PostgreSQL has to pass
		return fmt.Errorf("make a directory: %w", err)
	}
	return b.each(ctx, "idle", func(round int) error { return b.idleOnce(ctx, m, data, round) })
}

func (b *bench) idleOnce(ctx context.Context, m *measured, data string, round int) (err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	binary, err := filepath.Abs(b.binary)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), binary, "serve") //nolint:gosec // G204: the program that is measured
	cmd.Dir = data
	cmd.Env = []string{"HOME=" + data, "LISTEN_ADDR=" + addr, "DATA_DIR=" + filepath.Join(data, "data"), "WEBHOOK_TOKENS=" + webhookToken, "LOG_FORMAT=json"}
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "LOCPATH", "PG_BINDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s (make build makes it): %w", b.binary, err)
	}
	ended := make(chan struct{})
	var how error
	go func() {
		defer close(ended)
		how = cmd.Wait()
	}()
	defer func() {
		if err = errors.Join(err, stopProgram(cmd, ended)); err == nil {
			err = how
		}
		if err != nil {
			err = fmt.Errorf("%w; its log:\n%s", err, &log)
		}
	}()
	if err := ready(ctx, "http://"+addr+"/readyz", ended); err != nil {
		return err
	}
	name := "start"
	if round == 0 {
		name = "first start"
	}
	m.note(name, "ms", milliseconds(time.Since(started)))
	pause(ctx, b.lasting(2*time.Second)) // what is done after a start is no idling
	before := processorTime(cmd.Process.Pid)
	since := time.Now()
	pause(ctx, b.lasting(4*time.Second))
	used := processorTime(cmd.Process.Pid) - before
	m.note("processor", "% of one", 100*used.Seconds()/time.Since(since).Seconds())
	own, rest := memoryOf(cmd.Process.Pid)
	m.note("memory, serversync", "MiB", own)
	m.note("memory, PostgreSQL", "MiB", rest)
	return ctx.Err()
}

// ready waits until a program is ready.
func ready(ctx context.Context, url string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return fmt.Errorf("ask whether it is ready: %w", err)
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			_ = answer.Body.Close() // only read
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return errors.New("the program ended before it was ready")
		default:
		}
		pause(ctx, 5*time.Millisecond)
	}
	return fmt.Errorf("the program is not ready: %w", ctx.Err())
}

// stopProgram ends the program, which ends what it has started.
func stopProgram(cmd *exec.Cmd, ended <-chan struct{}) error {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
	limit := time.NewTimer(15 * time.Second)
	defer limit.Stop()
	select {
	case <-ended:
		return nil
	case <-limit.C:
	}
	err := cmd.Process.Kill()
	<-ended
	return errors.Join(errors.New("the program did not end within 15 s, and was killed"), err)
}

// family is a process and all that come from it, by their numbers.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		if err != nil {
			return all // only a malformed pattern
		}
		for _, task := range tasks {
			for child := range strings.FieldsSeq(firstLine(task)) {
				if n, err := strconv.Atoi(child); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all
}

// processorTime is what a process and its children have used.
func processorTime(pid int) time.Duration {
	const tick = 10 * time.Millisecond // of Linux, wherever it runs
	var used time.Duration
	for _, p := range family(pid) {
		_, rest, ok := strings.Cut(firstLine(fmt.Sprintf("/proc/%d/stat", p)), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 13 {
			continue
		}
		for _, i := range []int{11, 12} { // utime and stime
			if n, err := strconv.Atoi(fields[i]); err == nil {
				used += time.Duration(n) * tick
			}
		}
	}
	return used
}

// memoryOf is how many MiB a process has, and how many its children.
func memoryOf(pid int) (own, children float64) {
	for _, p := range family(pid) {
		kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(valueOf(fmt.Sprintf("/proc/%d/smaps_rollup", p), "Pss"), " kB"), 64)
		switch {
		case err != nil: // it has just ended
		case p == pid:
			own = kilobytes / 1024
		default:
			children += kilobytes / 1024
		}
	}
	return own, children
}
