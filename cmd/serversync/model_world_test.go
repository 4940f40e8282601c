package main_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"serversync/db"
	"serversync/db/dbtest"
	"serversync/db/skypanelsim"
	"serversync/events"
	"serversync/events/eventstest"
	"serversync/ingest"
	"serversync/internal/httpserver"
	"serversync/reconciler"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// modelStart is when every history begins.
var modelStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	modelSettleDelay  = 2 * time.Minute
	modelBooksEvery   = 15 * time.Minute
	modelHoursInMonth = 730
	modelReconcilers  = 3
)

// VirtFusion's accounts and packages, and SkyPANEL's users. The two id spaces
// overlap on purpose: account 9 is Dimitri's, user 9 is Ines.
const (
	accountBeatriz = 7
	accountChen    = 5
	accountInes    = 13
	accountJoana   = 6
	accountKofi    = 14
	accountNobody  = 12

	userBeatriz = 2
	userChen    = 3
	userInes    = 9
	userJoana   = 10
	userKofi    = 11
	userLiv     = 12

	packageSmall  = 3
	packageLarge  = 5
	packageCustom = 7 // has no price at first
)

// modelCompany is a small world: of its customers Ines is inactive, Joana is
// known to VirtFusion alone (by her extRelationId), Kofi to SkyPANEL alone, Liv
// has no account, and one account is nobody's.
func modelCompany() skypanelsim.World {
	user := func(id, account int64, name string) skypanelsim.User {
		return skypanelsim.User{ID: id, VirtFusionID: account, Email: name + "@customer.example", Username: name, FullName: name}
	}
	w := skypanelsim.World{
		Users: []skypanelsim.User{
			user(userBeatriz, accountBeatriz, "beatriz"), user(userChen, accountChen, "chen"),
			user(userInes, accountInes, "ines"), user(userJoana, 0, "joana"),
			user(userKofi, accountKofi, "kofi"), user(userLiv, 0, "liv"),
		},
		Accounts: []skypanelsim.Account{
			{ID: accountBeatriz, ExtRelationID: userBeatriz, Name: "Beatriz"},
			{ID: accountChen, ExtRelationID: userChen, Name: "Chen"},
			{ID: accountInes, ExtRelationID: userInes, Name: "Ines"},
			{ID: accountJoana, ExtRelationID: userJoana, Name: "Joana"},
			{ID: accountKofi, Name: "Kofi"},
			{ID: accountNobody, Name: "Nobody"},
		},
		Packages: []skypanelsim.Package{
			{ID: packageSmall, PricingID: 1, Name: "Small", Price: 730, MemoryMB: 1024, StorageGB: 25, TrafficGB: 1000, CPUCores: 1},
			{ID: packageLarge, PricingID: 2, Name: "Large", Price: 2400, MemoryMB: 8192, StorageGB: 160, TrafficGB: 5000, CPUCores: 4},
			{ID: packageCustom, Name: "Custom", MemoryMB: 16384, StorageGB: 400, TrafficGB: 10000, CPUCores: 8},
		},
	}
	w.Users[2].Inactive = true
	return w
}

// modelBed is what all histories of a test share: a database, and the webhook
// endpoint.
type modelBed struct {
	db      *bun.DB // the test's own hands, and SkyPANEL's
	service *bun.DB // as the role of deploy/grants.sql
	dead    *events.DeadLetters
	handler http.Handler
	tables  []string
	figures modelFigures

	// history is the one that is going on.
	history *model
}

// Publish implements ingest's publisher.
func (b *modelBed) Publish(ctx context.Context, e *events.Event) (events.Ack, error) {
	return b.history.stream.Publish(ctx, e)
}

