package db_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// everything is what the first migration of a released SkyPANEL does.
func everything(t *testing.T) db.MigrateReport {
	t.Helper()
	files, err := filepath.Glob("migrations/*.up.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the migrations: %v, %v", files, err)
	}
	var migrations []string
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		migrations = append(migrations, name)
	}
	return db.MigrateReport{
		Migrations: migrations,
		Columns: []string{
			"virtfusion_hourly_billing.reference_1",
			"virtfusion_hourly_transactions.server_uuid",
			"virtfusion_hourly_transactions.transaction_type",
			"virtfusion_hourly_transactions.reference_1",
			"virtfusion_hourly_transactions.reference_2",
		},
		Indexes: []string{
			"serversync_billing_virtfusion_server_id",
			"serversync_billing_server_uuid",
			"serversync_transactions_billing_id",
			"serversync_transactions_created_at",
			"serversync_users_virtfusion_id",
			"serversync_transactions_server",
			"serversync_uptime_server_id",
		},
	}
}

func migrated(t *testing.T, database *bun.DB, options db.MigrateOptions) db.MigrateReport {
	t.Helper()
	report, err := db.Migrate(t.Context(), database, options)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantReport(t *testing.T, got, want db.MigrateReport) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(db.MigrateReport{}, "SchemaSQL", "GuestSQL")); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// made lists what there is in the schema public: columns, constraints,
// indexes, tables with their owners.
func made(t *testing.T, database *bun.DB) []string {
	t.Helper()
	return strings.Split(table(t, database, `
		SELECT * FROM (
			SELECT format('column %s.%s %s %s null:%s default:%s', table_name, column_name, data_type,
				concat_ws(',', numeric_precision, numeric_scale, datetime_precision), is_nullable, column_default)
			FROM information_schema.columns WHERE table_schema = 'public'
			UNION ALL
			SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
			FROM pg_constraint WHERE connamespace = 'public'::regnamespace
			UNION ALL
			SELECT format('index %s %s', indexdef, (SELECT indisvalid FROM pg_index WHERE indexrelid = ('public.' || quote_ident(indexname))::regclass))
			FROM pg_indexes WHERE schemaname = 'public'
			UNION ALL
			SELECT format('relation %s %s of %s acl:%s', relkind, relname, relowner::regrole, relacl)
			FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'i'
			UNION ALL
			SELECT format('trigger %s %s', tgrelid::regclass, tgname) FROM pg_trigger
			WHERE NOT tgisinternal AND tgrelid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('serversync')) -- what is ours is ours
		) AS m (line) ORDER BY line COLLATE "C"`), "\n")
}

// skypanel makes a database as SkyPANEL has it, from files of testdata.
func skypanel(t *testing.T, files ...string) *bun.DB {
	t.Helper()
	database := dbtest.NewEmpty(t)
	load(t, database, files...)
	return database
}

func TestMigrateCreatesSkyPANELInTheEmbeddedDatabase(t *testing.T) {
	t.Parallel()
	database := dbtest.NewEmpty(t)
	wantReport(t, migrated(t, database, db.MigrateOptions{CreateSkyPANEL: true}), everything(t))
	before := made(t, database)

	if report := migrated(t, database, db.MigrateOptions{CreateSkyPANEL: true}); !report.Empty() {
		t.Errorf("a second time: %+v, want nothing done", report)
	}
	if diff := cmp.Diff(before, made(t, database)); diff != "" {
		t.Errorf("a second time changed:\n%s", diff)
	}
}

