package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/db"
	"serversync/db/dbtest"
	"serversync/events"
	"serversync/reconciler"
	"serversync/virtfusion/virtfusionsim"
)

func TestMain(m *testing.M) {
	dbtest.Main(m)
	browser.stop()
}

// logBuffer collects a log that several goroutines write.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// running is a service under test.
type running struct {
	*service
	base string
	log  *logBuffer
	stop func() error // asks it to stop, and waits until it has
}

const testToken = "a-token-of-the-test"

// start runs the service in this process until the test ends.
func start(t *testing.T, c config) *running {
	t.Helper()
	c.listenAddr = "127.0.0.1:0"
	if c.dataDir == "" {
		c.dataDir = filepath.Join(t.TempDir(), "data")
	}
	if c.roles == nil {
		c.roles = allRoles
	}
	if c.webhookTokens == nil {
		c.webhookTokens = []string{testToken}
	}
	c.policy.InitialCharge = reconciler.ChargeRecord
	c.sweepInterval, c.virtfusionRPS = time.Minute, 10
	c.logLevel = zerolog.DebugLevel
	c.logFormat = "json"
	log := &logBuffer{}
	s, err := open(t.Context(), &c, newLogger(&c, log))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	r := &running{service: s, log: log}
	r.stop = sync.OnceValue(func() error {
		cancel()
		err := <-ended
		if closeErr := s.close(context.WithoutCancel(t.Context())); err == nil {
			err = closeErr
		}
		return err
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the service did not end cleanly: %v\n%s", err, log.String())
		}
	})
	select {
	case <-s.http.Ready():
	case err := <-ended:
		t.Fatalf("the service ended at once: %v\n%s", err, log.String())
	}
	r.base = localURL(s.http.Addr())
	return r
}

// eventually waits for a condition, with a deadline far beyond what it takes.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// get returns an answer's status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, request)
}

func do(t *testing.T, request *http.Request) (int, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// deliver posts a webhook as VirtFusion does.
func deliver(t *testing.T, base, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/webhooks/virtfusion", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte(testToken)))
	return do(t, request)
}

// ready waits until the service can do its work.
func (r *running) ready(t *testing.T) {
	t.Helper()
	eventually(t, "the service is ready", func() bool {
		status, _ := get(t, r.base+"/readyz")
		return status == http.StatusOK
	})
}

func (r *running) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := r.stores.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// seedCustomer makes SkyPANEL user 41, who is VirtFusion user 7, and a price.
func (r *running) seedCustomer(t *testing.T) {
	t.Helper()
	r.exec(t, `INSERT INTO users (id, email, username, password, full_name, virtfusion_id) VALUES (41, 'c@example.com', 'c', 'x', 'C', 7)`)
	r.exec(t, `INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (3, 'Small', 1000)`)
}

func TestAWebhookBecomesABillingRecordAndNothingSecretIsKept(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	r.ready(t)
	r.seedCustomer(t)

	panel := virtfusionsim.New(virtfusionsim.Config{WebhookURL: r.base + "/webhooks/virtfusion", WebhookToken: testToken})
	panel.AddUser(virtfusionsim.User{ID: 7, Name: "C", ExtRelationID: 41})
	panel.AddPackage(virtfusionsim.Package{ID: 3, Name: "Small", MemoryMB: 1024, StorageGB: 20, CPUCores: 1})
	server, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 7, PackageID: 3, Built: true})
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().UTC().Add(-time.Second)
	if err := panel.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	var rows []db.HourlyBilling
	eventually(t, "the billing row is there", func() bool {
		rows = nil
		if err := r.stores.db.NewSelect().Model(&rows).Scan(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(rows) > 0
	})
	row := rows[0]
	if len(rows) != 1 || row.UserID != 41 || row.VirtfusionServerID != server.ID || *row.ServerUUID != server.UUID || row.PackageID != 3 ||
		row.PackageName != "Small" || row.MonthlyPrice.String() != "10" || row.HourlyRate.String() != "0.013699" || !*row.BillingEnabled ||
		*row.Reference1 != "external_server_1" || row.LastBilledAt.Before(before.Add(time.Hour)) {
		t.Errorf("billing rows: %+v", rows)
	}
	var charges []db.HourlyTransaction
	if err := r.stores.db.NewSelect().Model(&charges).Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(charges) != 1 || charges[0].BillingID != row.ID || charges[0].AmountCharged.String() != "0.0137" || charges[0].Status != "pending" ||
		*charges[0].Reference1 != "external_server_1" || *charges[0].Reference2 != server.UUID || !charges[0].BillingPeriodEnd.Equal(*row.LastBilledAt) {
		t.Errorf("charges: %+v", charges)
	}

	if _, err := panel.Destroy(server.ID); err != nil {
		t.Fatal(err)
	}
	if err := panel.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "billing is off", func() bool {
		var on bool
		if err := r.stores.db.NewRaw(`SELECT billing_enabled FROM virtfusion_hourly_billing`).Scan(t.Context(), &on); err != nil {
			t.Fatal(err)
		}
		return !on
	})

	kept := map[string]string{"the stream": streamText(t, r.js), "the database": databaseText(t, r), "the log": r.log.String()}
	for place, text := range kept {
		if !strings.Contains(text, server.UUID) && place != "the log" {
			t.Errorf("%s was not read: it does not even hold the server's UUID", place)
		}
		for _, secret := range append(virtfusionsim.Secrets(), testToken) {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds the secret %q", place, secret)
			}
		}
	}
	if !strings.Contains(r.log.String(), `"server":1`) || !strings.Contains(r.log.String(), `"event":"`) {
		t.Errorf("the log does not name event and server:\n%s", r.log.String())
	}
}