func newModelBed(t *testing.T) *modelBed {
	t.Helper()
	b := &modelBed{dead: events.NewDeadLetters(eventstest.New(t).JetStream)}
	b.db, b.service = dbtest.NewForService(t)
	server, err := httpserver.New(httpserver.Config{Roles: []string{"ingest"}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return b.history.clock() }
	hook, err := ingest.NewWebhook(ingest.WebhookConfig{AllowUnauthenticated: true}, b, prometheus.NewRegistry(), zerolog.Nop(), clock)
	if err != nil {
		t.Fatal(err)
	}
	hook.Register(server.Echo())
	b.handler = server.Handler()
	if err := b.db.NewRaw(`
		SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
		WHERE schemaname IN ('public', 'serversync') AND tablename NOT IN ('migrations', 'migration_locks')
		ORDER BY 1`).Scan(t.Context(), &b.tables); err != nil {
		t.Fatal(err)
	}
	return b
}

// model is one history: the two systems, and serversync between them, at one
// time that only the model moves.
type model struct {
	rapid.TB
	ctx     context.Context //nolint:containedctx // of the history, which is the model's life
	bed     *modelBed
	db      *bun.DB
	micros  atomic.Int64
	panel   *virtfusionsim.Panel
	stream  *modelStream
	client  *virtfusion.Client
	asker   *ingest.Refetcher
	workers []*modelWorker
	till    *ingest.Charges
	policy  reconciler.Policy

	world  skypanelsim.World // prices and users as they are now
	hours  int64             // of a month
	hourly bool
	ever   []int64 // every server id that VirtFusion ever gave

	// unchecked: SkyPANEL's job does not ask VirtFusion who owns a server.
	unchecked bool

	steps  int
	orders []*modelOrder
	sky    skypanelMemory
	known  map[int64]modelKnown
	log    []string
}

// skypanelMemory is what SkyPANEL did that its tables do not tell.
type skypanelMemory struct {
	native      map[int64]int // step at which a billing row of its own was made, by the row
	madeAt      map[int64]time.Time
	switchedOff map[int64]bool
	traced      map[int64]bool // servers that were sold, and have no row
}

// modelKnown is what the inventory says of a server's owner.
type modelKnown struct {
	user   int64
	status string
	ask    string
	since  int // step at which it became so
}

// modelWorker is a reconciler with batches of its own.
type modelWorker struct {
	*reconciler.Reconciler
	feed *modelConsumer
}

// modelOptions are what a history may differ in from the start.
type modelOptions struct {
	seed      uint64
	precision time.Duration // of VirtFusion's own times
	skew      time.Duration // of VirtFusion's clock
	window    time.Duration // the broker's memory of ids
	charge    reconciler.InitialCharge
	faults    virtfusionsim.DeliveryFaults
}

// newModel begins a history in an empty database.
func newModel(tb rapid.TB, ctx context.Context, bed *modelBed, o modelOptions) *model {
	tb.Helper()
	m := &model{
		TB: tb, ctx: ctx, bed: bed, db: bed.db, world: modelCompany(), hours: modelHoursInMonth, hourly: true,
		policy: reconciler.Policy{InitialCharge: o.charge, SettleDelay: modelSettleDelay},
		sky:    skypanelMemory{native: map[int64]int{}, madeAt: map[int64]time.Time{}, switchedOff: map[int64]bool{}, traced: map[int64]bool{}},
		known:  map[int64]modelKnown{},
	}
	m.micros.Store(modelStart.UnixMicro())
	bed.history = m
	m.exec(`TRUNCATE ` + strings.Join(bed.tables, ", ") + ` RESTART IDENTITY CASCADE`)
	if err := skypanelsim.Seed(ctx, m.db, m.world); err != nil {
		m.Fatalf("seed SkyPANEL: %v", err)
	}
	m.stream = &modelStream{clock: m.clock, window: o.window, last: map[string]time.Time{}}
	m.panel = virtfusionsim.New(virtfusionsim.Config{
		Clock: m.clock, Skew: o.skew, Precision: o.precision, Seed: o.seed, Journal: true, Hook: m.deliver,
	})
	for _, a := range m.world.Accounts {
		m.panel.AddUser(virtfusionsim.User{ID: a.ID, ExtRelationID: a.ExtRelationID, Name: a.Name})
	}
	for _, p := range m.world.Packages {
		m.panel.AddPackage(virtfusionsim.Package{
			ID: p.ID, Name: p.Name, MemoryMB: p.MemoryMB, StorageGB: p.StorageGB, TrafficGB: p.TrafficGB, CPUCores: p.CPUCores,
		})
	}
	m.panel.AddHypervisor(virtfusionsim.Hypervisor{ID: 1, Name: "host1", GroupID: 1})
	m.panel.SetDeliveryFaults(o.faults)
	m.connect()
	for range modelReconcilers {
		m.workers = append(m.workers, m.newWorker())
	}
	m.till = m.newTill()
	return m
}

// connect makes the API client, whose calls need no network.
func (m *model) connect() {
	m.Helper()
	var err error
	m.client, err = virtfusion.New(virtfusion.Config{
		BaseURL: "http://cp.model.example", Token: virtfusionsim.DefaultToken, MaxRetries: -1,
		Budget: virtfusion.NewBudget(1e9), Clock: m.clock, Transport: inProcess{m.panel.Handler()},
	})
	if err != nil {
		m.Fatal(err)
	}
	client := func(context.Context) (*virtfusion.Client, error) { return m.client, nil }
	m.asker = ingest.NewRefetcher(client, m.stream, m.clock)
}

func (m *model) newWorker() *modelWorker {
	feed := new(modelConsumer)
	return &modelWorker{feed: feed, Reconciler: reconciler.New(reconciler.Config{
		DB: m.bed.service, Consumer: feed, DeadLetters: m.bed.dead, Policy: m.policy, Now: m.clock, Log: zerolog.Nop(),
		Metrics: prometheus.NewRegistry(), Refetcher: m.asker,
	})}
}

// inProcess answers requests with a handler.
type inProcess struct{ handler http.Handler }

// RoundTrip implements [http.RoundTripper].
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	p.handler.ServeHTTP(answer, r)
	return answer.Result(), nil
}

