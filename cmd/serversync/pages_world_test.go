package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/api"
	"serversync/db"
	"serversync/db/dbtest"
	"serversync/db/skypanelsim"
	"serversync/events"
	"serversync/ingest"
	"serversync/reconciler"
	"serversync/virtfusion/virtfusionsim"
)

// pagesWorld is the service as browsers meet it: real, over HTTP, with all
// roles, on a database and a broker that outlive it, beside a simulated
// VirtFusion and the demo's SkyPANEL. The admin is user 1, Beatriz is user 2
// and VirtFusion's 7: see [skypanelsim.NewWorld].
type pagesWorld struct {
	testing.TB

	base    string // the service's URL; a restart keeps it
	db      *bun.DB
	js      jetstream.JetStream
	company skypanelsim.World
	panel   *virtfusionsim.Panel
	log     *logBuffer

	config config
	end    func() error // nil: it does not run
	up     atomic.Bool  // it is meant to answer
}

type pagesOptions struct {
	maxChanges     string        // SWEEP_MAX_CHANGES; empty: 100%, never asks
	settle         time.Duration // SETTLE_DELAY; 0: 200 ms
	observeOnly    bool
	origins        []api.Origin // PUBLIC_ORIGINS
	frameAncestors []string     // who may frame the customer's page
}

const (
	pagesSecret     = "the session secret of the pages' tests"
	pagesAdminToken = "the-admin-token-of-the-pages-tests"
	// pagesPatience bounds what a test waits for.
	pagesPatience = time.Minute
	// pagesTick is how often a condition is looked at.
	pagesTick = 25 * time.Millisecond
)

// The people and plans that the tests use most.
const (
	adminUser    = 1 // of SkyPANEL
	customerUser = 2 // Beatriz Barros
	customerID   = 7 // she, in VirtFusion
	smallPlan    = 3 // 5.00 a month
)