// TestSkyPANELsTablesAsWeMakeThem holds the tables of the embedded database
// against SkyPANEL's own.
func TestSkyPANELsTablesAsWeMakeThem(t *testing.T) {
	t.Parallel()
	const columns = `
		SELECT table_name, column_name, data_type, numeric_precision, numeric_scale
		FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2`
	theirs := strings.Split(table(t, skypanel(t, "skypanel_released.sql"), columns), "\n")
	ours := dbtest.NewEmpty(t)
	statements := migrated(t, ours, db.MigrateOptions{CreateSkyPANEL: true})
	added := map[string]bool{}
	for _, c := range statements.Columns {
		added[c] = true
	}
	inTheirs := map[string]bool{} // tables of the file
	for _, line := range theirs {
		inTheirs[strings.Split(line, "|")[0]] = true
	}
	for line := range strings.SplitSeq(table(t, ours, columns), "\n") {
		c := strings.Split(line, "|")
		if inTheirs[c[0]] && !added[c[0]+"."+c[1]] && !slices.Contains(theirs, line) {
			t.Errorf("SkyPANEL has no column %s", line)
		}
	}
}

func TestMigrateSkyPANEL(t *testing.T) {
	t.Parallel()
	newer := everything(t)
	newer.Columns = slices.DeleteFunc(newer.Columns, func(c string) bool { return strings.HasSuffix(c, ".reference_1") })
	for name, tc := range map[string]struct {
		files []string
		want  db.MigrateReport
	}{
		"released, new":                       {[]string{"skypanel_released.sql"}, everything(t)},
		"released, in business":               {[]string{"skypanel_released.sql", "skypanel_rows.sql"}, everything(t)},
		"newer, with some columns of our own": {[]string{"skypanel_released.sql", "skypanel_rows.sql", "skypanel_newer.sql"}, newer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := skypanel(t, tc.files...)
			before := made(t, database)
			exec(t, database, `CREATE SCHEMA before`)
			tables := strings.Split(table(t, database, `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`), "\n")
			for _, name := range tables {
				exec(t, database, `CREATE TABLE before.`+name+` AS TABLE public.`+name)
			}

			wantReport(t, migrated(t, database, db.MigrateOptions{DryRun: true}), tc.want)
			if diff := cmp.Diff(before, made(t, database)); diff != "" {
				t.Errorf("a dry run changed:\n%s", diff)
			}
			wantTable(t, database, "true", `SELECT to_regnamespace('serversync') IS NULL`)

			wantReport(t, migrated(t, database, db.MigrateOptions{}), tc.want)
			after := made(t, database)
			var additions []string
			for _, line := range after {
				if !slices.Contains(before, line) {
					additions = append(additions, line)
				}
			}
			for _, line := range before {
				if !slices.Contains(after, line) {
					t.Errorf("SkyPANEL's own is changed or gone: %s", line)
				}
			}
			if want := len(tc.want.Columns) + len(tc.want.Indexes); len(additions) != want {
				t.Errorf("%d additions, want %d:\n%s", len(additions), want, strings.Join(additions, "\n"))
			}
			for _, line := range additions {
				if strings.HasPrefix(line, "column ") && !strings.HasSuffix(line, "text  null:YES default:") {
					t.Errorf("added %s: one of SkyPANEL's inserts could break", line)
				}
				if strings.Contains(line, "UNIQUE") {
					t.Errorf("added %s: one of SkyPANEL's inserts could break", line)
				}
			}
			for _, name := range tables {
				key := "id"
				if name == "session" {
					key = "sid"
				}
				wantTable(t, database, "0", `
					SELECT count(*) FROM before.`+name+` AS b FULL JOIN public.`+name+` AS a USING (`+key+`)
					WHERE a IS NULL OR b IS NULL OR NOT to_jsonb(a) @> to_jsonb(b)`)
			}

			if report := migrated(t, database, db.MigrateOptions{}); !report.Empty() {
				t.Errorf("a second time: %+v, want nothing done", report)
			}
			if report := migrated(t, database, db.MigrateOptions{DryRun: true}); !report.Empty() {
				t.Errorf("a dry run afterwards: %+v, want nothing to do", report)
			}
			if diff := cmp.Diff(after, made(t, database)); diff != "" {
				t.Errorf("a second time changed:\n%s", diff)
			}
		})
	}
}