func (m *model) clock() time.Time { return time.UnixMicro(m.micros.Load()).UTC() }

// pass lets time go by.
func (m *model) pass(d time.Duration) { m.micros.Add(d.Microseconds()) }

// note keeps a line for whoever has to understand a failure.
func (m *model) note(format string, args ...any) {
	m.log = append(m.log, m.clock().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (m *model) exec(statement string, args ...any) {
	m.Helper()
	if _, err := m.db.DB.ExecContext(m.ctx, statement, args...); err != nil {
		m.Fatalf("%s: %v", statement, err)
	}
}

// deliver posts a webhook to the endpoint, as VirtFusion does.
func (m *model) deliver(d virtfusionsim.Delivery) {
	request := httptest.NewRequestWithContext(m.ctx, http.MethodPost, "/webhooks/virtfusion", strings.NewReader(string(d.Body)))
	request.Header = d.Header
	answer := httptest.NewRecorder()
	m.bed.handler.ServeHTTP(answer, request)
	if answer.Code != http.StatusAccepted {
		m.Errorf("webhook %d (%s of server %d) was answered %d: %s", d.Sequence, d.Event, d.ServerID, answer.Code, answer.Body)
	}
}

// reconcile delivers up to n events, cut into batches, to so many reconcilers at
// once.
func (m *model) reconcile(n, batch, workers int) {
	m.Helper()
	if err := m.consume(n, batch, workers); err != nil {
		m.Fatal(err)
	}
	m.look()
}

// consume is reconcile for any goroutine.
func (m *model) consume(n, batch, workers int) error {
	messages := m.stream.take(n)
	if len(messages) == 0 {
		return nil
	}
	at := 0
	for batch := range slices.Chunk(messages, batch) {
		feed := m.workers[at%workers].feed
		feed.batches = append(feed.batches, batch)
		at++
		m.bed.figures.batches.Add(1)
	}
	m.bed.figures.events.Add(int64(len(messages)))
	m.note("%d events in batches of %d, %d reconcilers", len(messages), batch, workers)
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i, w := range m.workers[:workers] {
		ctx, cancel := context.WithCancel(m.ctx)
		w.feed.begin(cancel)
		run := func() {
			defer cancel()
			errs[i] = w.Run(ctx)
		}
		if workers == 1 {
			run()
		} else {
			wg.Go(run)
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("a reconciler ended with %w", err)
		}
	}
	if complaints := m.stream.complaints(); len(complaints) > 0 {
		return fmt.Errorf("an event was not taken: %s", complaints[0])
	}
	return nil
}

// reconcileAll delivers all that waits.
func (m *model) reconcileAll() { m.reconcile(m.stream.waits(), events.BatchSize, 1) }

func (m *model) settle() {
	m.Helper()
	if err := m.workers[0].SettleDue(m.ctx); err != nil {
		m.Fatalf("settle: %v", err)
	}
	m.note("settler")
	m.look()
}

func (m *model) reviewBooks() {
	m.Helper()
	if err := m.review(); err != nil {
		m.Fatalf("review the books: %v", err)
	}
	m.note("books pass")
	m.look()
}

// review looks for what changed on SkyPANEL's side: at the young rows, if that
// is due, and at all servers, as a sweep does.
func (m *model) review() error {
	r := m.workers[0]
	if err := r.BooksPassDue(m.ctx); err != nil {
		return err
	}
	for after := int64(0); ; {
		ids, last, err := db.ServersToReview(m.ctx, m.bed.service, after)
		if err != nil || last == 0 {
			return err
		}
		after = last
		effects, err := r.Preview(m.ctx, ids, nil)
		if err != nil {
			return err
		}
		var changing []int64
		for i := range effects {
			if effects[i].Changes {
				changing = append(changing, effects[i].ServerID)
			}
		}
		if _, err := r.RedecideFor(m.ctx, "review", changing); err != nil {
			return err
		}
	}
}

// ask has VirtFusion asked what is to be asked. A failure of its API is no
// failure of ours: it is asked again.
func (m *model) ask(apiFails bool) {
	m.Helper()
	if err := m.workers[0].AskDue(m.ctx); err != nil && !apiFails {
		m.Fatalf("ask VirtFusion: %v", err)
	}
}

// look keeps what the inventory says of the owners.
func (m *model) look() {
	m.Helper()
	for _, s := range m.inventory() {
		now := modelKnown{status: s.Status, ask: s.Ask, since: m.steps}
		if s.UserID != nil {
			now.user = *s.UserID
		}
		if was, ok := m.known[s.VirtfusionID]; ok && was.user == now.user && was.status == now.status {
			now.since = was.since
		}
		m.known[s.VirtfusionID] = now
	}
}

// inventory reads serversync.servers, by id.
func (m *model) inventory() []db.Server {
	m.Helper()
	servers, err := db.ServersByID(m.ctx, m.db, m.ever)
	if err != nil {
		m.Fatal(err)
	}
	slices.SortFunc(servers, func(a, b db.Server) int { return int(a.VirtfusionID - b.VirtfusionID) })
	return servers
}

// text is the one value that a query gives.
func (m *model) text(query string, args ...any) string {
	m.Helper()
	var value string
	if err := m.db.DB.QueryRowContext(m.ctx, query, args...).Scan(&value); err != nil {
		m.Fatalf("%s: %v", query, err)
	}
	return value
}

// modelFigures count over all histories.
type modelFigures struct {
	histories, events, batches, again, parallel atomic.Int64
	emitted, lost, late, repeated, reordered    atomic.Int64
	orders, charges, billed, native, disabled   atomic.Int64
	conflicts, unlinked, gone, refunds, passes  atomic.Int64
	credits, foreseen, undone, undoneCharged    atomic.Int64
}

func (f *modelFigures) String() string {
	return fmt.Sprintf("%d histories: %d webhooks emitted, of them %d lost, %d late, %d repeated, %d reordered; %d events delivered in %d batches, %d of them again, %d steps with reconcilers side by side; %d orders through SkyPANEL, %d charges of its job, %d first charges of which VirtFusion took the credit; "+
		"in the end %d servers billed by a row of ours and %d by SkyPANEL's, %d left off by SkyPANEL, %d in conflict, %d of nobody, %d gone; %d refunds due; %d rounds until nothing changed any more",
		f.histories.Load(), f.emitted.Load(), f.lost.Load(), f.late.Load(), f.repeated.Load(), f.reordered.Load(),
		f.events.Load(), f.batches.Load(), f.again.Load(), f.parallel.Load(), f.orders.Load(), f.charges.Load(), f.credits.Load(),
		f.billed.Load(), f.native.Load(), f.disabled.Load(), f.conflicts.Load(), f.unlinked.Load(), f.gone.Load(), f.refunds.Load(), f.passes.Load())
}
