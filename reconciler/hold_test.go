package reconciler

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
)

// What a run holds waits for a person, and is then done as it was previewed.
func TestHoldThenApprove(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501), b.news(502), b.news(503), b.news(504), b.news(505))
	b.pass(time.Second)
	b.exec(`UPDATE package_pricing SET price = 1000 WHERE virtfusion_package_id = 3`)
	all := []*events.Event{
		b.news(502, by("sweep-1"), ownedBy(owner8)), b.news(503, by("sweep-1"), ownedBy(nobody)), b.news(504, by("sweep-1"), destroyed),
		b.news(505, by("sweep-1"), packaged(large)), b.news(601, by("sweep-1")), b.news(602, by("sweep-1"), born(t0)),
	}
	b.startRun("sweep-1", 501, 502, 503, 504, 505, 601, 602)
	foreseen := b.preview([]int64{501}, all...)
	rows := `SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY id) FROM virtfusion_hourly_billing t`
	before := b.text(rows)
	b.r.hold(t, "sweep-1", []int64{501, 502, 503, 504, 505, 601, 602, 777}, all...)

	b.want(before, rows)
	b.want("501 external on, 502 external on, 503 external on, 504 external on, 505 external on, 601 settling off, 602 settling off",
		`SELECT string_agg(concat_ws(' ', virtfusion_id, status, billing, billing_reason), ', ' ORDER BY virtfusion_id) FROM serversync.servers
			WHERE awaiting_run = 'sweep-1' AND note = 'waits for approval of run sweep-1: serversync sweep --approve sweep-1'`)
	b.want("70", `SELECT string_agg(DISTINCT owner_id::text, ',') FROM serversync.servers`) // of the known nothing is laid over
	b.want("7 decided, 2 observed", `SELECT string_agg(n || ' ' || kind, ', ' ORDER BY kind) FROM (
		SELECT kind, count(*) n FROM serversync.history WHERE run_id = 'sweep-1' GROUP BY kind) h`)
	b.want("true", `SELECT bool_and(reason LIKE 'waits for approval of run sweep-1%') FROM serversync.history WHERE run_id = 'sweep-1' AND kind = 'decided'`)
	b.wantItems("sweep-1", "501 sent, 502 sent, 503 sent, 504 sent, 505 sent, 601 sent, 602 sent")

	// Again it changes nothing; nor do those who look at servers by themselves.
	everything := b.dump()
	b.r.hold(t, "sweep-1", []int64{777, 505, 504, 503, 502, 501}, all...)
	b.pass(time.Hour)
	b.settle(b.r)
	b.due()
	b.review(501, 502, 503, 504, 505, 601, 602)
	wantSame(t, everything, b.dump())
	if got, want := b.passes(), "young 5 0 finished"; got != want {
		t.Errorf("passes %q, want %q", got, want)
	}
	if got := b.reviewAll(); got != "0 0" {
		t.Errorf("reviewed and changed %s, want none", got)
	}
	if got := short(b.preview([]int64{501}, all...)); got != short(foreseen) {
		t.Errorf("waiting, it is previewed as\n%s\nbefore as\n%s", got, short(foreseen))
	}

	// Approved.
	if _, err := b.r.RedecideFor(t.Context(), "sweep-1", []int64{501}); err != nil {
		t.Fatal(err)
	}
	b.hear(all...)
	b.wantItems("sweep-1", "501 updated, 502 new, 503 updated, 504 updated, 505 updated, 601 new, 602 new")
	b.wantRows(501, "7 3 10.0000 on ours")
	b.wantRows(502, "7 3 7.3000 off ours, 8 3 10.0000 on ours")
	b.wantRows(503, "7 3 7.3000 off ours")
	b.wantServer(503, "unlinked off")
	b.wantRows(504, "7 3 7.3000 off ours")
	b.wantServer(504, "gone off destroyed 7")
	b.wantRows(505, "7 4 14.6000 on ours")
	b.wantRows(601, "7 3 10.0000 on ours")
	b.wantRows(602, "7 3 10.0000 on ours") // its time to settle has passed meanwhile
	b.want("0", `SELECT count(*) FROM serversync.servers WHERE awaiting_run <> ''`)
	got := strings.Fields(strings.ReplaceAll(short(foreseen), "\n", " \n "))
	want := map[string]string{"501": "change", "502": "move", "503": "move", "504": "end", "505": "change", "601": "create", "602": "create"}
	for i := 0; i+1 < len(got); i++ {
		if w, ok := want[got[i]]; ok && got[i+1] != w {
			t.Errorf("server %s was previewed as %s, want %s", got[i], got[i+1], w)
		}
	}
	everything = b.dump()
	b.hear(all...)
	wantSame(t, everything, b.dump())
	b.pass(5 * time.Hour)
	b.tick()
	b.wantNoHourTwice()
}

