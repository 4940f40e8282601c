//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// account is what was done.
type account struct {
	run, skipped int
	page         time.Duration // the page's own commands
}

// follow makes a bare machine with a company on it, follows the page there, then
// tries the commands of the other pages.
func follow(ctx context.Context, c config) (done account, err error) {
	pages := make(map[string][]step)
	var wanted []string
	for _, path := range append([]string{c.page}, c.others...) {
		text, err := os.ReadFile(path) //nolint:gosec // G304: the pages that we were told to follow
		if err != nil {
			return done, fmt.Errorf("read a page: %w", err)
		}
		if pages[path], err = parsePage(string(text)); err != nil {
			return done, fmt.Errorf("%s: %w", path, err)
		}
		wanted = append(wanted, debianPackages(pages[path])...)
	}
	m, err := newMachine(ctx, c.out)
	if m != nil {
		defer func() { err = errors.Join(err, m.halt(context.WithoutCancel(ctx), c.keep)) }()
	}
	if err != nil {
		return done, errors.Join(errNoMachine, err)
	}
	fmt.Fprintln(c.out, "the machine's disk is made")
	there, err := settle(ctx, c, m, wanted)
	if there != nil {
		defer func() { err = errors.Join(err, there.close()) }()
	}
	if err != nil {
		return done, err
	}
	fmt.Fprintln(c.out, "the machine is up, with SkyPANEL's database and a simulated VirtFusion")

	r := reader{account: &done, config: c, machine: m, company: there}
	if r.shell, err = newShell(ctx, m); err != nil {
		return done, err
	}
	defer func() { _ = r.shell.close() }() // it ends with its input
	for i, path := range append([]string{c.page}, c.others...) {
		began := time.Now()
		if err := r.read(ctx, path, pages[path]); err != nil {
			return done, err
		}
		if i == 0 {
			done.page = time.Since(began)
			found, err := there.check(ctx)
			if err != nil {
				return done, fmt.Errorf("SkyPANEL's books and VirtFusion differ: %w", err)
			}
			fmt.Fprintf(c.out, "SkyPANEL's books and VirtFusion agree: %s\n", found)
		}
	}
	return done, nil
}

// debianPackages are those that a page installs: the machine has no network
// later.
func debianPackages(steps []step) (names []string) {
	for _, s := range steps {
		words := strings.Fields(s.command)
		if s.skipped != "" || len(words) < 2 || words[0] != "apt-get" || words[1] != "install" {
			continue
		}
		for _, w := range words[2:] {
			if !strings.HasPrefix(w, "-") {
				names = append(names, w)
			}
		}
	}
	return names
}

// errNoMachine: there is no bare machine, for a reason that is no fault of the
// page: no root, no mirror of Debian's.
var errNoMachine = errors.New("the bare machine could not be made")

// settle installs what the company has, boots the machine, and starts the company.
func settle(ctx context.Context, c config, m *machine, wanted []string) (*theCompany, error) {
	if err := m.install(ctx, false, "postgresql"); err != nil {
		return nil, errors.Join(errNoMachine, err)
	}
	if len(wanted) > 0 {
		if err := m.install(ctx, true, wanted...); err != nil {
			return nil, errors.Join(errNoMachine, err)
		}
	}
	ourselves, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find our own program: %w", err)
	}
	for from, to := range map[string]string{
		ourselves: companyProgram, c.schema: companySchema, c.archive: filepath.Join("root", filepath.Base(c.archive)),
	} {
		mode := os.FileMode(0o644)
		if to == companyProgram {
			mode = 0o755
		}
		if err := m.bring(from, to, mode); err != nil {
			return nil, err
		}
	}
	if err := m.boot(ctx); err != nil {
		return nil, errors.Join(errNoMachine, err)
	}
	return startCompany(ctx, m)
}

// reader follows pages.
type reader struct {
	*account
	config
	machine *machine
	company *theCompany
	shell   *shell
}

// read does what a page says. It ends at the first thing that is not as the page
// has it.
func (r *reader) read(ctx context.Context, path string, steps []step) error {
	fmt.Fprintf(r.out, "\n== %s\n", path)
	for _, s := range steps {
		where := fmt.Sprintf("%s:%d", path, s.line)
		switch {
		case s.skipped != "":
			fmt.Fprintf(r.out, "%s: not run (%s): %s\n", where, s.skipped, firstLine(s.command))
			r.skipped++
		case s.act != "":
			answer, err := r.company.ask(ctx, s.act)
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			fmt.Fprintf(r.out, "%s: (%s: %s)\n", where, s.act, answer)
		default:
			if err := r.enter(ctx, where, s); err != nil {
				return err
			}
			r.run++
		}
	}
	return nil
}

func (r *reader) enter(ctx context.Context, where string, s step) error {
	began := time.Now()
	printed, code, err := r.shell.run(ctx, s.command)
	fmt.Fprintf(r.out, "%s: $ %s [%.1f s]\n", where, s.command, time.Since(began).Seconds())
	if err != nil {
		return fmt.Errorf("%s: %w; printed:\n%s", where, err, printed)
	}
	if code != s.exit {
		return fmt.Errorf("%s: exit code %d, the page has %d; printed:\n%s", where, code, s.exit, printed)
	}
	if lines := missing(s.shown, printed); len(lines) > 0 {
		return fmt.Errorf("%s: the page shows\n%s\nprinted was\n%s", where, strings.Join(lines, "\n"), printed)
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
