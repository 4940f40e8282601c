package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/uptrace/bun"

	"serversync/api"
	"serversync/db"
	"serversync/db/dbtest"
	"serversync/events"
	"serversync/virtfusion/virtfusionsim"
)

// askTheDoctor runs the command doctor, and returns its findings by check.
func askTheDoctor(t *testing.T, args ...string) map[string]finding {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"serversync", "doctor", "--json", "--url", "http://127.0.0.1:1", "--webhook-tokens", "x"}, args...)
	code := run(t.Context(), args, &out, &errs)
	var answer api.Doctor
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	if wantCode := map[bool]int{true: exitDone, false: exitFailed}[answer.OK]; code != wantCode {
		t.Errorf("exit %d, want %d: %s", code, wantCode, out.String())
	}
	found := make(map[string]finding)
	for _, f := range answer.Checks {
		found[f.Check] = f
		if (f.Severity == api.SeverityError) == f.OK || (f.Remedy == "") != (f.Severity == api.SeverityOK) || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	}
	return found
}

// want looks for a finding of some severity whose detail or remedy says something.
func want(t *testing.T, found map[string]finding, check, severity, says string) {
	t.Helper()
	if f, ok := found[check]; !ok || f.Severity != severity || !strings.Contains(f.Detail+" → "+f.Remedy, says) {
		t.Errorf("%s is %+v; want %s that says %q", check, f, severity, says)
	}
}

// openDSN opens a database for the length of the test.
func openDSN(t *testing.T, dsn string) *bun.DB {
	t.Helper()
	database, err := db.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	return database
}