// A webhook tells the inventory of a server that waits, and changes no billing;
// that it is gone ends billing at once, and the waiting.
func TestHeldServerHearsWebhooks(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.r.hold(t, "sweep-1", []int64{501}, b.news(502))
	b.pass(time.Minute)
	b.hear(b.news(501, updated, named("b"), ownedBy(owner8), packaged(large)), b.news(502, updated, named("c")))
	b.want("501 b 80 4 7, 502 c 70 3", `SELECT string_agg(concat_ws(' ', virtfusion_id, name, owner_id, package_id, user_id), ', ' ORDER BY virtfusion_id) FROM serversync.servers`)
	b.wantRows(501, "7 3 7.3000 on ours")
	b.wantServer(501, "external on 7")
	b.wantRows(502, "")
	b.pass(time.Minute)
	b.hear(b.news(501, destroyed), b.news(502, destroyed))
	b.wantRows(501, "7 3 7.3000 off ours")
	b.wantServer(501, "gone off destroyed 7")
	b.wantServer(502, "gone off destroyed")
	b.want("0", `SELECT count(*) FROM serversync.servers WHERE awaiting_run <> ''`)
}

// A decision that leaves the waiting as it was leaves alone whom it waits for: a
// newer run may take the older one's place at any time.
func TestHeldServerIsTakenOverMeanwhile(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.r.hold(t, "sweep-1", []int64{501})
	state := fromInventory(&b.inventoryOf(501)[0])
	b.exec(`UPDATE serversync.servers SET awaiting_run = 'sweep-2'`)
	next := state
	next.Name = "b"
	if err := db.UpsertServers(t.Context(), b.db, []db.Server{toInventory(&next, &state)}); err != nil {
		t.Fatal(err)
	}
	b.want("b sweep-2", `SELECT concat_ws(' ', name, awaiting_run) FROM serversync.servers`)
	b.pass(time.Second)
	b.hear(b.news(501, updated, named("c")))
	b.want("c waits for approval of run sweep-2: serversync sweep --approve sweep-2", `SELECT concat_ws(' ', name, note) FROM serversync.servers`)

	// A run that holds it as well takes it over.
	b.r.hold(t, "sweep-3", []int64{501})
	b.want("sweep-3", `SELECT awaiting_run FROM serversync.servers`)
	next.AwaitingRun = ""
	if err := db.UpsertServers(t.Context(), b.db, []db.Server{toInventory(&next, &state)}); err != nil {
		t.Fatal(err)
	}
	b.want("", `SELECT awaiting_run FROM serversync.servers`)
}

func (s *system) inventoryOf(id int64) []db.Server {
	s.t.Helper()
	stored, err := db.ServersByID(s.t.Context(), s.db, []int64{id})
	if err != nil {
		s.t.Fatal(err)
	}
	return stored
}

// Many are held in batches, by a constant number of statements each.
func TestStatementsOfHolding(t *testing.T) {
	t.Parallel()
	database, tr := traced(t)
	s := setupOn(t, database)
	r := s.reconciler()
	count := func(first, last int64) int {
		t.Helper()
		var ids []int64
		var all []*events.Event
		for id := first; id <= last; id++ {
			ids, all = append(ids, id), append(all, s.news(id))
		}
		tr.take()
		r.hold(t, "sweep-1", ids, all...)
		return len(tr.take())
	}
	few, many := count(1, 2), count(11, 10+events.BatchSize)
	if few != many {
		t.Errorf("%d statements for 2 servers, %d for %d", few, many, events.BatchSize)
	}
	if n := count(1001, 1000+2*events.BatchSize); n != 2*few {
		t.Errorf("%d statements for two batches, %d for one", n, few)
	}
	s.want(strconv.Itoa(2+3*events.BatchSize), `SELECT count(*) FROM serversync.servers WHERE awaiting_run = 'sweep-1'`)
}

