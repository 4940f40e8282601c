package pgserver

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"serversync/db/pgserver/binaries"
)

// nobody is an account without any rights.
const nobody = 65534

func TestNamespaceWorksBelowPrivateDirectories(t *testing.T) {
	t.Parallel()
	needIdentity(t, identityNamespace)
	private := filepath.Join(publicDir(t), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, Config{Dir: filepath.Join(private, "pg"), Durability: Fast, identity: identityNamespace})
	wantOwner(t, s.dataDir(), 0)
	execute(t, s.DSN("postgres"), "SELECT 1")
}

func TestAccountOwnsItsFilesAlone(t *testing.T) {
	t.Parallel()
	needIdentity(t, identityAccount)
	parent := publicDir(t)
	s := startServer(t, Config{Dir: filepath.Join(parent, "pg"), Durability: Fast, identity: identityAccount})
	wantOwner(t, parent, 0)
	for _, dir := range []string{s.dir, s.dataDir(), s.socketDir} {
		wantOwner(t, dir, accountUID())
	}
	execute(t, s.DSN("postgres"), "SELECT 1")
}

func TestAccountOutOfReach(t *testing.T) {
	t.Parallel()
	needIdentity(t, identityAccount)
	private := filepath.Join(publicDir(t), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: filepath.Join(private, "pg"), Durability: Fast, identity: identityAccount})
	wantError(t, err, ErrUnreachable, private+" (mode 0700)", "chmod o+x")
}

// TestDataChangesHands starts one cluster in both ways that root has, by turns.
func TestDataChangesHands(t *testing.T) {
	t.Parallel()
	needIdentity(t, identityNamespace)
	needIdentity(t, identityAccount)
	dir := filepath.Join(publicDir(t), "pg")
	for _, kind := range []identityKind{identityNamespace, identityAccount, identityNamespace, identityAuto} {
		s := startServer(t, Config{Dir: dir, Durability: Fast, identity: kind})
		execute(t, s.DSN("postgres"), "CREATE TABLE IF NOT EXISTS turns (n int); INSERT INTO turns VALUES (1)")
		if kind == identityAuto {
			if got := query(t, s.DSN("postgres"), "SELECT count(*)::text FROM turns"); got != "4" {
				t.Errorf("%s rows, want 4", got)
			}
		}
		stopServer(t, s)
	}
}

func TestDataOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(publicDir(t), "pg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: dir, Durability: Fast})
	wantError(t, err, ErrForeign, "uid 65534", "nothing was changed")
	wantOwner(t, dir, nobody)
}

func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needPublicBinaries(t)
	asNobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	parent := publicDir(t)
	theirs := filepath.Join(parent, "theirs")
	for dir, owner := range map[string]int{theirs: nobody, filepath.Join(parent, "ours"): 0} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	h := startHelper(t, helperOrder{Dir: theirs, Durability: Fast}, asNobody)
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	execute(t, h.DSN, "SELECT 1")
	wantOwner(t, filepath.Join(theirs, "data"), nobody)
	h.stop(t)

	refused := startHelper(t, helperOrder{Dir: filepath.Join(parent, "ours"), Durability: Fast}, asNobody)
	if !strings.Contains(refused.Error, "belongs to uid 0") {
		t.Errorf("nobody in root's directory: %q", refused.Error)
	}
}

// TestRootWithoutNamespaces has the kernel refuse them, which it does for
// everybody in a namespace whose limit is zero; the account takes over.
func TestRootWithoutNamespaces(t *testing.T) {
	t.Parallel()
	needIdentity(t, identityNamespace)
	needIdentity(t, identityAccount)
	everybody := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1 << 16}}
	h := startHelper(t, helperOrder{Dir: filepath.Join(publicDir(t), "pg"), Durability: Fast, NoNamespaces: true}, &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER,
		UidMappings:                everybody,
		GidMappings:                everybody,
		GidMappingsEnableSetgroups: true,
	})
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	if !strings.Contains(h.User, "account postgres") {
		t.Errorf("it runs as somebody else: %s", h.User)
	}
	execute(t, h.DSN, "SELECT 1")
	h.stop(t)
}

// needIdentity skips the test where the machine does not offer a way to run the
// server. It asks the machine, not the code under test, whose faults would
// otherwise hide in skipped tests.
func needIdentity(t *testing.T, kind identityKind) {
	t.Helper()
	needRoot(t)
	if kind == identityAccount {
		if _, err := user.Lookup(accountName); err != nil {
			t.Skip(err)
		}
		needPublicBinaries(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	if err := cmd.Run(); err != nil {
		t.Skipf("no user namespaces: %v", err)
	}
}

// needPublicBinaries skips the test where PostgreSQL's programs are root's alone,
// as those in root's cache are.
func needPublicBinaries(t *testing.T) {
	t.Helper()
	inst, err := binaries.Find(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), inst.Program("postgres"), "--version")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Run(); errors.Is(err, fs.ErrPermission) {
		t.Skipf("PostgreSQL's programs are not for everybody: %v", err)
	}
}

func wantOwner(t *testing.T, path string, uid int) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := ownerOf(info); !ok || got != uid {
		t.Errorf("%s belongs to uid %d, want %d", path, got, uid)
	}
}
