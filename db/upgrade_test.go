package db_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"serversync/db/dbtest"
)

// Old and new versions run side by side during an upgrade, on the newer one's
// schema, and an upgrade may be taken back. So a migration only adds: what an
// older version reads is there, and what it writes is taken.
//
// allowed are the lines by which a migration may do otherwise, each with why it
// harms nobody.
var allowed = map[string]string{
	// The same check with the kind 'keep' more, which an older version never writes.
	"it takes away, or changes: constraint overrides.overrides_kind_check CHECK ((kind = ANY (ARRAY['billing_on'::text, 'billing_off'::text, 'package'::text, 'ignore'::text, 'undone'::text])))":                           "wider",
	"an older version's row may be refused: constraint overrides.overrides_kind_check CHECK ((kind = ANY (ARRAY['billing_on'::text, 'billing_off'::text, 'package'::text, 'ignore'::text, 'undone'::text, 'keep'::text])))": "wider",
}

func TestMigrationsOnlyAdd(t *testing.T) {
	t.Parallel()
	database := dbtest.NewEmpty(t)
	load(t, database, "../skypanel.sql")
	exec(t, database, `CREATE SCHEMA serversync`)
	var before []string
	for _, file := range migrationFiles(t) {
		for part := range strings.SplitSeq(read(t, file), "--bun:split\n") {
			exec(t, database, part)
		}
		after := shape(t, database, "serversync")
		for _, fault := range breaks(before, after) {
			if allowed[fault] == "" {
				t.Errorf("%s: %s", filepath.Base(file), fault)
			}
		}
		before = after
	}
}

// breaks says what of a change an older version could stumble over.
func breaks(before, after []string) (faults []string) {
	existed := map[string]bool{} // tables
	for _, line := range before {
		existed[tableOf(line)] = true
	}
	for _, line := range before {
		if !slices.Contains(after, line) && !strings.HasPrefix(line, "function ") && !strings.HasPrefix(line, "index ") {
			faults = append(faults, "it takes away, or changes: "+line)
		}
		if name := signature(line); name != "" && !slices.ContainsFunc(after, func(l string) bool { return signature(l) == name }) {
			faults = append(faults, "it takes away: "+line)
		}
	}
	for _, line := range after {
		if slices.Contains(before, line) || !existed[tableOf(line)] {
			continue
		}
		switch kind, _, _ := strings.Cut(line, " "); {
		case kind == "column" && strings.Contains(line, " null:NO default: ") && strings.HasSuffix(line, "identity:"):
			faults = append(faults, "an older version's INSERT has no value for: "+line)
		case kind == "constraint" && !strings.Contains(line, "NOT NULL"):
			faults = append(faults, "an older version's row may be refused: "+line)
		case kind == "index" && strings.Contains(line, "CREATE UNIQUE"):
			faults = append(faults, "an older version's row may be refused: "+line)
		}
	}
	return faults
}

var ofTable = regexp.MustCompile(`^(?:column|constraint|index|trigger) ([a-z_0-9]+)\.`)

func tableOf(line string) string {
	if m := ofTable.FindStringSubmatch(line); m != nil {
		return m[1]
	}
	return ""
}

// signature is that of a function; empty: it is none.
func signature(line string) string {
	if !strings.HasPrefix(line, "function ") {
		return ""
	}
	return line[:strings.LastIndexByte(line, ' ')]
}

// TestMigrationsStayAsTheyWere: a migration that somebody has applied is never
// edited; another one follows it. testdata/migrations.sha256 is what sha256sum
// prints in the folder of migrations.
func TestMigrationsStayAsTheyWere(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	for _, file := range migrationFiles(t) {
		sum := sha256.Sum256([]byte(read(t, file)))
		fmt.Fprintf(&want, "%s  %s\n", hex.EncodeToString(sum[:]), filepath.Base(file))
	}
	if got := read(t, "testdata/migrations.sha256"); got != want.String() {
		t.Errorf("testdata/migrations.sha256 is\n%s\nand should be, if the migrations that it lists are untouched and new ones are last:\n%s", got, want.String())
	}
}

func migrationFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the migrations: %v, %v", files, err)
	}
	return files // in the order of their names, which is theirs
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestBreaksAreNoticed tries the rules.
func TestBreaksAreNoticed(t *testing.T) {
	t.Parallel()
	const base = `CREATE TABLE serversync.a (id int PRIMARY KEY, x text); CREATE FUNCTION serversync.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'`
	for statement, harmless := range map[string]bool{
		`ALTER TABLE serversync.a ADD COLUMN y text`:                                                         true,
		`ALTER TABLE serversync.a ADD COLUMN y text NOT NULL DEFAULT ''`:                                     true,
		`CREATE TABLE serversync.b (id int PRIMARY KEY, x text NOT NULL)`:                                    true,
		`CREATE INDEX i ON serversync.a (x)`:                                                                 true,
		`CREATE OR REPLACE FUNCTION serversync.f(int) RETURNS int LANGUAGE sql AS 'SELECT 2'`:                true,
		`ALTER TABLE serversync.a ADD COLUMN y text NOT NULL`:                                                false,
		`ALTER TABLE serversync.a DROP COLUMN x`:                                                             false,
		`ALTER TABLE serversync.a RENAME COLUMN x TO y`:                                                      false,
		`ALTER TABLE serversync.a ALTER COLUMN x TYPE varchar(9)`:                                            false,
		`ALTER TABLE serversync.a ALTER COLUMN x SET NOT NULL`:                                               false,
		`ALTER TABLE serversync.a ADD CHECK (x <> '')`:                                                       false,
		`CREATE UNIQUE INDEX i ON serversync.a (x)`:                                                          false,
		`DROP FUNCTION serversync.f(int)`:                                                                    false,
		`DROP TABLE serversync.a`:                                                                            false,
		`DROP FUNCTION serversync.f(int); CREATE FUNCTION serversync.f(text) RETURNS int LANGUAGE sql AS ''`: false,
	} {
		t.Run(statement, func(t *testing.T) {
			t.Parallel()
			database := dbtest.NewEmpty(t)
			exec(t, database, `CREATE SCHEMA serversync; SET check_function_bodies = off; `+base)
			before := shape(t, database, "serversync")
			exec(t, database, `SET check_function_bodies = off; `+statement)
			if faults := breaks(before, shape(t, database, "serversync")); (len(faults) == 0) != harmless {
				t.Errorf("faults %q, harmless %t", faults, harmless)
			}
		})
	}
}
