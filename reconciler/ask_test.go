package reconciler

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/ingest"     //nolint:depguard // a test of what cmd wires together: the question, VirtFusion, the answer
	"serversync/virtfusion" //nolint:depguard // as above
	"serversync/virtfusion/virtfusionsim"
)

// oracle is a refetcher that notes what it is asked.
type oracle struct {
	mu     sync.Mutex
	asked  []int64
	err    error
	answer func(ids []int64)
}

func (o *oracle) Refetch(_ context.Context, ids []int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, ids...)
	if o.answer != nil {
		o.answer(ids)
	}
	return o.err
}

// take returns what was asked since it was last called, sorted.
func (o *oracle) take() []int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	asked := slices.Sorted(slices.Values(o.asked))
	o.asked = nil
	return asked
}

func (s *system) asking(o refetcher) *Reconciler {
	r := s.reconciler()
	r.refetcher = o
	return r
}

func askDue(t *testing.T, r *Reconciler) error {
	t.Helper()
	return r.AskDue(t.Context())
}

func wantAsked(t *testing.T, o *oracle, want ...int64) {
	t.Helper()
	if got := o.take(); !slices.Equal(got, want) {
		t.Errorf("VirtFusion was asked about %v, want %v", got, want)
	}
}

// sameAge is another account of a server, of the same time.
func sameAge(e *events.Event) *events.Event {
	other := new(*e)
	other.Source, other.Kind, other.Name = events.SourceWebhook, events.KindUpdated, "server.build"
	other.Server.Name = new("another name")
	return other
}

// answered is VirtFusion's answer to a question.
func answered(e *events.Event) { e.Source = events.SourceRefetch }

func notFound(e *events.Event) {
	e.Kind, e.Source, e.Server = events.KindDestroyed, events.SourceRefetch, events.Server{ID: e.Server.ID}
}

// What only VirtFusion can settle is asked, kept until it is answered, and
// settled by the answer.
func TestUndecidedIsAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer       func(*events.Event)
		server, rows string
	}{
		"it exists":  {func(e *events.Event) { answered(e); packaged(large)(e) }, "external on 7", "7 4 14.6000 on ours"},
		"it is gone": {notFound, "gone off destroyed 7", "7 3 7.3000 off ours"},
		"it moved":   {func(e *events.Event) { answered(e); ownedBy(owner8)(e) }, "external on 8", "7 3 7.3000 off ours, 8 3 7.3000 on ours"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			o := new(oracle)
			r := b.asking(o)
			first := b.news(501, updated)
			b.hear(first, b.news(502))
			b.hear(sameAge(first))
			b.want("501 two observations disagree and neither is newer", `SELECT string_agg(virtfusion_id || ' ' || ask, ',') FROM serversync.servers WHERE ask <> ''`)
			b.wantServer(501, "external on 7") // as it was
			b.pass(time.Second)
			if err := askDue(t, r); err != nil {
				t.Fatal(err)
			}
			wantAsked(t, o, 501)
			b.hear(b.news(501, c.answer))
			b.want("", `SELECT string_agg(ask, '') FROM serversync.servers`)
			b.wantServer(501, c.server)
			b.wantRows(501, c.rows)
			b.pass(time.Hour)
			if err := askDue(t, r); err != nil {
				t.Fatal(err)
			}
			wantAsked(t, o)

			// Repeated, what was undecided has been answered.
			before := b.dump()
			b.hear(first, sameAge(first))
			wantSame(t, before, b.dump())
		})
	}
}

// A failed question is asked again after a minute, not before; also by another
// process, or after a restart.
func TestAQuestionIsAskedAgain(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	away := errors.New("VirtFusion is away")
	o := &oracle{err: away}
	first := b.news(501, updated)
	b.hear(first)
	b.hear(sameAge(first))
	for range 3 {
		if err := askDue(t, b.asking(o)); !errors.Is(err, away) {
			t.Fatal(err)
		}
		wantAsked(t, o, 501)
		b.pass(askAgainAfter - time.Microsecond)
		if err := askDue(t, b.asking(o)); err != nil {
			t.Fatal(err)
		}
		wantAsked(t, o)
		b.pass(time.Microsecond)
	}
	b.want("true", `SELECT ask <> '' FROM serversync.servers`)
	b.wantServer(501, "external on 7")
}

// Of two processes each question goes to one, some at a time.
func TestQuestionsAreShared(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	all := make([]*events.Event, 3*askLimit)
	var again []*events.Event
	for i := range all {
		all[i] = b.news(int64(i)+1, updated)
		again = append(again, sameAge(all[i]))
	}
	b.hear(all...)
	b.hear(again...)
	o := new(oracle)
	together(4, func() {
		if err := askDue(t, b.asking(o)); err != nil {
			t.Error(err)
		}
	})
	asked := o.take()
	if len(asked) == 0 || len(asked) > 4*askLimit || len(slices.Compact(slices.Clone(asked))) != len(asked) {
		t.Errorf("asked about %d servers: %v", len(asked), asked)
	}
	for range 3 { // the rest, which was locked meanwhile
		if err := askDue(t, b.asking(o)); err != nil {
			t.Error(err)
		}
	}
	if asked = slices.Sorted(slices.Values(append(asked, o.take()...))); len(asked) != len(all) || len(slices.Compact(asked)) != len(all) {
		t.Errorf("asked about %d servers, want each of %d once", len(asked), len(all))
	}
	if err := askDue(t, b.asking(o)); err != nil {
		t.Error(err)
	}
	wantAsked(t, o)
}

