package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"serversync/api"
	"serversync/db/dbtest"
	"serversync/reconciler"
)

// denied is PostgreSQL's insufficient_privilege.
const denied = "42501"

// TestServiceWithLeastPrivilege runs the whole service as the role of
// deploy/grants.sql, with everything switched on that writes to SkyPANEL's
// tables, and asks it for everything that reads them.
func TestServiceWithLeastPrivilege(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.stop()
	w.config.policy.InitialCharge = reconciler.ChargeDeduct
	w.config.notifyUsers, w.config.notifyAdmins = true, true
	w.serve()
	until := func(what, query string, args ...any) {
		t.Helper()
		w.await(what, func() bool {
			var ok bool
			if err := w.db.DB.QueryRowContext(t.Context(), query, args...).Scan(&ok); err != nil {
				t.Fatal(err)
			}
			return ok
		})
	}
	const billed = `SELECT count(*) = 1 FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`

	heard := w.createLoudly(customerID, smallPlan, "heard")
	until("a webhook's server is billed", billed, heard.ID)
	until("its first hour is taken", `SELECT EXISTS (SELECT FROM transactions WHERE description LIKE '%First hour%' AND status = 'completed')`)
	until("its owner is told", `SELECT EXISTS (SELECT FROM notifications WHERE user_id = $1)`, customerUser)

	swept := w.createSilently(customerID, smallPlan, "swept")
	w.admin(http.MethodPost, "/api/admin/servers/sync", "")
	until("a sweep's server is billed", billed, swept.ID)
	synced := w.createSilently(customerID, smallPlan, "synced")
	w.admin(http.MethodPost, fmt.Sprintf("/api/admin/users/%d/servers/sync", customerUser), "")
	until("a sync's server is billed", billed, synced.ID)

	var bulk struct{ Data struct{ RunID string } }
	if err := json.Unmarshal(w.admin(http.MethodPost, "/api/admin/servers/bulk", fmt.Sprintf(`{"ids": [%d], "action": "billing-off"}`, synced.ID)), &bulk); err != nil {
		t.Fatal(err)
	}
	until("a bulk action ends its billing", `SELECT NOT billing_enabled FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, synced.ID)
	w.admin(http.MethodPost, "/api/admin/runs/"+bulk.Data.RunID+"/undo", "")
	until("an undo bills it again", billed, synced.ID)
	w.admin(http.MethodPost, fmt.Sprintf("/api/admin/servers/%d/undo", swept.ID), "")
	until("an undo withdraws a row", `SELECT count(*) = 0 FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`, swept.ID)
	w.admin(http.MethodPost, fmt.Sprintf("/api/admin/users/%d/servers/replay", customerUser), "")

	w.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate) SELECT $1, 999, 999, 3, 'x', 1, 1`, customerUser)
	w.admin(http.MethodPost, "/api/admin/cleanup?dryRun=true", "")
	w.admin(http.MethodPost, "/api/admin/cleanup", "")
	for _, path := range []string{
		"/api/admin/audit", "/api/admin/overview", "/api/admin/doctor", "/api/admin/servers", "/api/admin/servers.csv", "/api/admin/runs", "/api/admin/charges",
		"/api/admin/reports/external.csv", "/api/admin/reports/monthly", "/api/admin/coverage", "/api/admin/charts/external.svg", "/metrics",
		fmt.Sprintf("/api/admin/servers/%d/timeline", heard.ID), fmt.Sprintf("/api/admin/users/%d/servers/sync/status", customerUser),
		fmt.Sprintf("/api/admin/users/%d/servers/sync/history", customerUser),
	} {
		w.admin(http.MethodGet, path, "")
	}

	// A key of SkyPANEL's is looked up, and touched.
	secret := fmt.Sprintf("skyvps360_live.%d_%032x", customerUser, 0xabc)
	digest := sha256.Sum256([]byte(strings.Replace(secret, ".", "", 1)))
	w.exec(`INSERT INTO api_keys (user_id, name, key, prefix, scopes) VALUES ($1, 'k', $2, 'p', '{*}')`, customerUser, hex.EncodeToString(digest[:]))
	w.call(http.MethodGet, "/api/user/servers", "", secret)
	until("the key's use is written down", `SELECT bool_and(last_used IS NOT NULL) FROM api_keys WHERE name = 'k'`)

	found := askTheDoctor(t, "--database-url", w.config.databaseURL)
	want(t, found, "privileges", api.SeverityOK, "granted")
	want(t, found, "schema", api.SeverityOK, "up to date")
	var out bytes.Buffer
	for _, command := range [][]string{{"migrate"}, {"migrate", "--dry-run"}} {
		if code := run(t.Context(), append(append([]string{"serversync"}, command...), "--database-url", w.config.databaseURL), &out, &out); code != exitDone {
			t.Errorf("%v: exit %d: %s", command, code, out.String())
		}
	}
	out.Reset()
	if code := run(t.Context(), []string{"serversync", "audit", "--json", "--database-url", w.config.databaseURL}, &out, &out); code > exitFailed || !strings.Contains(out.String(), "findings") {
		t.Errorf("audit: exit %d: %s", code, out.String())
	}
	if strings.Contains(w.log.String(), denied) {
		t.Errorf("something was denied:\n%s", w.warnings())
	}
}

