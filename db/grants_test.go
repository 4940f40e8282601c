package db_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// granted is a SkyPANEL in business, whose tables are the role owner's, after
// deploy/grants.sql. The roles are those of all test databases.
func granted(t *testing.T, owner string) (super, migrating, service *bun.DB) {
	t.Helper()
	dbtest.NewDSN(t) // makes the roles, once
	role(t, owner)
	super = dbtest.NewEmpty(t)
	exec(t, super, `GRANT CREATE ON SCHEMA public TO `+owner)
	panel := open(t, dsn(t, super, owner))
	load(t, panel, "skypanel_released.sql", "skypanel_rows.sql", "../skypanel.sql") // the last adds the tables that the first is without
	grants, err := dbtest.Grants()
	if err != nil {
		t.Fatal(err)
	}
	exec(t, super, grants)
	return super, open(t, dsn(t, super, dbtest.MigrateRole)), open(t, dsn(t, super, dbtest.ServiceRole))
}

// TestGrantsByNoSuperuser: who owns SkyPANEL's tables and may create roles can run
// deploy/grants.sql too, as often as wanted, and belongs to neither role afterwards.
func TestGrantsByNoSuperuser(t *testing.T) {
	t.Parallel()
	dbtest.NewDSN(t) // makes the roles, once
	role(t, "panel_three")
	super := dbtest.NewEmpty(t)
	exec(t, super, `ALTER ROLE panel_three CREATEROLE`)
	exec(t, super, `DO $$ BEGIN
		IF current_setting('server_version_num')::int >= 160000 THEN -- there only who made a role may hand it out
			EXECUTE 'GRANT serversync_migrate TO panel_three WITH ADMIN OPTION, INHERIT FALSE, SET FALSE';
		END IF;
		EXECUTE format('ALTER DATABASE %I OWNER TO panel_three', current_database());
	END $$`)
	exec(t, super, `GRANT CREATE ON SCHEMA public TO panel_three WITH GRANT OPTION; GRANT USAGE ON SCHEMA public TO panel_three WITH GRANT OPTION`)
	owner := open(t, dsn(t, super, "panel_three"))
	load(t, owner, "skypanel_released.sql", "skypanel_rows.sql", "../skypanel.sql")
	grants, err := dbtest.Grants()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		exec(t, owner, grants)
	}
	var left int
	if err := super.NewRaw(`SELECT count(*) FROM pg_auth_members WHERE roleid = 'serversync_migrate'::regrole AND member = 'panel_three'::regrole AND NOT admin_option`).
		Scan(t.Context(), &left); err != nil || left != 0 {
		t.Errorf("%d memberships are left, %v", left, err)
	}
	lacks, err := db.MissingPrivileges(t.Context(), open(t, dsn(t, super, dbtest.ServiceRole)))
	if err != nil || len(lacks) > 0 {
		t.Errorf("the doctor misses %+v, %v", lacks, err)
	}
}

// worksAs does what the service does first, as its role.
func worksAs(t *testing.T, service *bun.DB) {
	t.Helper()
	if report := migrated(t, service, db.MigrateOptions{}); !report.Empty() {
		t.Errorf("as the service: %+v, want nothing left to do", report)
	}
	lacks, err := db.MissingPrivileges(t.Context(), service)
	if err != nil || len(lacks) > 0 {
		t.Errorf("the doctor misses %+v, %v: deploy/grants.sql and it must agree", lacks, err)
	}
	if _, err := db.InsertBilling(t.Context(), service, []db.NewBilling{newBilling(301, 2)}); err != nil {
		t.Error(err)
	}
}