// An end that is older than what we saw is settled by asking.
func TestAnOlderEndIsAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(*events.Event)
		server string
	}{
		"it is gone":  {notFound, "gone off destroyed 7"},
		"it is there": {answered, "external on 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			late := b.news(501, destroyed)
			b.pass(time.Minute)
			b.hear(b.news(501))
			b.pass(time.Minute)
			late.ReceivedAt = b.clock()
			b.exec(`UPDATE serversync.servers SET pulled_at = NULL, observed_source = 'webhook'`) // as if told, not asked
			b.hear(late)
			b.wantServer(501, "external on 7")
			b.want("VirtFusion reported its end, but showed it later", `SELECT ask FROM serversync.servers`)
			b.hear(b.news(501, c.answer))
			b.wantServer(501, c.server)
			b.want("", `SELECT ask FROM serversync.servers`)
		})
	}
}

// A row that bills somebody else than the owner we know is closed on
// VirtFusion's word of today alone.
func TestAStrangersRowIsAskedAbout(t *testing.T) {
	t.Parallel()
	const stranger = `INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		VALUES (8, 501, 501, 'uuid-501', 3, 'Small', 7.3, 0.01, '2026-03-01 13:00:00')`
	for name, c := range map[string]struct {
		answer       func(*events.Event)
		server, rows string
	}{
		"the owner is the one we know": {answered, "external on 7", "7 3 7.3000 on ours, 8 3 7.3000 off native"},
		"the row is right":             {func(e *events.Event) { answered(e); ownedBy(owner8)(e) }, "native on 8", "7 3 7.3000 off ours, 8 3 7.3000 on native"},
		"it is gone":                   {notFound, "gone off destroyed 7", "7 3 7.3000 off ours, 8 3 7.3000 off native"},
		"it is somebody else's": {
			func(e *events.Event) { answered(e); ownedBy(nobody)(e) },
			"unlinked off", "7 3 7.3000 off ours, 8 3 7.3000 off native",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			o := new(oracle)
			r := b.asking(o)
			b.hear(b.news(501))
			b.exec(stranger)
			b.pass(time.Minute)
			if err := b.r.BooksPassDue(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.wantRows(501, "7 3 7.3000 on ours, 8 3 7.3000 on native") // nothing is closed yet
			b.wantServer(501, "external on 7")
			if err := askDue(t, r); err != nil {
				t.Fatal(err)
			}
			wantAsked(t, o, 501)
			before := b.dump()
			b.review(501)
			wantSame(t, before, b.dump())
			b.hear(b.news(501, c.answer))
			b.wantServer(501, c.server)
			b.wantRows(501, c.rows)
			b.want("", `SELECT ask FROM serversync.servers`)
			b.pass(5 * time.Hour)
			b.tick()
			b.wantNoHourTwice()
		})
	}

	// A settling server with a question stays settling: billed to nobody new.
	t.Run("before anything is billed", func(t *testing.T) {
		t.Parallel()
		b := withJob(t)
		b.hear(b.bornNow(501))
		b.exec(stranger)
		b.pass(b.policy.SettleDelay)
		b.settle(b.r)
		b.wantServer(501, "settling off 7")
		b.want("1", `SELECT count(*) FROM serversync.servers WHERE ask <> ''`)
		before := b.dump()
		b.pass(time.Hour)
		b.settle(b.r) // it is not even looked at
		wantSame(t, before, b.dump())
		b.hear(b.news(501, answered))
		b.wantRows(501, "8 3 7.3000 off native, 7 3 7.3000 on ours")
	})
}

