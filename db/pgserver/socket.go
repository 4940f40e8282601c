package pgserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// socketPort only names the socket's file: nothing listens on TCP.
	socketPort = "5432"
	socketFile = ".s.PGSQL." + socketPort
	// maxSocketPath is the room for a path in a socket's address (sun_path),
	// in bytes, without the zero byte at its end. macOS has 103.
	maxSocketPath = 103
)

// makeSocketDir makes an empty private directory for the socket: dir/socket,
// or, when that is too long for an address or has characters that separate
// addresses in lists, one in a place for temporary files whose name follows
// from dir. What an earlier server left there is removed.
func makeSocketDir(ctx context.Context, dir string, id identity) (string, error) {
	if path := filepath.Join(dir, socketName); fitsSocket(path) {
		if err := os.RemoveAll(path); err != nil {
			return "", fmt.Errorf("remove the old socket: %w", err)
		}
		return path, id.mkdir(path)
	}
	sum := sha256.Sum256([]byte(dir))
	name := "serversync-" + hex.EncodeToString(sum[:8])
	// The shared places come last, and each is tried once.
	places := slices.DeleteFunc([]string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"},
		func(s string) bool { return s == "" || !id.reaches(ctx, s) || !fitsSocket(filepath.Join(s, name)) })
	if len(places) == 0 {
		return "", fmt.Errorf("%w: no directory for the socket: %s is too long, and neither XDG_RUNTIME_DIR nor TMPDIR nor /tmp will do: use a shorter data directory",
			ErrUnreachable, dir)
	}
	path := filepath.Join(places[0], name)
	if err := removeOwnDir(path, id); err != nil {
		return "", err
	}
	return path, id.mkdir(path)
}

func fitsSocket(dir string) bool {
	return len(filepath.Join(dir, socketFile)) <= maxSocketPath && !strings.ContainsAny(dir, ",\"'\\")
}

// removeOwnDir removes a directory of a name that anybody could have taken: it
// must be a directory, and one of ours.
func removeOwnDir(path string, id identity) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examine the old socket directory: %w", err)
	}
	if !info.IsDir() || !id.owns(info) {
		return fmt.Errorf("%w: %s is in the way of the socket and belongs to somebody else: remove it, or use a shorter data directory", ErrForeign, path)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	return nil
}