func execIn(t *testing.T, database *bun.DB, statement string) {
	t.Helper()
	if _, err := database.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// A role without any rights is told statement by statement what it lacks; pasted,
// they help.
func TestDoctorsGrantsCanBePasted(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	owner := openDSN(t, dsn)
	const role = `poor "role"`
	quoted := `"poor ""role"""`
	execIn(t, owner, `REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE `+quoted+` LOGIN`)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	found := askTheDoctor(t, "--database-url", u.String())
	for _, says := range []string{
		`GRANT USAGE ON SCHEMA public TO ` + quoted, `SELECT`, `public.api_keys`, `public.session`, `public.transactions`, `ON SEQUENCE public.virtfusion_hourly_billing_id_seq`, `IN SCHEMA serversync`,
	} {
		want(t, found, "privileges", api.SeverityError, says)
	}
	want(t, found, "schema", api.SeverityError, "grant the privileges above first")
	if strings.Contains(found["schema"].Remedy, "own database") {
		t.Errorf("the wrong remedy: %+v", found["schema"])
	}
	_, statements, _ := strings.Cut(found["privileges"].Remedy, "as the tables' owner: ")
	execIn(t, owner, statements)
	found = askTheDoctor(t, "--database-url", u.String())
	want(t, found, "privileges", api.SeverityOK, "granted")
	want(t, found, "schema", api.SeverityOK, "up to date")
	want(t, found, "last sweep", api.SeverityOK, "none yet")
}

// What the books say of our work, and SkyPANEL's settings of its own.
func TestDoctorReadsTheBooks(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	database := openDSN(t, dsn)
	look := func(statement string) map[string]finding {
		t.Helper()
		execIn(t, database, statement)
		return askTheDoctor(t, "--database-url", dsn)
	}
	found := look(`DELETE FROM virtfusion_cron_settings`)
	want(t, found, "SkyPANEL's billing", api.SeverityWarning, "nobody is charged")
	want(t, found, "books pass", api.SeverityWarning, "--roles=reconcile")
	want(t, found, "webhooks", api.SeverityOK, "none")
	want(t, found, "approvals", api.SeverityOK, "nothing waits")
	want(t, found, "database fsync", api.SeverityError, "ALTER SYSTEM SET fsync = on") // the tests' server is that fast
	want(t, found, "clock of PostgreSQL", api.SeverityOK, "in step")
	want(t, found, "transaction ids", api.SeverityOK, "million")
	want(t, found, "database connections", api.SeverityOK, "in use")

	found = look(`
		INSERT INTO virtfusion_cron_settings (enabled, hourly_billing_enabled) VALUES (false, true);
		INSERT INTO serversync.passes (name, started_at, finished_at) VALUES ('young', now() - interval '1 hour', now() - interval '1 hour');
		INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at) VALUES (1, 'external', now(), 'sweep', '', now(), now());
		INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) VALUES ('young', 'bulk', 'needs_approval', now(), now());
		INSERT INTO serversync.runs (id, kind, state, started_at, ended_at, beat_at, note) VALUES ('s1', 'sweep', 'incomplete', now(), now(), now(), 'a page could not be read')`)
	want(t, found, "SkyPANEL's billing", api.SeverityError, "virtfusion_cron_settings.enabled")
	want(t, found, "books pass", api.SeverityError, "each minute")
	want(t, found, "webhooks", api.SeverityWarning, "no webhook ever told")
	want(t, found, "approvals", api.SeverityWarning, "--approve young")
	want(t, found, "last sweep", api.SeverityError, "a page could not be read")

	found = look(`
		INSERT INTO virtfusion_cron_settings (enabled, hourly_billing_enabled) VALUES (true, false);
		UPDATE serversync.passes SET started_at = now(), finished_at = now();
		UPDATE serversync.servers SET observed_source = 'webhook', observed_at = now() - interval '8 days';
		INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) VALUES ('stuck', 'bulk', 'needs_approval', now() - interval '2 days', now() - interval '2 days');
		UPDATE serversync.runs SET state = 'succeeded', started_at = now() - interval '1 day' WHERE id = 's1'`)
	want(t, found, "SkyPANEL's billing", api.SeverityError, "hourly_billing_enabled")
	want(t, found, "books pass", api.SeverityOK, "a moment ago")
	want(t, found, "webhooks", api.SeverityWarning, "192h")
	want(t, found, "approvals", api.SeverityError, "--approve stuck")
	want(t, found, "last sweep", api.SeverityError, "--roles=sweep")

	found = look(`
		INSERT INTO virtfusion_cron_settings (enabled, hourly_billing_enabled) VALUES (true, true);
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason, source) VALUES (now(), 1, 'observed', '', 'webhook');
		UPDATE serversync.runs SET started_at = now() WHERE id = 's1';
		ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
	want(t, found, "schema", api.SeverityError, "virtfusion_hourly_billing.reference_1")
	found = look(`ALTER TABLE virtfusion_hourly_billing ADD COLUMN reference_1 text`)
	for _, check := range []string{"SkyPANEL's billing", "webhooks", "last sweep", "schema", "books pass"} {
		want(t, found, check, api.SeverityOK, "")
	}
}

// An external broker: its stream, what is dead on it, and which processes run.
func TestDoctorLooksAtAnExternalBroker(t *testing.T) {
	t.Parallel()
	broker, dsn := pagesBroker(t), dbtest.NewDSN(t)
	args := []string{"--database-url", dsn, "--nats-url", broker}
	found := askTheDoctor(t, args...)
	want(t, found, "stream", api.SeverityWarning, "start serve")
	want(t, found, "broker durability", api.SeverityWarning, "sync_interval: always")
	want(t, found, "role ingest", api.SeverityError, "serversync serve --roles=ingest")
	want(t, found, "role sweep", api.SeverityError, "never found")

	r := start(t, config{natsURL: broker, databaseURL: dsn, roles: []string{roleIngest, roleReconcile, roleAPI}, streamMaxAge: 720 * time.Hour})
	r.ready(t)
	found = askTheDoctor(t, args...)
	want(t, found, "stream", api.SeverityOK, "720h")
	want(t, found, "role sweep", api.SeverityError, "--roles=sweep")
	if f, ok := found["role ingest"]; ok {
		t.Errorf("the process that runs was not heard: %+v", f)
	}
	want(t, found, "dead letters", api.SeverityOK, "none")

	stream, err := r.js.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	changed := stream.CachedInfo().Config
	changed.MaxAge, changed.Discard = time.Hour, jetstream.DiscardOld
	if _, err := r.js.UpdateStream(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	letters := events.NewDeadLetters(r.js)
	if _, err := letters.Put(t.Context(), events.DeadLetter{ID: "one", Reason: "it would not go", Stream: events.StreamName, Subject: "virtfusion.users.7.servers.1.updated", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	other := start(t, config{natsURL: broker, databaseURL: dsn, roles: []string{roleSweep}, streamMaxAge: time.Hour})
	other.ready(t)
	found = askTheDoctor(t, args...)
	want(t, found, "stream", api.SeverityError, "max age is 1h0m0s, not 720h0m0s")
	want(t, found, "dead letters", api.SeverityError, "1 events")
	want(t, found, "roles", api.SeverityOK, "2 processes")
}

// VirtFusion: its token, its clock.
func TestDoctorLooksAtVirtFusion(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	for name, test := range map[string]struct {
		skew            time.Duration
		token           string
		check, severity string
		says            string
	}{
		"in step":      {0, "token", "clock of VirtFusion", api.SeverityOK, "in step"},
		"ahead":        {time.Minute, "token", "clock of VirtFusion", api.SeverityError, "timedatectl"},
		"behind":       {-time.Minute, "token", "clock of VirtFusion", api.SeverityError, "1m0s apart"},
		"wrong token":  {0, "guess", "VirtFusion", api.SeverityError, "VIRTFUSION_API_TOKEN"},
		"not verified": {0, "token", "VirtFusion's certificate", api.SeverityWarning, "VIRTFUSION_TLS_VERIFY=true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			panel := virtfusionsim.New(virtfusionsim.Config{Token: "token", Skew: test.skew})
			web := httptest.NewServer(panel.Handler())
			t.Cleanup(web.Close)
			args := []string{"--database-url", dsn, "--virtfusion-api-url", web.URL, "--virtfusion-api-token", test.token}
			if name == "not verified" {
				args = append(args, "--virtfusion-tls-verify=false")
			}
			want(t, askTheDoctor(t, args...), test.check, test.severity, test.says)
		})
	}
}

// What cannot be had for real within a test: a PostgreSQL near its end.
func TestDoctorReadsPostgreSQLsState(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sound := db.ServerState{Settings: map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "max_connections": "100", "superuser_reserved_connections": "3"}, Now: now, Connections: 20, TransactionAge: 3_000_000}
	examine := func(change func(*db.ServerState)) map[string]finding {
		state := sound
		change(&state)
		found := make(map[string]finding)
		for _, f := range examineServer(&state, now, now.Add(time.Second)) {
			f.Grade()
			found[f.Check] = f
		}
		return found
	}
	for _, f := range examine(func(*db.ServerState) {}) {
		if f.Severity != api.SeverityOK {
			t.Errorf("sound: %+v", f)
		}
	}
	want(t, examine(func(s *db.ServerState) { s.Connections = 90 }), "database connections", api.SeverityWarning, "max_connections = 200")
	want(t, examine(func(s *db.ServerState) { s.TransactionAge = 600_000_000 }), "transaction ids", api.SeverityWarning, "VACUUM FREEZE")
	want(t, examine(func(s *db.ServerState) { s.TransactionAge = 1_600_000_000 }), "transaction ids", api.SeverityError, "refuse to write")
	want(t, examine(func(s *db.ServerState) { s.Standby, s.ReadOnly = true, true }), "database writes", api.SeverityError, "target_session_attrs")
	want(t, examine(func(s *db.ServerState) { s.ReadOnly = true }), "database writes", api.SeverityError, "default_transaction_read_only")
	want(t, examine(func(s *db.ServerState) { s.Now = now.Add(time.Minute) }), "clock of PostgreSQL", api.SeverityError, "59s apart")
}

// What is away is named, and is not made to look as if all else were away too.
func TestDoctorBlamesWhatIsToBlame(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	found := askTheDoctor(t, "--database-url", dsn, "--nats-url", "nats://us:hunter2@"+nobody)
	want(t, found, "broker", api.SeverityError, nobody)
	want(t, found, "database", api.SeverityOK, "PostgreSQL")
	if f := found["broker"]; strings.Contains(f.Detail+f.Remedy, "hunter2") {
		t.Errorf("a password is told: %+v", f)
	}

	found = askTheDoctor(t, "--notify-admins", "--database-url", "postgres://us@"+nobody+"/skypanel", "--nats-url", pagesBroker(t))
	want(t, found, "database", api.SeverityError, "reaches the host and port of DATABASE_URL")
	want(t, found, "broker durability", api.SeverityWarning, "JetStream answers")
	for _, check := range []string{"VirtFusion", "notifications"} {
		if f, ok := found[check]; ok {
			t.Errorf("without the database nothing is known of it: %+v", f)
		}
	}

	database := openDSN(t, dsn)
	execIn(t, database, `ALTER TABLE users ALTER COLUMN virtfusion_id TYPE text; ALTER TABLE package_pricing RENAME COLUMN price TO cents`)
	found = askTheDoctor(t, "--database-url", dsn, "--nats-url", pagesBroker(t))
	want(t, found, "SkyPANEL's tables", api.SeverityError, "package_pricing.price is missing, users.virtfusion_id is text")
	execIn(t, database, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
	found = askTheDoctor(t, "--database-url", dsn, "--nats-url", pagesBroker(t))
	want(t, found, "database writes", api.SeverityError, "default_transaction_read_only")
}

// With the permissions that the role api has in deploy/nats nothing that works is
// called broken; the role ingest may not ask who runs, and is told that.
func TestDoctorAsksWithARolesOwnPermissions(t *testing.T) {
	t.Parallel()
	const ask = "serversync.ping"
	for role, publish := range map[string][]string{
		"api":    {"$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.INFO.*", ask},
		"ingest": {"$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.INFO.*"},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			srv, err := server.NewServer(&server.Options{
				Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
				Users: []*server.User{{Username: "us", Password: "us", Permissions: &server.Permissions{
					Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", ask}},
				}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			srv.Start()
			t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
			if !srv.ReadyForConnections(time.Minute) {
				t.Fatal("the broker is not ready")
			}
			found := askTheDoctor(t, "--database-url", dbtest.NewDSN(t), "--nats-url", "nats://us:us@"+srv.Addr().String())
			want(t, found, "stream", api.SeverityWarning, "not there")
			want(t, found, "database", api.SeverityOK, "PostgreSQL")
			if role == "ingest" {
				want(t, found, "roles", api.SeverityWarning, "cannot be seen")
			} else {
				want(t, found, "role ingest", api.SeverityError, "no running process has it")
			}
		})
	}
}
