package reconciler

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"serversync/events"
)

// due runs what of the books pass is due.
func (b *billed) due() {
	b.t.Helper()
	if err := b.r.BooksPassDue(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// passes says what is recorded of each pass: "name servers changed finished".
func (s *system) passes() string {
	s.t.Helper()
	return s.text(`SELECT string_agg(concat_ws(' ', name, servers, changed, CASE WHEN finished_at IS NULL THEN 'unfinished' ELSE 'finished' END), ', ' ORDER BY name) FROM serversync.passes`)
}

// What changes on SkyPANEL's side is noticed without any event: by a pass over
// all, and for young external rows within a minute.
func TestBooksPassNotices(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, change, server, rows string }{
		"a late native row": {
			"", `INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate) VALUES (7, 501, 501, 'uuid-501', 3, 'Small', 7.3, 0.01)`,
			"native on 7", "7 3 7.3000 on native",
		},
		"a row switched off": {
			"", `UPDATE virtfusion_hourly_billing SET billing_enabled = false`,
			"external off disabled_by_skypanel 7", "7 3 7.3000 off ours",
		},
		"a price": {
			`DELETE FROM package_pricing`, `INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (3, 'Small', 1460)`,
			"external on 7", "7 3 14.6000 on ours",
		},
		"another price": {
			"", `UPDATE package_pricing SET price = 1460`,
			"external on 7", "7 3 14.6000 on ours",
		},
		"no price": {
			"", `DELETE FROM package_pricing`,
			"external off unpriced 7", "7 3 0.0000 off ours",
		},
		"a customer switched off": {
			"", `UPDATE users SET is_active = false WHERE id = 7`,
			"external off owner_inactive 7", "7 3 7.3000 off ours",
		},
		"a customer switched on": {
			`UPDATE users SET is_active = false WHERE id = 7`, `UPDATE users SET is_active = true WHERE id = 7`,
			"external on 7", "7 3 7.3000 on ours",
		},
		"the mode": {
			"", `INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'false')`,
			"external off monthly_mode 7", "7 3 7.3000 off ours",
		},
		"an override": {
			"", `INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (501, 'billing_off')`,
			"external off operator 7", "7 3 7.3000 off ours",
		},
		"a row deleted": {
			"", `DELETE FROM virtfusion_hourly_billing`,
			"external on 7", "7 3 7.3000 on ours",
		},
		"a customer linked": { // of no young row
			`UPDATE users SET virtfusion_id = NULL WHERE id = 7`, `UPDATE users SET virtfusion_id = 70 WHERE id = 7`,
			"external on 7", "7 3 7.3000 on ours",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			if c.before != "" {
				b.exec(c.before)
			}
			b.hear(b.news(501))
			b.due() // of both kinds, which find nothing
			b.exec(c.change)
			b.pass(time.Minute - time.Microsecond)
			before := b.dump()
			b.due()
			wantSame(t, before, b.dump()) // not yet
			b.pass(time.Microsecond)
			if strings.Contains(name, "linked") {
				b.pass(defaultBooksInterval - time.Minute)
			}
			b.due()
			b.wantServer(501, c.server)
			b.wantRows(501, c.rows)
			b.want("books", `SELECT string_agg(DISTINCT source, ',') FROM serversync.history WHERE source <> 'sweep'`)

			// Decided again, nothing is written.
			before = b.dump()
			b.pass(defaultBooksInterval)
			b.due()
			wantSame(t, before, b.dump())
		})
	}
}

