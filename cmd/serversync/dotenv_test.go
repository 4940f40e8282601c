package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dotenv writes a file and reads it into this process's environment.
func dotenv(t *testing.T, content string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadDotenv(path)
}

func TestDotenvIsRead(t *testing.T) {
	for _, name := range []string{"DOTENV_A", "DOTENV_B", "DOTENV_C", "DOTENV_D"} {
		t.Setenv(name, "") // taken back at the end
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DOTENV_D", "theirs")
	if err := dotenv(t, "\ufeffDOTENV_A=1\r\n# a comment\r\nexport DOTENV_B='a$b#c d' # why\r\nDOTENV_C=\"x\"\r\nDOTENV_D=ours\r\n"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"DOTENV_A": "1", "DOTENV_B": "a$b#c d", "DOTENV_C": "x", "DOTENV_D": "theirs"} {
		if got := os.Getenv(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if err := loadDotenv(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no file: %v", err)
	}
}

// A fault is named by its line, and no secret of the file is repeated.
func TestDotenvKeepsSecrets(t *testing.T) {
	t.Parallel()
	for content, line := range map[string]string{
		"A_1=x\nhunter2 hunter3\nADMIN_TOKEN=hunter2\n": "line 2",
		"A_1=x\n\nWEBHOOK_TOKENS=\"hunter2\n":           "line 3",
		"hunter2 hunter2":                               "line 1",
	} {
		err := dotenv(t, content)
		if err == nil || !strings.Contains(err.Error(), line+" ") || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v; want %s, and no secret", content, err, line)
		}
	}
}
