package reconciler

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"serversync/events"
)

// due runs the books pass, if it is due.
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

// What changes on SkyPANEL's side is noticed without any event: by a review of
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
			b.due() // which finds nothing
			b.exec(c.change)
			b.pass(time.Minute - time.Microsecond)
			before := b.dump()
			b.due()
			wantSame(t, before, b.dump()) // not yet
			b.pass(time.Microsecond)
			b.due()
			if strings.Contains(name, "linked") {
				wantSame(t, before, b.dump())
				b.reviewAll()
			}
			b.wantServer(501, c.server)
			b.wantRows(501, c.rows)
			b.want("books", `SELECT string_agg(DISTINCT source, ',') FROM serversync.history WHERE source <> 'sweep'`)

			// Decided again, nothing is written.
			before = b.dump()
			b.pass(time.Hour)
			b.due()
			if got := b.reviewAll(); got != "1 0" {
				t.Errorf("reviewed and changed %s, want 1 0", got)
			}
			wantSame(t, before, b.dump())
		})
	}
}

func TestReviewOfAll(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	want := func(all, young string) {
		t.Helper()
		b.due()
		if got := b.passes(); got != young {
			t.Errorf("pass %q, want %q", got, young)
		}
		if got := b.reviewAll(); got != all {
			t.Errorf("reviewed and changed %s, want %s", got, all)
		}
	}
	b.skypanelOrders(503)
	b.hear(b.news(501), b.news(502), b.news(503), b.news(504, ownedBy(nobody)), b.news(505), b.bornNow(506))
	b.hear(b.news(502, destroyed), b.news(505, destroyed))
	b.exec(`UPDATE serversync.billing_rows SET created_at = created_at - interval '24 hours' - interval '1 second' WHERE virtfusion_id = 501`)
	want("4 0", "young 0 0 finished")

	// A row is old after a day: SkyPANEL's own is found by the review of all.
	b.exec(`UPDATE serversync.billing_rows SET created_at = created_at + interval '1 second'`)
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false WHERE virtfusion_server_id = 503`)
	b.pass(time.Minute) // which makes it older still
	b.due()
	b.wantServer(503, "native on 7")
	b.exec(`UPDATE serversync.billing_rows SET created_at = '2026-02-28 12:02:00+00' WHERE virtfusion_id = 501`)
	b.pass(time.Minute)
	want("4 2", "young 1 0 finished") // 506 has settled too
	b.wantServer(503, "native off disabled_by_skypanel 7")

	// A server that is gone, whose row somebody switches on: whichever row.
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = true WHERE virtfusion_server_id = 502`)
	b.skypanelOrders(505)
	b.pass(15 * time.Minute)
	want("6 2", "young 1 0 finished")
	b.wantServer(502, "gone off destroyed 7")
	b.wantRows(502, "7 3 7.3000 off ours")
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 505 AND billing_enabled`)
	b.want(b.clock().Format("2006-01-02 15:04:05+00"), `SELECT min(finished_at)::text FROM serversync.passes`)
}

// An order whose row comes after the end of its server is billed by nobody.
func TestReviewFindsTheRowOfAServerGoneBeforeIt(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.bornNow(501))
	b.pass(time.Second)
	b.hear(b.news(501, destroyed))
	b.skypanelOrders(501)
	b.reviewAll()
	b.wantServer(501, "gone off destroyed 7")
	b.wantRows(501, "7 3 7.3000 off native")
	b.pass(5 * time.Hour)
	b.wantTaken("")
}

// Of several processes, one runs each pass; and none before it is due.
func TestBooksPassIsClaimed(t *testing.T) {
	t.Parallel()
	database, tr := traced(t)
	s := setupOn(t, database)
	hearWith(t, s.reconciler(), s.news(501))
	for range 5 {
		tr.take()
		together(4, func() {
			if err := s.reconciler().BooksPassDue(t.Context()); err != nil {
				t.Error(err)
			}
		})
		looked := 0
		for _, sent := range tr.take() {
			if strings.Contains(sent.sql, "DISTINCT r.virtfusion_id") {
				looked++
			}
		}
		if looked != 2 { // one look, and one that nothing is left
			t.Errorf("%d looks for young servers, want those of one pass", looked)
		}
		s.pass(time.Minute)
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
	b.due()
	b.want("3,5", `SELECT string_agg(virtfusion_server_id::text, ',' ORDER BY virtfusion_server_id) FROM virtfusion_hourly_billing WHERE monthly_price <> 14.6`)
	if got, want := b.passes(), fmt.Sprintf("young %d %d finished", n, n-2); got != want {
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

// A pass that is interrupted stays unfinished, and is run again in its time.
func TestBooksPassIsInterrupted(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.exec(`UPDATE package_pricing SET price = 1460`)
	ctx, cancel := context.WithCancel(t.Context())
	b.r.maxChanges = func(int64) int64 { cancel(); return 1 }
	if err := b.r.BooksPassDue(ctx); err != nil {
		t.Fatal(err)
	}
	b.wantRows(501, "7 3 7.3000 on ours")
	if got, want := b.passes(), "young 0 0 unfinished"; got != want {
		t.Errorf("passes %q, want %q", got, want)
	}
	b.pass(time.Minute)
	b.due()
	b.wantRows(501, "7 3 14.6000 on ours")
}

func TestRunBooksPassEndsCleanly(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.exec(`UPDATE package_pricing SET price = 1460`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.r.RunBooksPass(ctx) }()
	b.until("the first pass is over, at once after the start", func() bool { return strings.Contains(b.passes(), "young 1 1 finished") })
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