func TestBooksPassOverAll(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.skypanelOrders(503)
	b.hear(b.news(501), b.news(502), b.news(503), b.news(504, ownedBy(nobody)), b.news(505), b.bornNow(506))
	b.hear(b.news(502, destroyed), b.news(505, destroyed))
	b.exec(`UPDATE serversync.billing_rows SET created_at = created_at - interval '24 hours' - interval '1 second' WHERE virtfusion_id = 501`)
	b.due()
	if got, want := b.passes(), "all 4 0 finished, young 0 0 finished"; got != want {
		t.Errorf("passes %q, want %q", got, want)
	}

	// A row is old after a day: SkyPANEL's own is found by the pass over all.
	b.exec(`UPDATE serversync.billing_rows SET created_at = created_at + interval '1 second'`)
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false WHERE virtfusion_server_id = 503`)
	b.pass(time.Minute) // which makes it older still
	b.due()
	b.wantServer(503, "native on 7")
	b.exec(`UPDATE serversync.billing_rows SET created_at = '2026-02-28 12:02:00+00' WHERE virtfusion_id = 501`)
	b.pass(time.Minute)
	b.due()
	if got, want := b.passes(), "all 4 0 finished, young 1 0 finished"; got != want {
		t.Errorf("passes %q, want %q", got, want)
	}

	// A server that is gone, whose row somebody switches on: whichever row.
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = true WHERE virtfusion_server_id = 502`)
	b.skypanelOrders(505)
	b.pass(defaultBooksInterval)
	b.due()
	b.wantServer(503, "native off disabled_by_skypanel 7")
	b.wantServer(502, "gone off destroyed 7")
	b.wantRows(502, "7 3 7.3000 off ours")
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 505 AND billing_enabled`)
	if got, want := b.passes(), "all 6 4 finished, young 0 0 finished"; got != want { // 506 has settled too
		t.Errorf("passes %q, want %q", got, want)
	}
	b.want(b.clock().Format("2006-01-02 15:04:05+00"), `SELECT min(finished_at)::text FROM serversync.passes`)
}

// An order whose row comes after the end of its server is billed by nobody.
func TestBooksPassFindsTheRowOfAServerGoneBeforeIt(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.bornNow(501))
	b.pass(time.Second)
	b.hear(b.news(501, destroyed))
	b.skypanelOrders(501)
	b.due()
	b.wantServer(501, "gone off destroyed 7")
	b.wantRows(501, "7 3 7.3000 off native")
	b.pass(5 * time.Hour)
	b.wantTaken("")
}

// Of several processes, one runs each pass; and none before it is due.
func TestBooksPassIsClaimed(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	for range 5 {
		var looked atomic.Int32
		together(4, func() {
			r := b.reconciler()
			for _, name := range []string{passYoung, passAll} {
				err := r.pass(t.Context(), name, time.Minute, func(context.Context, int64) ([]int64, error) {
					looked.Add(1)
					return nil, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
		if n := looked.Load(); n != 2 {
			t.Errorf("%d passes were run, want one of each kind", n)
		}
		b.pass(time.Minute)
	}
}

// A server that PostgreSQL refuses, and one whose row never holds still, do
// not stop a pass; nor does a batch's end.
func TestBooksPassGoesOn(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	n := int64(events.BatchSize + 20)
	all := make([]*events.Event, n)
	for i := range all {
		all[i] = b.news(int64(i) + 1)
	}
	b.hear(all...)
	b.exec(`ALTER TABLE serversync.history ADD CONSTRAINT refused CHECK (virtfusion_id <> 3 OR source <> 'books') NOT VALID`)
	b.exec(`CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	b.exec(`CREATE TRIGGER keep BEFORE UPDATE ON virtfusion_hourly_billing FOR EACH ROW WHEN (OLD.virtfusion_server_id = 5) EXECUTE FUNCTION keep()`)
	b.exec(`UPDATE package_pricing SET price = 1460 WHERE virtfusion_package_id = 3`)
	b.pass(48 * time.Hour)
	b.due()
	b.want("3,5", `SELECT string_agg(virtfusion_server_id::text, ',' ORDER BY virtfusion_server_id) FROM virtfusion_hourly_billing WHERE monthly_price <> 14.6`)
	if got, want := b.passes(), fmt.Sprintf("all %d %d finished, young 0 0 finished", n, n-2); got != want {
		t.Errorf("passes %q, want %q", got, want)
	}
	if log := b.log.String(); strings.Count(log, "cannot be decided") != 2 {
		t.Errorf("the log does not say which: %s", log)
	}
}