// TestSkyPANELsInsertsStillWork sends what SkyPANEL's query builder sends:
// every column of its own schema, "default" for those without a value.
func TestSkyPANELsInsertsStillWork(t *testing.T) {
	t.Parallel()
	const (
		user = `
			insert into "users" ("id", "email", "username", "password", "full_name", "first_name", "last_name", "phone", "company", "address", "role", "virtfusion_id", "is_verified", "is_active", "created_at", "updated_at")
			values (default, 'carla@company.test', 'carla', 'hash', 'Carla', default, default, default, default, default, default, default, default, default, default, default)
			returning "id", "email", "role", "virtfusion_id", "is_active"`
		billing = `
			insert into "virtfusion_hourly_billing" ("id", "user_id", "server_id", "virtfusion_server_id", "server_uuid", "package_id", "package_name", "monthly_price", "hourly_rate", "hours_in_month", "billing_enabled", "server_created_at", "last_billed_at", "created_at", "updated_at")
			values (default, 2, 201, 201, 'uuid-201', 5, 'Small', '5', '0.006849', default, true, '2025-10-02T08:00:00.000Z', null, default, default)
			returning "id", "user_id", "server_id", "virtfusion_server_id", "server_uuid", "package_id", "package_name", "monthly_price", "hourly_rate", "hours_in_month", "billing_enabled", "server_created_at", "last_billed_at"`
		newerBilling = `
			insert into "virtfusion_hourly_billing" ("id", "user_id", "server_id", "virtfusion_server_id", "server_uuid", "package_id", "package_name", "monthly_price", "hourly_rate", "hours_in_month", "billing_enabled", "accumulated_amount", "server_created_at", "last_billed_at", "created_at", "updated_at")
			values (default, 2, 201, 201, 'uuid-201', 5, 'Small', '5', '0.006849', default, true, default, '2025-10-02T08:00:00.000Z', null, default, default)
			returning "id", "user_id", "server_id", "virtfusion_server_id", "server_uuid", "package_id", "package_name", "monthly_price", "hourly_rate", "hours_in_month", "billing_enabled", "server_created_at", "last_billed_at"`
		charge = `
			insert into "virtfusion_hourly_transactions" ("id", "billing_id", "user_id", "server_id", "transaction_id", "hours_billed", "amount_charged", "billing_period_start", "billing_period_end", "status", "created_at")
			values (default, 4, 2, 201, null, '1.00', '0.0100', '2025-10-02T08:00:00.000Z', '2025-10-02T09:00:00.000Z', default, default)
			returning "id", "billing_id", "amount_charged", "status"`
	)
	for name, tc := range map[string]struct {
		files   []string
		billing string
	}{
		"released": {[]string{"skypanel_released.sql", "skypanel_rows.sql"}, billing},
		"newer":    {[]string{"skypanel_released.sql", "skypanel_rows.sql", "skypanel_newer.sql"}, newerBilling},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := skypanel(t, tc.files...)
			migrated(t, database, db.MigrateOptions{})

			insert := func(statement string) string {
				t.Helper()
				var row string
				if err := database.NewRaw(`WITH r AS (`+statement+`) SELECT to_json(r)::text FROM r`).Scan(t.Context(), &row); err != nil {
					t.Fatal(err)
				}
				return row
			}
			for statement, want := range map[string]string{
				user: `{"id":4,"email":"carla@company.test","role":"client","virtfusion_id":null,"is_active":true}`,
				tc.billing: `{"id":4,"user_id":2,"server_id":201,"virtfusion_server_id":201,"server_uuid":"uuid-201","package_id":5,"package_name":"Small",` +
					`"monthly_price":5.0000,"hourly_rate":0.006849,"hours_in_month":730,"billing_enabled":true,"server_created_at":"2025-10-02T08:00:00","last_billed_at":null}`,
			} {
				if got := insert(statement); got != want {
					t.Errorf("%s\nreturned %s\nwant     %s", statement, got, want)
				}
			}
			if got, want := insert(charge), `{"id":2,"billing_id":4,"amount_charged":0.0100,"status":"pending"}`; got != want {
				t.Errorf("%s\nreturned %s\nwant     %s", charge, got, want)
			}
			// A second row for the same server, as the race of its ordering makes.
			insert(tc.billing)
			// And what its job does.
			exec(t, database, `update "virtfusion_hourly_billing" set "last_billed_at" = '2025-10-02T09:00:00.000Z', "updated_at" = now() where "id" = 4`)
			exec(t, database, `delete from "virtfusion_hourly_billing" where "id" = 4`)
			wantTable(t, database, "0", `SELECT count(*) FROM virtfusion_hourly_transactions WHERE billing_id = 4`)

			// Ours, in tables with every NOT NULL of the original.
			ids, err := db.InsertBilling(t.Context(), database, []db.NewBilling{newBilling(301, 2)})
			if err != nil || len(ids) != 1 {
				t.Errorf("our own row: %v, %v", ids, err)
			}
		})
	}
}