// streamText is all that is on the stream.
func streamText(t *testing.T, js jetstream.JetStream) string {
	t.Helper()
	stream, err := js.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(m.Subject)
		for k, v := range m.Header {
			b.WriteString(k + strings.Join(v, " "))
		}
		b.Write(m.Data)
	}
	return b.String()
}

// databaseText is every row of every table.
func databaseText(t *testing.T, r *running) string {
	t.Helper()
	var tables []string
	err := r.stores.db.NewRaw(`SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'serversync')`).Scan(t.Context(), &tables)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, table := range tables {
		var rows []string
		if err := r.stores.db.NewRaw(`SELECT t::text FROM `+table+` t`).Scan(t.Context(), &rows); err != nil {
			t.Fatal(err)
		}
		b.WriteString(strings.Join(rows, "\n"))
	}
	return b.String()
}

func TestIngestNeedsNoDatabase(t *testing.T) {
	t.Parallel()
	r := start(t, config{roles: []string{roleIngest}})
	r.ready(t)
	if status, body := get(t, r.base+"/readyz?role=ingest"); status != http.StatusOK {
		t.Errorf("ready for ingest: %d %s", status, body)
	}
	if status, body := deliver(t, r.base, `{"event":"server.create","created":"2026-11-01T00:00:00.000001Z","data":{"server":{"id":9}}}`); status != http.StatusAccepted {
		t.Errorf("delivery: %d %s", status, body)
	}
}

func TestDeliveriesAreTakenWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	r := start(t, config{databaseURL: "postgres://nobody@127.0.0.1:1/none?connect_timeout=1"})
	eventually(t, "the broker is ready", func() bool {
		status, _ := get(t, r.base+"/readyz?role=ingest")
		return status == http.StatusOK
	})
	if status, body := get(t, r.base+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "database") {
		t.Errorf("readiness while the database is away: %d %s", status, body)
	}
	status, body := deliver(t, r.base, `{"event":"server.create","created":"2026-11-01T00:00:00.000001Z","data":{"server":{"id":9}}}`)
	var answer struct {
		Success bool   `json:"success"`
		ID      string `json:"id"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusAccepted || !answer.Success || answer.ID == "" {
		t.Errorf("delivery: %d %s", status, body)
	}
	if !strings.Contains(streamText(t, r.js), answer.ID) {
		t.Error("the stream does not hold the event that was answered")
	}
}

func TestWhatWasAnsweredSurvivesARestart(t *testing.T) {
	t.Parallel()
	r := start(t, config{roles: []string{roleIngest}})
	r.ready(t)
	if status, body := deliver(t, r.base, `{"event":"server.create","created":"2026-11-01T00:00:00Z","data":{"server":{"id":9,"uuid":"u-9","ownerId":7}}}`); status != http.StatusAccepted {
		t.Fatalf("delivery: %d %s", status, body)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	c := *r.config
	c.roles = allRoles
	c.webhookTokens = slices.Clone(c.webhookTokens)
	s, err := open(t.Context(), &c, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	<-s.migrated
	eventually(t, "the event of before is in the inventory", func() bool {
		n, err := s.stores.db.NewSelect().Model((*db.Server)(nil)).Where("virtfusion_id = 9 AND status = 'unlinked'").Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := s.close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestAnEmbeddedStoreIsOpenOnce(t *testing.T) {
	t.Parallel()
	r := start(t, config{roles: []string{roleIngest}})
	if _, err := open(t.Context(), r.config, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second service on the same DATA_DIR: %v", err)
	}
}

func TestAForeignDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	c := config{
		listenAddr: "127.0.0.1:0", dataDir: t.TempDir(), roles: allRoles, webhookTokens: []string{"x"}, logLevel: zerolog.Disabled,
		databaseURL: dbtest.Server(t).DSN("template1"),
	}
	err := serve(t.Context(), &c, zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("serve on a database that is not SkyPANEL's: %v", err)
	}
}

func TestTheDemoKeepsOutOfOtherPeoplesStores(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	code := run(t.Context(), []string{
		"serversync", "demo", "--data-dir", t.TempDir(), "--listen-addr", "127.0.0.1:0", "--database-url", dbtest.NewDSN(t),
	}, &out, &out)
	if code != exitUsage || !strings.Contains(out.String(), "somebody's") {
		t.Errorf("the demo on a database in use: exit %d\n%s", code, out.String())
	}
}

func TestASlowClientDoesNotSpoilTheEnd(t *testing.T) {
	t.Parallel()
	r := start(t, config{roles: []string{roleIngest}})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.http.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /webhooks/virtfusion HTTP/1.1\r\nHo"); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Errorf("half a request made the end a failure: %v", err)
	}
}

func TestTheDemoLives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	out := &logBuffer{}
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serversync", "demo", "--data-dir", dir, "--listen-addr", "127.0.0.1:0", "--rate", "20"}, out, out)
	}()
	for _, line := range []string{"demo is running", "made outside SkyPANEL: billed", "SkyPANEL made its billing row", "VirtFusion: "} {
		eventually(t, "the demo says "+line, func() bool {
			select {
			case c := <-code:
				t.Fatalf("the demo ended with %d:\n%s", c, out.String())
			default:
			}
			return strings.Contains(out.String(), line)
		})
	}
	cancel()
	if c := <-code; c != exitDone {
		t.Errorf("the demo ended with %d:\n%s", c, out.String())
	}
}

func TestDoctorAsksTheRunningService(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	r.ready(t)
	var out bytes.Buffer
	code := run(t.Context(), []string{"serversync", "doctor", "--json", "--url", r.base, "--webhook-tokens", "x"}, &out, &out)
	for _, check := range []string{`"service: database"`, `"service: broker"`, `"service: doctor"`} {
		if !strings.Contains(out.String(), check) {
			t.Errorf("doctor does not say %s:\n%s", check, out.String())
		}
	}
	// With the token, the service looks into its own database.
	eventually(t, "doctor tells how the last sweep ended", func() bool {
		out.Reset()
		code = run(t.Context(), []string{"serversync", "doctor", "--url", r.base, "--webhook-tokens", "x", "--data-dir", r.config.dataDir}, &out, &out)
		return strings.Contains(out.String(), "service: last sweep") && strings.Contains(out.String(), "VirtFusion showed nothing")
	})
	if code != exitFailed || !strings.Contains(out.String(), "VIRTFUSION_API_URL") || !strings.Contains(out.String(), "ok    service: schema") {
		t.Errorf("exit %d: doctor must miss the API's URL:\n%s", code, out.String())
	}
}

func TestMigrateAndDoctorOnAnExternalDatabase(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	var out bytes.Buffer
	if code := run(t.Context(), []string{"serversync", "migrate", "--database-url", dsn}, &out, &out); code != exitDone || !strings.Contains(out.String(), "up to date") {
		t.Errorf("migrate: %d\n%s", code, out.String())
	}
	out.Reset()
	run(t.Context(), []string{"serversync", "doctor", "--database-url", dsn, "--url", "http://127.0.0.1:1", "--webhook-tokens", "x"}, &out, &out)
	for _, line := range []string{"ok    database", "ok    schema", "ok    privileges", "FAIL  service"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("doctor does not say %q:\n%s", line, out.String())
		}
	}
}
