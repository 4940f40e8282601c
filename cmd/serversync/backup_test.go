package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"serversync/api"
	"serversync/db"
	"serversync/db/dbtest"
	"serversync/ingest"
	"serversync/virtfusion/virtfusionsim"
)

// docs/backup.md tells what these tests try.

// TestEmbeddedStoresAreBackedUpAsFiles: stopped, copied, and started from the
// copy, which is then older than VirtFusion.
func TestEmbeddedStoresAreBackedUpAsFiles(t *testing.T) {
	t.Parallel()
	panel := virtfusionsim.New(virtfusionsim.Config{})
	panel.AddUser(virtfusionsim.User{ID: 7, Name: "C", ExtRelationID: 41})
	panel.AddPackage(virtfusionsim.Package{ID: 3, Name: "Small", MemoryMB: 1024, StorageGB: 20, CPUCores: 1})
	web := httptest.NewServer(panel.Handler())
	t.Cleanup(web.Close)
	create := func(name string) int64 {
		t.Helper()
		s, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 7, PackageID: 3, Name: name, Built: true, Silent: true, Created: time.Now().Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return s.ID
	}
	never, err := ingest.ParseMaxChanges("100%") // asks for approval
	if err != nil {
		t.Fatal(err)
	}
	begin := func(dir string) *running {
		t.Helper()
		r := start(t, config{dataDir: dir, virtfusionURL: web.URL, virtfusionToken: virtfusionsim.DefaultToken, maxChanges: never})
		r.ready(t)
		return r
	}
	awaitBilled := func(r *running, want string) {
		t.Helper()
		eventually(t, "the books bill "+want, func() bool {
			var got string
			if err := r.stores.db.NewRaw(billedServers).Scan(t.Context(), &got); err != nil {
				t.Fatal(err)
			}
			return got == want
		})
	}

	dir := filepath.Join(t.TempDir(), "data")
	r := begin(dir)
	r.seedCustomer(t)
	gone := create("gone by then")
	awaitSweep(t, r)
	awaitBilled(r, "1")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", dir, backup).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}

	r = begin(dir) // life goes on
	create("after the backup")
	if err := panel.DestroySilently(gone); err != nil {
		t.Fatal(err)
	}
	awaitSweep(t, r)
	awaitBilled(r, "2")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	r = begin(backup) // with the customer, and the server that VirtFusion does not know any more
	awaitSweep(t, r)
	awaitBilled(r, "2")
	var status string
	if err := r.stores.db.NewRaw(`SELECT status FROM serversync.servers WHERE virtfusion_id = ?`, gone).Scan(t.Context(), &status); err != nil || status != "gone" {
		t.Errorf("server %d is %q, %v; want it gone", gone, status, err)
	}
}

const billedServers = `SELECT coalesce(string_agg(virtfusion_server_id::text, ',' ORDER BY virtfusion_server_id), '') FROM virtfusion_hourly_billing WHERE billing_enabled`

// awaitSweep has the service sweep, by the command line.
func awaitSweep(t *testing.T, r *running) {
	t.Helper()
	eventually(t, "a sweep is whole", func() bool {
		code, out, complaint := r.command(t, "sweep")
		if code == exitUsage {
			t.Fatal(out, complaint)
		}
		return code == exitDone
	})
}

// brokerAt is a broker on a directory.
func brokerAt(t *testing.T, dir string) (url string, stop func()) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	stop = func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
	t.Cleanup(stop)
	if !srv.ReadyForConnections(pagesPatience) {
		t.Fatal("the broker is not ready")
	}
	return srv.ClientURL(), stop
}

// restored is a company whose stores are backed up and restored.
type restored struct {
	*pagesWorld
	t          *testing.T
	dump       string
	owner      string // connection string of who dumps
	brokerDir  string
	stopBroker func()
}