// admin calls the admin's API, and wants success.
func (w *pagesWorld) admin(method, path, body string) (answer []byte) {
	w.Helper()
	return w.call(method, path, body, pagesAdminToken)
}

func (w *pagesWorld) call(method, path, body, token string) (answer []byte) {
	w.Helper()
	request, err := http.NewRequestWithContext(w.Context(), method, w.base+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.Fatal(err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= http.StatusMultipleChoices {
		w.Fatalf("%s %s: %s %s, %v", method, path, response.Status, answer, err)
	}
	return answer
}

// TestServiceRoleMayDoNoMore: what is not needed is refused.
func TestServiceRoleMayDoNoMore(t *testing.T) {
	t.Parallel()
	_, service := dbtest.NewForService(t)
	for _, statement := range []string{
		`SELECT password FROM users`, `SELECT * FROM users`, `UPDATE users SET is_active = false`, `UPDATE users SET virtfusion_id = 1`, `INSERT INTO users (email) VALUES ('x')`, `DELETE FROM users`,
		`UPDATE package_pricing SET price = 0`, `INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (1, 'x', 1)`,
		`INSERT INTO server_uptime_logs (server_id, user_id) VALUES (1, 1)`, `UPDATE server_uptime_logs SET server_id = 1`, `DELETE FROM server_uptime_logs`,
		`UPDATE settings SET value = ''`, `UPDATE virtfusion_cron_settings SET enabled = true`,
		`UPDATE api_keys SET is_active = true`, `SELECT prefix FROM api_keys`, `INSERT INTO api_keys (user_id, name, key, prefix) VALUES (1, 'x', 'x', 'x')`,
		`INSERT INTO session (sid, sess, expire) VALUES ('x', '{}', now())`, `DELETE FROM session`,
		`UPDATE transactions SET amount = 0`, `DELETE FROM transactions`, `UPDATE notifications SET read = true`, `DELETE FROM notifications`,
		`TRUNCATE virtfusion_hourly_billing`, `DROP TABLE virtfusion_hourly_billing`, `DROP TABLE users`, `ALTER TABLE virtfusion_hourly_billing DROP COLUMN package_name`,
		`CREATE TABLE public.x (id int)`, `CREATE TABLE serversync.x (id int)`, `DROP TABLE serversync.servers`, `ALTER TABLE serversync.servers ADD COLUMN x int`, `TRUNCATE serversync.history`,
		`DROP SCHEMA serversync CASCADE`, `CREATE ROLE x`, `COPY (SELECT 1) TO PROGRAM 'true'`, `SET ROLE serversync_migrate`,
	} {
		_, err := service.DB.ExecContext(t.Context(), statement)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != denied {
			t.Errorf("%s: %v, want it denied", statement, err)
		}
	}
}

// TestMigrateRoleMayDoNoMore: it owns our schema, and has no business with
// customers.
func TestMigrateRoleMayDoNoMore(t *testing.T) {
	t.Parallel()
	migrating := openDSN(t, dbtest.As(t, dbtest.NewDSN(t), dbtest.MigrateRole))
	for _, statement := range []string{
		`SELECT email FROM users`, `SELECT value FROM settings`, `SELECT sess FROM session`, `SELECT key FROM api_keys`, `UPDATE package_pricing SET price = 0`,
		`INSERT INTO notifications (user_id, title, message) VALUES (1, 'x', 'x')`, `DELETE FROM virtfusion_hourly_billing`, `DROP TABLE virtfusion_hourly_billing`, `CREATE TABLE public.x (id int)`,
	} {
		_, err := migrating.DB.ExecContext(t.Context(), statement)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != denied {
			t.Errorf("%s: %v, want it denied", statement, err)
		}
	}
	execIn(t, migrating, `ALTER TABLE serversync.servers ADD COLUMN of_a_later_version int`)
}

// TestServiceWaitsForItsSchema: a role that only serves waits for whoever
// migrates, and says so; what is newer than the program is no obstacle.
func TestServiceWaitsForItsSchema(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	owner := openDSN(t, dsn)
	execIn(t, owner, `
		DELETE FROM serversync.migrations WHERE name = (SELECT max(name) FROM serversync.migrations);
		INSERT INTO serversync.migrations (name, group_id) VALUES ('20991231000000', 9)`)
	r := start(t, config{databaseURL: dbtest.As(t, dsn, dbtest.ServiceRole)})
	says := func(text string) func() bool { return func() bool { return strings.Contains(r.log.String(), text) } }
	eventually(t, "it says that the schema is older", says("run `serversync migrate`"))
	if status, body := get(t, r.base+"/readyz?role=reconcile"); status != http.StatusServiceUnavailable || !strings.Contains(body, "database") {
		t.Errorf("meanwhile it is ready: %d %s", status, body)
	}
	if status, body := get(t, r.base+"/readyz?role=ingest"); strings.Contains(body, "database") {
		t.Errorf("webhooks wait for the database: %d %s", status, body)
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"serversync", "migrate", "--database-url", dsn}, &out, &out); code != exitDone || !strings.Contains(out.String(), "newer than this program") {
		t.Errorf("migrate: %d %s", code, out.String())
	}
	r.ready(t)
	eventually(t, "it says that the schema is newer", says("the schema is newer than this version"))
}