func TestMigrateManyAtOnce(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]db.MigrateOptions{"embedded": {CreateSkyPANEL: true}, "guest": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := dbtest.NewEmpty(t)
			if !options.CreateSkyPANEL {
				load(t, database, "skypanel_released.sql", "skypanel_rows.sql")
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			type result struct {
				report db.MigrateReport
				err    error
			}
			results := make(chan result)
			for range 8 {
				process := open(t, dsn(t, database, ""))
				go func() {
					report, err := db.Migrate(ctx, process, options)
					results <- result{report, err}
				}()
			}
			var did int
			for range 8 {
				r := <-results
				if r.err != nil {
					t.Errorf("one of eight: %v", r.err)
				}
				if !r.report.Empty() {
					did++
				}
			}
			if did != 1 {
				t.Errorf("%d of eight did something, want one", did)
			}
			if report := migrated(t, database, options); !report.Empty() {
				t.Errorf("afterwards: %+v, want nothing left to do", report)
			}
		})
	}
}

func TestMigrateWaitsForNobodyOnceItsContextEnds(t *testing.T) {
	t.Parallel()
	database := skypanel(t, "skypanel_released.sql")
	holder := begin(t, database)
	exec(t, holder, `SELECT pg_advisory_lock(objid::bigint) FROM (VALUES (x'0073727673796e63'::bigint)) AS l (objid)`)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := db.Migrate(ctx, database, db.MigrateOptions{})
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	wantTable(t, database, "true", `SELECT to_regnamespace('serversync') IS NULL`)
}

func TestMigrateDryRunOfAnEmbeddedDatabase(t *testing.T) {
	t.Parallel()
	database := dbtest.NewEmpty(t)
	wantReport(t, migrated(t, database, db.MigrateOptions{CreateSkyPANEL: true, DryRun: true}), everything(t))
	wantTable(t, database, "0", `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`)
}

func TestMigrateRefusesAForeignDatabase(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		statements      string
		missing, exists []string
	}{
		"empty": {``, []string{"users", "package_pricing", "virtfusion_cron_settings", "settings", "virtfusion_hourly_billing", "virtfusion_hourly_transactions"}, nil},
		"somebody else's": {
			`CREATE TABLE users (id serial); CREATE TABLE settings (id serial); CREATE TABLE orders (id serial)`,
			[]string{"package_pricing", "virtfusion_cron_settings", "virtfusion_hourly_billing", "virtfusion_hourly_transactions"},
			[]string{"users", " settings,"},
		},
		"in another schema": {`CREATE SCHEMA app; CREATE TABLE app.users (id serial)`, []string{"users"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := dbtest.NewEmpty(t)
			if tc.statements != "" {
				exec(t, database, tc.statements)
			}
			before := made(t, database)
			for _, dryRun := range []bool{true, false} {
				_, err := db.Migrate(t.Context(), database, db.MigrateOptions{DryRun: dryRun})
				if !errors.Is(err, db.ErrNotSkyPANEL) {
					t.Fatalf("error %v, want ErrNotSkyPANEL", err)
				}
				for _, name := range tc.missing {
					if !strings.Contains(err.Error(), name) {
						t.Errorf("%q does not name the table %s", err, name)
					}
				}
				for _, name := range tc.exists {
					if strings.Contains(err.Error(), name) {
						t.Errorf("%q names %s, which exists", err, name)
					}
				}
				if !strings.Contains(err.Error(), "DATABASE_URL") {
					t.Errorf("%q does not say what to do", err)
				}
			}
			if diff := cmp.Diff(before, made(t, database)); diff != "" {
				t.Errorf("changed:\n%s", diff)
			}
			wantTable(t, database, "true", `SELECT to_regnamespace('serversync') IS NULL`)
		})
	}
}