// Through the real VirtFusion client and the stream, everything that an answer
// can be.
func TestQuestionsEndToEnd(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	panel := virtfusionsim.New(virtfusionsim.Config{Clock: b.clock})
	panel.AddUser(virtfusionsim.User{ID: owner7, ExtRelationID: 7})
	panel.AddUser(virtfusionsim.User{ID: owner8, ExtRelationID: 8})
	panel.AddPackage(virtfusionsim.Package{ID: small, Name: "Small"})
	panel.AddPackage(virtfusionsim.Package{ID: large, Name: "Large"})
	for id := int64(501); id <= 504; id++ {
		if _, err := panel.CreateServer(virtfusionsim.CreateArgs{
			ID: id, OwnerID: owner7, PackageID: small, UUID: fmt.Sprintf("uuid-%d", id), Built: true, Created: t0.AddDate(-1, 0, 0),
		}); err != nil {
			t.Fatal(err)
		}
	}
	web := httptest.NewServer(panel.Handler())
	t.Cleanup(web.Close)
	client, err := virtfusion.New(virtfusion.Config{BaseURL: web.URL, Token: virtfusionsim.DefaultToken, MaxRetries: -1, Clock: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	var unset error
	refetcher := ingest.NewRefetcher(func(context.Context) (*virtfusion.Client, error) { return client, unset }, b.Publisher, b.clock)
	r := New(Config{
		DB: b.db, Consumer: b.Consumer, DeadLetters: events.NewDeadLetters(b.JetStream), Policy: b.policy, Now: b.clock,
		Log: zerolog.New(b.log), Metrics: prometheus.NewRegistry(), Refetcher: refetcher,
	})

	var first, again []*events.Event
	for id := int64(501); id <= 504; id++ {
		e := b.news(id, updated)
		first, again = append(first, e), append(again, sameAge(e))
	}
	b.hear(first...)
	b.hear(again...)
	b.want("501,502,503,504", `SELECT string_agg(virtfusion_id::text, ',' ORDER BY virtfusion_id) FROM serversync.servers WHERE ask <> ''`)
	b.pass(time.Minute)
	if _, err := panel.SetPackage(501, large); err != nil {
		t.Fatal(err)
	}
	if _, err := panel.Move(504, owner8); err != nil {
		t.Fatal(err)
	}
	stop := b.start(r)

	// While VirtFusion is not configured, away, or lies, nothing changes.
	before := b.dump()
	unchanged := func(what string) {
		t.Helper()
		if err := r.AskDue(t.Context()); err == nil {
			t.Errorf("%s: no error", what)
		}
		b.drained(0)
		wantSame(t, stripped(before), stripped(b.dump()))
		b.pass(askAgainAfter)
	}
	unset = errors.New("no token")
	unchanged("not configured")
	unset = nil
	for _, kind := range []virtfusionsim.Fault{
		virtfusionsim.FaultUnauthorized, virtfusionsim.FaultNotFoundPage, virtfusionsim.FaultServerError, virtfusionsim.FaultHTML,
		virtfusionsim.FaultTruncatedJSON, virtfusionsim.FaultHugeIDs,
	} {
		panel.SetAPIFaults(virtfusionsim.APIFault{Kind: kind})
		unchanged(string(kind))
	}
	if err := panel.DestroySilently(502); err != nil {
		t.Fatal(err)
	}
	panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultBadGateway, Op: virtfusionsim.OpGet, ServerID: 503})
	if err := r.AskDue(t.Context()); err == nil || !strings.Contains(err.Error(), "server 503") {
		t.Errorf("asking about 503: %v", err)
	}
	b.drained(0)
	b.wantServer(501, "external on 7") // the others were answered
	b.wantRows(501, "7 4 14.6000 on ours")
	b.wantServer(502, "gone off destroyed 7")
	b.wantRows(502, "7 3 7.3000 off ours")
	b.wantRows(504, "7 3 7.3000 off ours, 8 3 7.3000 on ours")
	b.want("503", `SELECT string_agg(virtfusion_id::text, ',') FROM serversync.servers WHERE ask <> ''`)
	panel.SetAPIFaults()
	b.pass(askAgainAfter)
	if err := r.AskDue(t.Context()); err != nil {
		t.Error(err)
	}
	b.drained(0)
	b.want("", `SELECT string_agg(virtfusion_id::text, ',') FROM serversync.servers WHERE ask <> ''`)
	b.wantServer(503, "external on 7")
	stop()
}

// stripped is a dump without the times of questions.
func stripped(dump string) string {
	var lines []string
	for line := range strings.SplitSeq(dump, "\n") {
		if i := strings.Index(line, `"asked_at": `); i >= 0 {
			rest := line[i:]
			line = line[:i] + rest[strings.Index(rest, ","):]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestRunAsksEndsCleanly(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	asked := make(chan struct{})
	o := &oracle{answer: func([]int64) { close(asked) }}
	first := b.news(501, updated)
	b.hear(first)
	b.hear(sameAge(first))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := b.asking(o)
	go func() { done <- r.RunAsks(ctx) }()
	select {
	case <-asked:
	case <-time.After(patience):
		t.Error("nobody asked")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A database that cannot be used is not called VirtFusion's fault.
func TestAsksBlameWhatIsToBlame(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.exec(`ALTER TABLE serversync.servers RENAME TO elsewhere`)
	r := s.reconciler()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.RunAsks(ctx) }()
	s.until("it is said", func() bool { return strings.Contains(s.log.String(), "is not set up for us") })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if log := s.log.String(); strings.Contains(log, "VirtFusion could not be asked") {
		t.Errorf("VirtFusion is blamed: %s", log)
	}
}
