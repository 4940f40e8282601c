package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// adminTokenFile is where the service keeps an admin token that nobody chose,
// in DATA_DIR.
const adminTokenFile = "admin.token"

// keepAdminToken returns the token of the directory, and makes one at the
// first start. Of two processes that start at once, one makes it and the other
// takes it over.
func keepAdminToken(dir string) (string, error) {
	if err := makeDataDir(dir); err != nil {
		return "", err
	}
	token, err := readAdminToken(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeAdminToken(dir); err != nil {
			return "", fmt.Errorf("keep an admin token in %s (or set ADMIN_TOKEN): %w", dir, err)
		}
		token, err = readAdminToken(dir)
	}
	return token, err
}

// readAdminToken reads the token that a service keeps in the directory;
// [fs.ErrNotExist] when there is none.
func readAdminToken(dir string) (string, error) {
	path := filepath.Join(dir, adminTokenFile)
	content, err := os.ReadFile(path) //nolint:gosec // the path is the operator's own: DATA_DIR
	if err != nil {
		return "", fmt.Errorf("read the admin token (or set ADMIN_TOKEN): %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" {
		return "", fmt.Errorf("%s is empty: remove it to have a new token made, or set ADMIN_TOKEN", path)
	}
	return token, nil
}

// makeAdminToken writes a new token beside its place, for this user alone, and
// links it there whole. A token that is there already stays.
func makeAdminToken(dir string) (err error) {
	file, err := os.CreateTemp(dir, adminTokenFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	_, err = file.WriteString(rand.Text() + rand.Text() + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Link(file.Name(), filepath.Join(dir, adminTokenFile)); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