func TestMigrateAddsAgainWhatWasDropped(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		statement string
		want      db.MigrateReport
	}{
		"a column": {
			`ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`,
			db.MigrateReport{Columns: []string{"virtfusion_hourly_billing.reference_1"}},
		},
		"all columns": {
			`ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1;
			ALTER TABLE virtfusion_hourly_transactions DROP COLUMN server_uuid, DROP COLUMN transaction_type, DROP COLUMN reference_1, DROP COLUMN reference_2`,
			db.MigrateReport{Columns: everything(t).Columns},
		},
		"an index": {
			`DROP INDEX serversync_billing_server_uuid`,
			db.MigrateReport{Indexes: []string{"serversync_billing_server_uuid"}},
		},
		"an index that was never finished": {
			`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'serversync_users_virtfusion_id'::regclass`,
			db.MigrateReport{Indexes: []string{"serversync_users_virtfusion_id"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := dbtest.New(t)
			if _, err := db.InsertBilling(t.Context(), database, []db.NewBilling{newBilling(1, customer(t, database, "anna"))}); err != nil {
				t.Fatal(err)
			}
			before := made(t, database)
			exec(t, database, tc.statement)

			wantReport(t, migrated(t, database, db.MigrateOptions{DryRun: true}), tc.want)
			wantReport(t, migrated(t, database, db.MigrateOptions{}), tc.want)
			if diff := cmp.Diff(before, made(t, database)); diff != "" {
				t.Errorf("it is not as it was:\n%s", diff)
			}
			if report := migrated(t, database, db.MigrateOptions{}); !report.Empty() {
				t.Errorf("a second time: %+v, want nothing done", report)
			}
			// We still know which rows are ours.
			matches, err := db.BillingByServer(t.Context(), database, []int64{1}, nil)
			if err != nil || len(matches) != 1 || matches[0].Record == nil {
				t.Errorf("%+v, %v; want the row with its record", matches, err)
			}
		})
	}
}

// TestMigrateAsOwner: SkyPANEL's own role is no superuser.
func TestMigrateAsOwner(t *testing.T) {
	t.Parallel()
	role(t, "migrate_owner")
	database := dbtest.NewEmpty(t)
	exec(t, database, fmt.Sprintf(`ALTER DATABASE %q OWNER TO migrate_owner`, table(t, database, `SELECT current_database()`)))
	owner := open(t, dsn(t, database, "migrate_owner"))
	load(t, owner, "skypanel_released.sql", "skypanel_rows.sql")
	wantReport(t, migrated(t, owner, db.MigrateOptions{}), everything(t))
	if report := migrated(t, owner, db.MigrateOptions{}); !report.Empty() {
		t.Errorf("a second time: %+v, want nothing done", report)
	}
	if _, err := db.InsertBilling(t.Context(), owner, []db.NewBilling{newBilling(301, 2)}); err != nil {
		t.Error(err)
	}
}