func newPagesWorld(t testing.TB, o pagesOptions) *pagesWorld {
	t.Helper()
	maxChanges, err := ingest.ParseMaxChanges(cmp.Or(o.maxChanges, "100%"))
	if err != nil {
		t.Fatal(err)
	}
	dsn := dbtest.NewDSN(t)
	w := &pagesWorld{TB: t, company: skypanelsim.NewWorld(), log: &logBuffer{}}
	if w.db, err = db.Open(dsn, db.WithMaxConns(2)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := skypanelsim.Seed(t.Context(), w.db, w.company); err != nil {
		t.Fatal(err)
	}
	w.panel = newPanel(virtfusionsim.Config{
		WebhookURL: "set", WebhookToken: testToken, Hook: w.deliver, Seed: 7,
	}, w.company)
	virtfusion := httptest.NewServer(w.panel.Handler())
	t.Cleanup(virtfusion.Close)
	t.Cleanup(func() { w.panel.SetAPIFaults() }) // what hangs is let go first
	if err := skypanelsim.Connect(t.Context(), w.db, virtfusion.URL, virtfusionsim.DefaultToken); err != nil {
		t.Fatal(err)
	}
	natsURL := pagesBroker(t)
	w.config = config{
		listenAddr: "127.0.0.1:0", dataDir: filepath.Join(t.TempDir(), "data"), roles: allRoles,
		databaseURL: dbtest.As(t, dsn, dbtest.ServiceRole), natsURL: natsURL, virtfusionRPS: 1000,
		webhookTokens: []string{testToken}, adminToken: pagesAdminToken,
		sessionSecret: pagesSecret, publicOrigins: o.origins, frameAncestors: o.frameAncestors,
		policy: reconciler.Policy{
			InitialCharge: reconciler.ChargeRecord, SettleDelay: cmp.Or(o.settle, 200*time.Millisecond), ObserveOnly: o.observeOnly,
		},
		maxChanges: maxChanges, logLevel: zerolog.DebugLevel, logFormat: "json",
	}
	t.Cleanup(func() {
		w.stop()
		if t.Failed() {
			t.Logf("what the service warned of:\n%s", w.warnings())
		}
	})
	w.serve()

	nc, err := events.Dial(natsURL, "", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if w.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return w
}

// pagesBroker is a NATS server that is not the service's own.
func pagesBroker(t testing.TB) (url string) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(pagesPatience) {
		t.Fatal("the broker is not ready")
	}
	return srv.ClientURL()
}

// serve starts the service and waits until it can do its work. The second time
// it listens where it did at first.
func (w *pagesWorld) serve() {
	w.Helper()
	w.await("the service listens", w.listen)
	w.config.listenAddr = strings.TrimPrefix(w.base, "http://")
	w.await("the service is ready", func() bool {
		status, _ := w.get("/readyz")
		return status == http.StatusOK
	})
	w.up.Store(true)
}

// listen starts the service, unless somebody else has its port for the moment.
func (w *pagesWorld) listen() bool {
	w.Helper()
	c := w.config
	s, err := open(w.Context(), &c, newLogger(&c, w.log))
	if err != nil {
		w.Fatal(err)
	}
	background := context.WithoutCancel(w.Context())
	ctx, cancel := context.WithCancel(background)
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	select {
	case <-s.http.Ready():
	case err := <-ended:
		cancel()
		if err := errors.Join(err, s.close(background)); !errors.Is(err, syscall.EADDRINUSE) {
			w.Fatalf("the service ended at once: %v\n%s", err, w.warnings())
		}
		return false
	}
	w.base = localURL(s.http.Addr())
	w.end = func() error {
		cancel()
		return errors.Join(<-ended, s.close(background))
	}
	return true
}

// stop ends the service, if it runs, as a shutdown does.
func (w *pagesWorld) stop() {
	w.Helper()
	if w.end == nil {
		return
	}
	w.up.Store(false)
	if err := w.end(); err != nil {
		w.Errorf("the service did not end cleanly: %v", err)
	}
	w.end = nil
	http.DefaultClient.CloseIdleConnections()
}

// restart stops the service, if it runs, and starts it on the same address and
// the same stores.
func (w *pagesWorld) restart() {
	w.Helper()
	w.stop()
	w.serve()
}

// warnings are the lines of the service's log that are more than information.
func (w *pagesWorld) warnings() string {
	var b strings.Builder
	for line := range strings.Lines(w.log.String()) {
		for _, level := range []string{"warn", "error", "fatal", "panic"} {
			if strings.Contains(line, `"level":"`+level+`"`) {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

// await waits for a condition, which is looked at again and again.
func (w *pagesWorld) await(what string, condition func() bool) {
	w.Helper()
	deadline := time.NewTimer(pagesPatience)
	defer deadline.Stop()
	ticker := time.NewTicker(pagesTick)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			w.Fatalf("waited in vain until %s\n%s", what, w.warnings())
		}
	}
}

// get asks the service without a browser and without credentials. Status 0: it
// cannot be reached.
func (w *pagesWorld) get(path string) (status int, header http.Header) {
	w.Helper()
	request, err := http.NewRequestWithContext(w.Context(), http.MethodGet, w.base+path, http.NoBody)
	if err != nil {
		w.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header
}

// deliver posts a webhook of the panel. Like VirtFusion it does not come back
// when nobody answers.
func (w *pagesWorld) deliver(d virtfusionsim.Delivery) {
	request, err := http.NewRequestWithContext(context.WithoutCancel(w.Context()), http.MethodPost, w.base+"/webhooks/virtfusion", bytes.NewReader(d.Body))
	if err != nil {
		w.Error(err)
		return
	}
	request.Header = d.Header.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if w.up.Load() {
			w.Errorf("deliver a webhook: %v", err)
		}
		return
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		w.Errorf("a webhook was answered %s", response.Status)
	}
}

// createSilently makes a server of which no webhook tells, as one that existed
// before anybody looked. The owner and the plan are VirtFusion's ids.
func (w *pagesWorld) createSilently(owner, plan int64, name string) virtfusionsim.Server {
	w.Helper()
	return w.create(virtfusionsim.CreateArgs{
		OwnerID: owner, PackageID: plan, Name: name, Built: true, Silent: true, Created: time.Now().Add(-24 * time.Hour),
	})
}

// createLoudly makes a server, and returns when its webhook was taken.
func (w *pagesWorld) createLoudly(owner, plan int64, name string) virtfusionsim.Server {
	w.Helper()
	return w.create(virtfusionsim.CreateArgs{OwnerID: owner, PackageID: plan, Name: name, Built: true})
}

func (w *pagesWorld) create(args virtfusionsim.CreateArgs) virtfusionsim.Server {
	w.Helper()
	s, err := w.panel.CreateServer(args)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// poison puts something on the stream that is no event, waits until it is a
// dead letter, and returns how many there are. Sent again it comes back.
func (w *pagesWorld) poison() uint64 {
	w.Helper()
	before := w.deadLetters()
	if _, err := w.js.Publish(w.Context(), "virtfusion.users.0.servers.9.updated", []byte("no JSON")); err != nil {
		w.Fatal(err)
	}
	w.await("there is a dead letter more", func() bool { return w.deadLetters() > before })
	return w.deadLetters()
}

// bury makes the news of a server a dead letter, and returns its id. Sent again
// it succeeds.
func (w *pagesWorld) bury(s *virtfusionsim.Server, reason string) string {
	w.Helper()
	now := time.Now().UTC()
	e := events.Event{
		Kind: events.KindUpdated, Source: events.SourceWebhook, Name: "server.update", ObservedAt: now, ReceivedAt: now,
		Server: events.Server{ID: s.ID, UUID: &s.UUID, Name: &s.Name, PackageID: &s.PackageID, Owner: &events.Owner{ID: s.OwnerID}},
	}
	if err := e.Seal(); err != nil {
		w.Fatal(err)
	}
	body, err := json.Marshal(e)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := events.NewDeadLetters(w.js).Put(w.Context(), events.DeadLetter{
		ID: e.ID, Reason: reason, Attempts: 5, FirstAt: now, LastAt: now,
		Stream: events.StreamName, StoredAt: now, Subject: e.Subject(), Data: body,
	}); err != nil {
		w.Fatal(err)
	}
	return e.ID
}

func (w *pagesWorld) deadLetters() uint64 {
	w.Helper()
	n, err := events.NewDeadLetters(w.js).Count(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func (w *pagesWorld) exec(statement string, args ...any) {
	w.Helper()
	if _, err := w.db.DB.ExecContext(w.Context(), statement, args...); err != nil {
		w.Fatalf("%s: %v", statement, err)
	}
}

// value reads one value as text.
func (w *pagesWorld) value(query string, args ...any) string {
	w.Helper()
	var v *string
	if err := w.db.DB.QueryRowContext(w.Context(), `SELECT (`+query+`)::text`, args...).Scan(&v); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
	if v == nil {
		return "null"
	}
	return *v
}

// until waits until a query gives a value.
func (w *pagesWorld) until(want, query string, args ...any) {
	w.Helper()
	var got string
	w.await(query+" is "+want, func() bool {
		got = w.value(query, args...)
		return got == want
	})
}