// Each minute's pass changes no more billing than a person would be asked for;
// what ends waits for nobody.
func TestBooksPassIsCapped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit int64
		rows  string
		pass  string
		warns bool
	}{
		{3, "7.3000 on, 14.6000 on, 14.6000 on, 14.6000 on, 14.6000 off", "young 6 5 finished", false},
		{2, "7.3000 on, 7.3000 on, 7.3000 on, 7.3000 on, 14.6000 off", "young 6 2 finished", true},
		{0, "7.3000 on, 7.3000 on, 7.3000 on, 7.3000 on, 14.6000 off", "young 6 2 finished", true},
	} {
		t.Run(strconv.FormatInt(c.limit, 10), func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			b.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (10, 'Ten', 1000)`)
			b.hear(b.news(501), b.news(502), b.news(503), b.news(504), b.news(505), b.news(506, packaged(10)), b.news(507, ownedBy(nobody)), b.news(508))
			b.hear(b.news(508, destroyed))
			b.exec(`UPDATE package_pricing SET price = 1460 WHERE virtfusion_package_id = 3`)
			b.skypanelOrders(501) // ours is taken back
			b.exec(`UPDATE serversync.servers SET note = 'stale' WHERE virtfusion_id = 506`)
			b.wish(505, "billing_off")
			fleet := int64(0)
			b.r.maxChanges = func(n int64) int64 { fleet = n; return c.limit }
			b.due()
			got := b.text(`SELECT string_agg(monthly_price || CASE WHEN billing_enabled THEN ' on' ELSE ' off' END, ', ' ORDER BY virtfusion_server_id, id)
				FROM virtfusion_hourly_billing WHERE virtfusion_server_id BETWEEN 501 AND 505`)
			if got != c.rows {
				t.Errorf("got %s, want %s", got, c.rows)
			}
			if fleet != 7 {
				t.Errorf("a fleet of %d", fleet)
			}
			if got := b.passes(); got != c.pass {
				t.Errorf("pass %q, want %q", got, c.pass)
			}
			if warned := strings.Count(b.log.String(), `"changes":3,"limit"`); warned != map[bool]int{true: 1}[c.warns] {
				t.Errorf("%d warnings: %s", warned, b.log.String())
			}
			b.want("made outside SkyPANEL, billed 10.00 a month, 7.30 as charged", `SELECT note FROM serversync.servers WHERE virtfusion_id = 506`)
		})
	}
}

// What a run's preview said to change no billing changes none, whatever happened
// between the preview and the decision: a later run shows it first.
func TestHarmlessNewsStayHarmless(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	harmless := func(e *events.Event) { e.Expected = events.ExpectNothing }
	b.hear(b.news(501), b.news(502), b.news(503), b.news(504))
	b.startRun("sweep-1", 501, 502, 503, 601)
	b.exec(`UPDATE package_pricing SET price = 73000 WHERE virtfusion_package_id = 3`)
	b.pass(time.Minute)
	b.hear(b.news(501, by("sweep-1"), harmless, named("b")), b.news(601, by("sweep-1"), harmless),
		b.news(502, by("sweep-1"), harmless, destroyed), b.news(503, by("sweep-1")), b.news(504, updated))
	b.wantRows(501, "7 3 7.3000 on ours")
	b.want("b", `SELECT name FROM serversync.servers WHERE virtfusion_id = 501`)
	b.wantRows(601, "")
	b.wantRows(502, "7 3 7.3000 off ours")  // an end waits for nobody
	b.wantRows(503, "7 3 730.0000 on ours") // this one was within the cap
	b.wantRows(504, "7 3 730.0000 on ours")
	b.wantItems("sweep-1", "501 unchanged, 502 updated, 503 updated, 601 unchanged")
	b.want("501 601", `SELECT string_agg(virtfusion_id::text, ' ' ORDER BY 1) FROM serversync.servers WHERE awaiting_run = 'sweep-1'`)
}

// SkyPANEL's own row beside ours is paid twice: that waits for nobody.
func TestHeldServerIsNotBilledTwice(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.r.hold(t, "sweep-1", []int64{501})
	b.skypanelOrders(501)
	b.pass(time.Minute)
	b.due()
	b.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 501 AND billing_enabled AND reference_1 IS NULL`)
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 501 AND billing_enabled AND reference_1 IS NOT NULL`)
	everything := b.dump()
	b.pass(time.Minute)
	b.review(501)
	wantSame(t, everything, b.dump())
}