// What is away for a moment costs no server its review.
func TestBooksPassOutlivesAPassingFault(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.exec(`UPDATE package_pricing SET price = 1460`)
	b.exec(`CREATE SEQUENCE tries`)
	b.exec(`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
		IF nextval(''tries'') < 3 THEN RAISE EXCEPTION ''deadlock'' USING ERRCODE = ''40P01''; END IF; RETURN NEW; END'`)
	b.exec(`CREATE TRIGGER fail BEFORE UPDATE ON virtfusion_hourly_billing FOR EACH ROW EXECUTE FUNCTION fail()`)
	b.due()
	b.wantRows(501, "7 3 14.6000 on ours")
	b.want("3", `SELECT last_value FROM tries`)
}

// A pass that is interrupted stays unfinished, and what it did stays.
func TestBooksPassIsInterrupted(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501), b.news(502))
	b.exec(`UPDATE package_pricing SET price = 1460`)
	ctx, cancel := context.WithCancel(t.Context())
	err := b.r.pass(ctx, passAll, time.Minute, func(_ context.Context, after int64) ([]int64, error) {
		if after == 0 {
			return []int64{501}, nil
		}
		cancel()
		return []int64{502}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantRows(501, "7 3 14.6000 on ours")
	if got, want := b.passes(), "all 0 0 unfinished"; got != want {
		t.Errorf("passes %q, want %q", got, want)
	}
	b.pass(defaultBooksInterval)
	b.due()
	b.wantRows(502, "7 3 14.6000 on ours")
}

func TestRunBooksPassEndsCleanly(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.exec(`UPDATE package_pricing SET price = 1460`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.r.RunBooksPass(ctx) }()
	b.until("the first pass is over, at once after the start", func() bool { return strings.Contains(b.passes(), "all 1") })
	b.wantRows(501, "7 3 14.6000 on ours")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Two passes, the stream and the settler at once end as one would have.
func TestBooksPassBesideOthers(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	ids := make([]int64, 60)
	for i := range ids {
		ids[i] = int64(i) + 1
	}
	b.run(2)
	for _, id := range ids {
		b.publish(b.news(id), b.news(id, named("b")))
	}
	together(4, func() {
		r := b.reconciler()
		for range 5 {
			if _, err := r.Redecide(b.t.Context(), ids); err != nil {
				t.Error(err)
			}
		}
	})
	b.drained(0)
	b.want("60 60", `SELECT concat_ws(' ', count(*), count(DISTINCT virtfusion_server_id)) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	b.want("0", `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
}

// Servers nobody knows are no work.
func TestRedecideOfTheUnknown(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	before := b.dump()
	if n := b.review(4, 4, 2); n != 0 {
		t.Errorf("%d changed", n)
	}
	wantSame(t, before, b.dump())
}

// The statements of a pass do not grow with a batch.
func TestStatementsOfAReviewAreConstant(t *testing.T) {
	t.Parallel()
	database, tr := traced(t)
	s := setupOn(t, database)
	r := s.reconciler()
	count := func(first, last int64) int {
		t.Helper()
		var all []*events.Event
		var ids []int64
		for id := first; id <= last; id++ {
			all, ids = append(all, s.news(id)), append(ids, id)
		}
		hearWith(t, r, all...)
		s.exec(fmt.Sprintf(`DELETE FROM virtfusion_hourly_billing WHERE virtfusion_server_id = %d`, first)) // for which traces are looked for
		s.exec(`UPDATE package_pricing SET price = price + 1`)
		tr.take()
		if _, err := r.Redecide(t.Context(), ids); err != nil {
			t.Fatal(err)
		}
		return len(tr.take())
	}
	if few, many := count(1, 2), count(11, 300); few != many {
		t.Errorf("%d statements for 2 servers, %d for 290", few, many)
	}
}

// Where the pass over all is never to run, young rows are looked at all the same.
func TestBooksPassOfTheYoungAlone(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.skypanelOrders(501)
	r := b.reconciler()
	r.booksInterval = Never
	b.pass(time.Hour)
	if err := r.BooksPassDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wantServer(501, "native on 7")
	if got, want := b.passes(), "young 1 1 finished"; got != want {
		t.Errorf("passes %q, want %q", got, want)
	}
}