// TestMigrateAsAGuest: a role of our own does what it may, and its errors say
// what the owner has to do for it, until it works.
func TestMigrateAsAGuest(t *testing.T) {
	t.Parallel()
	role(t, "migrate_guest")
	database := skypanel(t, "skypanel_released.sql", "skypanel_rows.sql")
	guest := open(t, dsn(t, database, "migrate_guest"))
	exec(t, database, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO migrate_guest`)
	exec(t, database, `GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO migrate_guest`)

	var did []string
	for range 20 {
		_, err := db.Migrate(t.Context(), guest, db.MigrateOptions{})
		if err == nil {
			break
		}
		if db.Classify(err) != db.FaultOfSetup {
			t.Fatalf("%v: want a fault of the set-up", err)
		}
		_, advice, ok := strings.Cut(err.Error(), ", run: ")
		if !ok {
			t.Fatalf("%v: it does not say what to run", err)
		}
		remedy, _, ok := strings.Cut(advice, "): ERROR:")
		if !ok {
			t.Fatalf("%v: it does not end as expected", err)
		}
		remedy = strings.ReplaceAll(remedy, "<our role>", "migrate_guest")
		did = append(did, remedy)
		exec(t, database, remedy)
	}
	if want := 1 + len(everything(t).Columns) + len(everything(t).Indexes); len(did) != want {
		t.Errorf("the owner had to do %d things, want %d:\n%s", len(did), want, strings.Join(did, "\n"))
	}
	if report := migrated(t, guest, db.MigrateOptions{}); !report.Empty() {
		t.Errorf("in the end: %+v, want nothing left to do", report)
	}
	if _, err := db.InsertBilling(t.Context(), guest, []db.NewBilling{newBilling(301, 2)}); err != nil {
		t.Error(err)
	}
}

// TestMigrateGivesUpOnALockedTable: whoever waits for an exclusive lock makes
// all of SkyPANEL's later queries wait too.
func TestMigrateGivesUpOnALockedTable(t *testing.T) {
	t.Parallel()
	database := skypanel(t, "skypanel_released.sql")
	holder := begin(t, database)
	exec(t, holder, `SELECT FROM virtfusion_hourly_billing`)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := db.Migrate(ctx, database, db.MigrateOptions{})
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "55P03" {
		t.Fatalf("error %v, want lock_not_available", err)
	}
	if db.Classify(err) != db.FaultPassing {
		t.Errorf("%v: want a fault that passes", err)
	}
	if !strings.Contains(err.Error(), "reference_1") {
		t.Errorf("%v: it does not name the column", err)
	}
	commit(t, holder)
	report := migrated(t, database, db.MigrateOptions{})
	want := everything(t)
	want.Migrations = nil // these were done
	wantReport(t, report, want)
	wantTable(t, database, "0", `SELECT current_setting('lock_timeout')`)
}

// TestMigrateFinishesAnInterruptedIndex: a build waits for SkyPANEL's long
// transactions; a connection that ends meanwhile leaves an invalid index behind.
func TestMigrateFinishesAnInterruptedIndex(t *testing.T) {
	t.Parallel()
	database := skypanel(t, "skypanel_released.sql", "skypanel_rows.sql")
	holder := begin(t, database)
	exec(t, holder, `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`)
	exec(t, holder, `SELECT FROM settings`)

	failed := make(chan error)
	go func() {
		_, err := db.Migrate(t.Context(), database, db.MigrateOptions{})
		failed <- err
	}()
	awaitBlocked(t, database)
	wantTable(t, database, "true", `
		SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	if err := <-failed; err == nil || db.Classify(err) != db.FaultPassing {
		t.Errorf("error %v, want one that passes", err)
	}
	wantTable(t, database, "serversync_billing_virtfusion_server_id|false", `
		SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indexrelid::regclass::text LIKE 'serversync%' AND NOT indisvalid`)
	commit(t, holder)
	wantReport(t, migrated(t, database, db.MigrateOptions{}), db.MigrateReport{Indexes: everything(t).Indexes})
	wantTable(t, database, strconv.Itoa(len(everything(t).Indexes)), `SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text IN ('`+strings.Join(everything(t).Indexes, "', '")+`')`)
}

func TestMigrateWithoutADatabase(t *testing.T) {
	t.Parallel()
	_, err := db.Migrate(t.Context(), open(t, "host=127.0.0.1 port=1 user=nobody dbname=none sslmode=disable"), db.MigrateOptions{})
	if err == nil || db.Classify(err) != db.FaultPassing {
		t.Errorf("error %v, want one that passes", err)
	}
}