func newRestored(t *testing.T) *restored {
	t.Helper()
	if _, err := exec.LookPath("pg_dump"); err != nil {
		t.Skip("pg_dump is not installed (Debian's package postgresql-client)")
	}
	w := &restored{pagesWorld: newPagesWorld(t, pagesOptions{}), t: t, dump: filepath.Join(t.TempDir(), "dump"), brokerDir: t.TempDir()}
	w.owner = strings.Replace(w.config.databaseURL, "serversync@", "postgres@", 1)
	w.stop()
	w.config.natsURL, w.stopBroker = brokerAt(t, w.brokerDir)
	w.config.policy.SettleDelay = time.Nanosecond
	w.serve()
	return w
}

// sweep has everything compared with VirtFusion, and returns the run.
func (w *restored) sweep() (run api.Run) {
	w.t.Helper()
	var answer struct{ Data api.Run }
	if err := json.Unmarshal(w.admin(http.MethodPost, "/api/admin/servers/sync", ""), &answer); err != nil {
		w.t.Fatal(err)
	}
	w.await("the sweep is over", func() bool {
		if err := json.Unmarshal(w.admin(http.MethodGet, "/api/admin/runs/"+answer.Data.ID, ""), &answer); err != nil {
			w.t.Fatal(err)
		}
		return answer.Data.State != db.RunRunning
	})
	if answer.Data.State != db.RunSucceeded {
		w.t.Fatalf("the sweep is %s: %s %+v", answer.Data.State, answer.Data.Note, answer.Data.Problems)
	}
	return answer.Data
}

// truthful waits until the books bill exactly these, each by one row of its
// owner's, and the watchdog finds nothing critical.
func (w *restored) truthful(when string, ids ...int64) {
	w.t.Helper()
	var want []string
	for _, id := range ids {
		want = append(want, strconv.FormatInt(id, 10))
	}
	w.until(strings.Join(want, ","), billedServers)
	w.until("0", `SELECT count(*) FROM serversync.servers WHERE status IN ('settling', 'conflict') OR ask <> ''`)
	if doubled := w.value(`SELECT count(*) FROM (SELECT FROM virtfusion_hourly_transactions WHERE status = 'pending' GROUP BY billing_id HAVING count(*) > 1) AS d`); doubled != "0" {
		w.t.Errorf("%s: %s rows have their first hour twice", when, doubled)
	}
	if dead := w.value(`SELECT count(*) FROM serversync.faults`); dead != "0" {
		w.t.Errorf("%s: %s events are at fault", when, dead)
	}
}