// TestGrantsWhereTheOwnerAddsColumns is the first way of deploy/grants.sql: what
// the dry run prints for SkyPANEL's tables is run as their owner.
func TestGrantsWhereTheOwnerAddsColumns(t *testing.T) {
	t.Parallel()
	super, migrating, service := granted(t, "panel_one")

	// The service's role makes nothing, and says so.
	_, err := db.Migrate(t.Context(), service, db.MigrateOptions{})
	if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "42501" {
		t.Errorf("as the service: %v, want it refused", err)
	}
	report := migrated(t, service, db.MigrateOptions{DryRun: true}) // but it can say what is missing
	wantReport(t, report, everything(t))

	if _, err := db.Migrate(t.Context(), migrating, db.MigrateOptions{}); err == nil || !strings.Contains(err.Error(), "as the table's owner, run: ALTER TABLE") {
		t.Errorf("as the migrating role: %v, want it to say what the owner has to do", err)
	}
	owner := open(t, dsn(t, super, "panel_one"))
	runOneByOne(t, owner, slices.DeleteFunc(migrated(t, migrating, db.MigrateOptions{DryRun: true}).GuestSQL, func(s string) bool { return strings.HasPrefix(s, "UPDATE") }))
	if report := migrated(t, migrating, db.MigrateOptions{}); !report.Empty() {
		t.Errorf("afterwards: %+v, want nothing left to do", report)
	}

	// A column that is dropped is added again, and filled in.
	exec(t, super, `GRANT USAGE ON SCHEMA serversync TO panel_one; GRANT SELECT ON serversync.billing_rows TO panel_one`) // as deploy/grants.sql says
	exec(t, super, `ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
	runOneByOne(t, owner, migrated(t, migrating, db.MigrateOptions{DryRun: true}).GuestSQL)
	if report := migrated(t, migrating, db.MigrateOptions{}); !report.Empty() {
		t.Errorf("afterwards: %+v, want nothing left to do", report)
	}
	worksAs(t, service)
}

// TestGrantsWhereOneMayActAsTheOwner is the second way. What is granted twice
// stays as it is.
func TestGrantsWhereOneMayActAsTheOwner(t *testing.T) {
	t.Parallel()
	super, migrating, service := granted(t, "panel_two")
	exec(t, super, `GRANT panel_two TO `+dbtest.MigrateRole)
	wantReport(t, migrated(t, migrating, db.MigrateOptions{}), everything(t))
	worksAs(t, service)
	before := made(t, super)
	grants, err := dbtest.Grants()
	if err != nil {
		t.Fatal(err)
	}
	exec(t, super, grants)
	if diff := cmp.Diff(before, made(t, super)); diff != "" {
		t.Errorf("a second time changed:\n%s", diff)
	}
}

// TestDryRunPrintsWhatMigrateRuns: run by hand, it leaves the same database.
func TestDryRunPrintsWhatMigrateRuns(t *testing.T) {
	t.Parallel()
	byHand := skypanel(t, "skypanel_released.sql", "skypanel_rows.sql")
	report := migrated(t, byHand, db.MigrateOptions{DryRun: true})
	runOneByOne(t, byHand, slices.Concat(report.SchemaSQL, report.GuestSQL))
	if left := migrated(t, byHand, db.MigrateOptions{}); !left.Empty() || len(left.SchemaSQL)+len(left.GuestSQL) > 0 {
		t.Errorf("after the printed SQL: %+v, want nothing left to do", left)
	}

	byProgram := skypanel(t, "skypanel_released.sql", "skypanel_rows.sql")
	did := migrated(t, byProgram, db.MigrateOptions{})
	if diff := cmp.Diff(slices.Concat(report.SchemaSQL, report.GuestSQL), slices.Concat(did.SchemaSQL, did.GuestSQL)); diff != "" {
		t.Errorf("printed (-), done (+):\n%s", diff)
	}
	for _, schema := range []string{"public", "serversync"} {
		if diff := cmp.Diff(shape(t, byHand, schema), shape(t, byProgram, schema)); diff != "" {
			t.Errorf("%s: by hand (-), by the program (+):\n%s", schema, diff)
		}
	}
	const applied = `SELECT name, group_id FROM serversync.migrations ORDER BY id`
	wantTable(t, byHand, table(t, byProgram, applied), applied)
}

// TestMigrateKnowsANewerSchema: an older process goes on beside a newer one.
func TestMigrateKnowsANewerSchema(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `INSERT INTO serversync.migrations (name, group_id) VALUES ('20991231000000', 9)`)
	report := migrated(t, database, db.MigrateOptions{})
	if !report.Empty() || !slices.Equal(report.Newer, []string{"20991231000000"}) {
		t.Errorf("%+v, want nothing to do, and the newer migration named", report)
	}
}

// runOneByOne does what psql does with a file.
func runOneByOne(t *testing.T, database *bun.DB, statements []string) {
	t.Helper()
	conn, err := database.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing is left undone
	for _, statement := range statements {
		if _, err := conn.Conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