func (w *restored) tool(name string, args ...string) {
	w.t.Helper()
	if out, err := exec.CommandContext(w.t.Context(), name, args...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// back puts the database back to its dump.
func (w *restored) back(schemas ...string) {
	w.t.Helper()
	args := []string{"--clean", "--if-exists", "--single-transaction", "--exit-on-error", "--dbname", w.owner}
	for _, s := range schemas {
		args = append(args, "--schema", s)
	}
	w.tool("pg_restore", append(args, w.dump)...)
}

// TestStoresOfDifferentDays restores the books, then the stream, then neither,
// to an earlier moment than the other's, and looks whether a sweep mends it.
func TestStoresOfDifferentDays(t *testing.T) {
	t.Parallel()
	w := newRestored(t)
	kept := w.createLoudly(customerID, smallPlan, "kept")
	gone := w.createLoudly(customerID, smallPlan, "gone today")
	w.truthful("at first", kept.ID, gone.ID)

	// Yesterday's backups.
	w.tool("pg_dump", "--format=custom", "--file", w.dump, "--dbname", w.owner)
	w.stop()
	w.stopBroker()
	streamBackup := filepath.Join(t.TempDir(), "stream")
	w.tool("cp", "-a", w.brokerDir, streamBackup)
	w.config.natsURL, w.stopBroker = brokerAt(t, w.brokerDir)
	w.serve()

	// Today.
	come := w.createLoudly(customerID, smallPlan, "come today")
	if _, err := w.panel.Destroy(gone.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.panel.Rename(kept.ID, "renamed today", "kept"); err != nil {
		t.Fatal(err)
	}
	w.truthful("today", kept.ID, come.ID)
	w.until("renamed today", `SELECT name FROM serversync.servers WHERE virtfusion_id = `+strconv.FormatInt(kept.ID, 10))
	w.stop()
	w.tool("pg_dump", "--format=custom", "--file", w.dump+"-today", "--dbname", w.owner)

	// The books are yesterday's, the stream is today's: its consumer thinks that
	// all is done.
	w.back()
	w.serve()
	w.sweep()
	w.truthful("books of yesterday, after a sweep", kept.ID, come.ID)
	w.until("renamed today", `SELECT name FROM serversync.servers WHERE virtfusion_id = `+strconv.FormatInt(kept.ID, 10))

	// The stream is yesterday's, the books are today's: what is delivered again
	// changes nothing.
	w.stop()
	w.stopBroker()
	before := w.value(`SELECT md5(string_agg(b::text, '' ORDER BY id)) FROM virtfusion_hourly_billing b`)
	w.config.natsURL, w.stopBroker = brokerAt(t, streamBackup)
	w.serve()
	w.await("all is delivered", func() bool {
		var overview struct{ Data struct{ Queue int64 } }
		if err := json.Unmarshal(w.admin(http.MethodGet, "/api/admin/overview", ""), &overview); err != nil {
			t.Fatal(err)
		}
		return overview.Data.Queue == 0
	})
	w.sweep()
	w.truthful("stream of yesterday, after a sweep", kept.ID, come.ID)
	if after := w.value(`SELECT md5(string_agg(b::text, '' ORDER BY id)) FROM virtfusion_hourly_billing b`); after != before {
		t.Error("a stream of yesterday changed billing rows")
	}

	// The stream is lost.
	w.stop()
	w.stopBroker()
	w.config.natsURL, w.stopBroker = brokerAt(t, t.TempDir())
	w.serve()
	if run := w.sweep(); run.New+run.Updated > 0 {
		t.Errorf("with an empty stream a sweep changed %d and %d servers", run.New, run.Updated)
	}
	late := w.createLoudly(customerID, smallPlan, "late")
	w.truthful("without the stream's past", kept.ID, come.ID, late.ID)
}

// TestSchemaAloneIsRestored: the schema serversync of yesterday beside SkyPANEL's
// tables of today, as when only `pg_dump -n serversync` was kept, and then none at
// all.
func TestSchemaAloneIsRestored(t *testing.T) {
	t.Parallel()
	w := newRestored(t)
	kept := w.createLoudly(customerID, smallPlan, "kept")
	w.truthful("at first", kept.ID)
	w.tool("pg_dump", "--format=custom", "--schema=serversync", "--file", w.dump, "--dbname", w.owner)
	come := w.createLoudly(customerID, smallPlan, "come today")
	w.truthful("today", kept.ID, come.ID)
	w.stop()
	w.back()
	w.serve()
	w.sweep()
	w.until(fmt.Sprintf("%d,%d", kept.ID, come.ID), billedServers)

	// The schema is lost altogether.
	w.stop()
	w.exec(`DROP SCHEMA serversync CASCADE`)
	grants, err := dbtest.Grants()
	if err != nil {
		t.Fatal(err)
	}
	w.exec(grants)
	var out bytes.Buffer
	if code := run(t.Context(), []string{"serversync", "migrate", "--database-url", w.owner}, &out, &out); code != exitDone {
		t.Fatalf("migrate: %d %s", code, out.String())
	}
	w.exec(grants) // who made the tables was not serversync_migrate
	w.serve()
	w.sweep()
	w.until(fmt.Sprintf("%d,%d", kept.ID, come.ID), billedServers)
	w.until("2", `SELECT count(*) FROM serversync.servers WHERE status = 'external' AND billing = 'on'`)
}
