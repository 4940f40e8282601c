package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"serversync/api"
	"serversync/db"
)

// addRun writes a run as it is; what is not said is a sweep at noon.
func (s *system) addRun(t *testing.T, r db.Run) {
	t.Helper()
	if r.Kind == "" {
		r.Kind = db.RunSweep
	}
	if r.Phase == "" {
		r.Phase = db.PhaseEnded
	}
	if r.StartedAt.IsZero() {
		r.StartedAt = noon()
	}
	if r.Problems == nil {
		r.Problems = []db.Problem{}
	}
	r.BeatAt = r.StartedAt
	if _, err := s.db.NewInsert().Model(&r).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// seedRun makes a sweep that waits, with all that a run can have.
func (s *system) seedRun(t *testing.T) {
	t.Helper()
	s.addRun(t, db.Run{
		ID: "waits", State: db.RunNeedsApproval, Phase: db.PhaseWaiting, RequestedBy: "admin token", EndedAt: new(noon().Add(time.Minute)), Note: "asks",
		Progress: db.RunProgress{Page: 3, Pages: 3, Total: 250, Listed: 249, Drift: 4, Missing: 1, Reviewed: 200, Rescans: 2, Calls: 9, CallsPerSecond: 10, Slot: 7, Scanned: true, Whole: true},
		Problems: []db.Problem{{Code: "page_short", Message: "look again"}, {Code: "access_denied", Message: "give the token more rights", ServerID: 7}},
		Preview: &db.RunPreview{
			Create: 2, Change: 1, Move: 1, End: 1, None: 3, CreateOff: 1, Off: map[string]int64{"unpriced": 1}, Customers: 2, FirstCharges: 1,
			FirstChargeAmount: decimal.RequireFromString("0.0137"), ListMonthly: decimal.RequireFromString("10"), EffectiveMonthly: decimal.RequireFromString("7.3"),
			Largest: []db.RunEffect{{
				ServerID: 8, Name: hostile, UserID: new(int64(41)), Effect: db.EffectCreate, Billing: "off", Reason: "unpriced", Why: "made outside SkyPANEL",
				ListAfter: decimal.RequireFromString("10"), EffectiveAfter: decimal.RequireFromString("7.3"), FirstCharge: decimal.RequireFromString("0.0137"),
			}},
			Missing: 1, Changes: 6, Limit: 5, Fleet: 250, Asks: "6 changes are more than 5",
		},
	})
	s.exec(t, `
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error) VALUES
			('waits', 1, 'new', 'done', 'new', NULL), ('waits', 2, 'changed', 'done', 'updated', NULL), ('waits', 3, 'changed', 'done', 'updated', NULL),
			('waits', 4, 'changed', 'done', 'unchanged', NULL), ('waits', 5, 'new', 'done', 'unchanged', NULL),
			('waits', 6, 'changed', 'done', 'failed', 'requeue it'), ('waits', 7, 'new', 'held', NULL, NULL), ('waits', 8, 'new', 'held', NULL, NULL);
		INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (5, 'settling', now(), '', '', now(), now())`)
}

func TestARun(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.seedRun(t)
	a := s.admin(t, http.MethodGet, "/api/admin/runs/waits")
	r := data[api.Run](t, a)
	if r.ID != "waits" || r.Kind != "sweep" || r.State != "needs_approval" || r.Phase != "waiting" || r.DryRun || r.UserID != nil || r.RequestedBy != "admin token" ||
		!r.StartedAt.Equal(noon()) || !r.EndedAt.Equal(noon().Add(time.Minute)) || r.ApprovedBy != nil || r.ApprovedAt != nil || r.SupersededBy != nil || r.Note != "asks" {
		t.Errorf("run: %s", a.raw)
	}
	if got := fmt.Sprint(r.Expected, r.Processed, r.New, r.Updated, r.Unchanged, r.Failed, r.Held, r.Settling); got != "8 6 1 2 2 1 2 1" {
		t.Errorf("totals: %s", got)
	}
	if got := fmt.Sprintf("%+v", r.Progress); got != "{Page:3 Pages:3 Total:250 Listed:249 Drift:4 Missing:1 Reviewed:200 Rescans:2 Calls:9 CallsPerSecond:10 Whole:true}" {
		t.Errorf("progress: %s", got)
	}
	if len(r.Problems) != 3 || r.Problems[0].Code != "page_short" || r.Problems[0].ServerID != nil || *r.Problems[1].ServerID != 7 ||
		r.Problems[2].Code != "server_failed" || r.Problems[2].Message != "requeue it" || *r.Problems[2].ServerID != 6 {
		t.Errorf("problems: %+v", r.Problems)
	}
	p := r.Preview
	if p == nil || fmt.Sprintln(p.Create, p.Change, p.Move, p.End, p.None, p.CreateOff, p.Off, p.Customers, p.FirstCharges, p.FirstChargeAmount, p.ListMonthly, p.EffectiveMonthly,
		p.Missing, p.Changes, p.Limit, p.Fleet, *p.Asks) != "2 1 1 1 3 1 map[unpriced:1] 2 1 0.0137 10.00 7.30 1 6 5 250 6 changes are more than 5\n" {
		t.Errorf("preview: %+v", p)
	}
	if e := p.Largest[0]; e.ServerID != 8 || e.Name != hostile || *e.UserID != 41 || e.Effect != "create" || e.Billing != "off" || *e.BillingReason != "unpriced" ||
		e.ListBefore != "0.00" || e.ListAfter != "10.00" || e.EffectiveBefore != "0.00" || e.EffectiveAfter != "7.30" || e.FirstCharge != "0.0137" || e.Why != "made outside SkyPANEL" {
		t.Errorf("largest: %+v", e)
	}
	if strings.ContainsAny(a.raw, "<>\x1b") {
		t.Errorf("the JSON holds what a page or a terminal could take for more than text: %s", a.raw)
	}
	// What has nothing has empty lists, not null.
	s.addRun(t, db.Run{ID: "bare", State: db.RunSucceeded})
	if raw := string(s.admin(t, http.MethodGet, "/api/admin/runs/bare").body.Data); !strings.Contains(raw, `"problems":[]`) || !strings.Contains(raw, `"preview":null`) || !strings.Contains(raw, `"endedAt":null`) {
		t.Errorf("a run with nothing: %s", raw)
	}
}

func TestRunsPages(t *testing.T) {
	t.Parallel()
	s := setup(t)
	if got := string(s.admin(t, http.MethodGet, "/api/admin/runs").body.Data); got != "[]" {
		t.Errorf("no runs: %s", got)
	}
	// Several that started in the same microsecond, and one that waits.
	for i := range 5 {
		s.addRun(t, db.Run{ID: "sync-" + strconv.Itoa(i), Kind: db.RunSync, State: db.RunSucceeded, UserID: new(int64(40 + i%2))})
	}
	s.addRun(t, db.Run{ID: "older", State: db.RunFailed, StartedAt: noon().Add(-time.Microsecond)})
	s.addRun(t, db.Run{ID: "newer", State: db.RunNeedsApproval, StartedAt: noon().Add(time.Microsecond)})

	list := func(query string) string {
		t.Helper()
		var pages []string
		for cursor := ""; ; {
			a := s.admin(t, http.MethodGet, "/api/admin/runs?"+query+cursor)
			var ids []string
			for _, r := range data[[]api.Run](t, a) {
				ids = append(ids, r.ID)
			}
			pages = append(pages, strings.Join(ids, " "))
			next := a.header.Get("X-Next-Cursor")
			if next == "" {
				return strings.Join(pages, " | ")
			}
			if cursor = "&cursor=" + next; len(pages) == 1 { // what comes meanwhile moves nothing
				s.addRun(t, db.Run{ID: "meanwhile" + strconv.Itoa(len(query)), State: db.RunSuperseded, StartedAt: noon().Add(time.Hour)})
			}
		}
	}
	if got := list("limit=3"); got != "newer sync-4 sync-3 | sync-2 sync-1 sync-0 | older" {
		t.Errorf("pages: %s", got)
	}
	s.exec(t, `DELETE FROM serversync.runs WHERE id LIKE 'meanwhile%'`)
	for query, want := range map[string]string{
		"": "newer sync-4 sync-3 sync-2 sync-1 sync-0 older", "kind=sweep": "newer older", "state=needs_approval": "newer", "kind=sync&state=failed": "",
		"user=41": "sync-3 sync-1", "limit=100000": "newer sync-4 sync-3 sync-2 sync-1 sync-0 older", "limit=7": "newer sync-4 sync-3 sync-2 sync-1 sync-0 older",
	} {
		if got := list(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	s.exec(t, `INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) SELECT 'many' || i, 'bulk', 'failed', now(), now() FROM generate_series(1, 250) AS i`)
	for query, want := range map[string]int{"": 50, "limit=9999": 200, "limit=1": 1} {
		if got := len(data[[]api.Run](t, s.admin(t, http.MethodGet, "/api/admin/runs?"+query))); got != want {
			t.Errorf("%q: %d runs, want %d", query, got, want)
		}
	}
}

func TestRunsRefuse(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for path, want := range map[string]string{
		"GET /api/admin/runs?kind=scan":                             "400 bad_kind",
		"GET /api/admin/runs?state=done":                            "400 bad_state",
		"GET /api/admin/runs?user=me":                               "400 bad_user",
		"GET /api/admin/runs?user=0":                                "400 bad_user",
		"GET /api/admin/runs?user=2147483648":                       "400 bad_user",
		"GET /api/admin/runs?limit=0":                               "400 bad_limit",
		"GET /api/admin/runs?limit=many":                            "400 bad_limit",
		"GET /api/admin/runs?cursor=5":                              "400 bad_cursor",
		"GET /api/admin/runs?cursor=x.waits":                        "400 bad_cursor",
		"GET /api/admin/runs?cursor=-1.waits":                       "400 bad_cursor",
		"GET /api/admin/runs?cursor=9223372036854775807.waits":      "400 bad_cursor",
		"GET /api/admin/runs?cursor=1.%00":                          "400 bad_cursor",
		"GET /api/admin/runs/nothing":                               "404 run_not_found",
		"GET /api/admin/runs/%00":                                   "404 run_not_found",
		"GET /api/admin/runs/" + strings.Repeat("a", 5000):          "404 run_not_found",
		"POST /api/admin/runs/nothing/approve":                      "404 run_not_found",
		"POST /api/admin/runs/a%0d%0aX-Evil:%201/approve":           "404 run_not_found",
		"POST /api/admin/servers/sync?dryRun=perhaps":               "400 bad_dry_run",
		"POST /api/admin/servers/sync?dryRun=":                      "400 bad_dry_run", // a script whose variable is empty
		"POST /api/admin/servers/sync?dryRun":                       "400 bad_dry_run",
		"POST /api/admin/users/0/servers/sync":                      "400 bad_user_id",
		"POST /api/admin/users/x/servers/sync":                      "400 bad_user_id",
		"POST /api/admin/users/+7/servers/sync":                     "400 bad_user_id",
		"POST /api/admin/users/2147483648/servers/sync":             "400 bad_user_id",
		"POST /api/admin/users/99999999999999999999/servers/sync":   "400 bad_user_id",
		"POST /api/admin/users/7/servers/sync?dryRun=2":             "400 bad_dry_run",
		"POST /api/admin/users/7/servers/sync?wait=-1":              "400 bad_wait",
		"POST /api/admin/users/7/servers/sync?wait=26":              "400 bad_wait",
		"POST /api/admin/users/7/servers/sync?wait=soon":            "400 bad_wait",
		"GET /api/admin/users/-1/servers/sync/status":               "400 bad_user_id",
		"GET /api/admin/users/7/servers/sync/status":                "404 user_not_found",
		"GET /api/admin/users/2147483647/servers/sync/status?x=y&x": "404 user_not_found",
	} {
		method, path, _ := strings.Cut(path, " ")
		if a := s.admin(t, method, path); fmt.Sprint(a.status, " ", a.body.Error.Code) != want {
			t.Errorf("%s %.80s = %d %s, want %s", method, path, a.status, a.raw, want)
		}
	}
	if n := s.count(t, `SELECT count(*) FROM serversync.runs`); n != 0 {
		t.Errorf("%d runs were made by requests that were refused", n)
	}
}

func (s *system) count(t *testing.T, query string) (n int) {
	t.Helper()
	if err := s.db.NewRaw(query).Scan(t.Context(), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestApprove(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.seedRun(t)
	a := s.admin(t, http.MethodPost, "/api/admin/runs/waits/approve")
	r := dataOf[api.Run](t, a, http.StatusAccepted)
	if r.State != "running" || r.Phase != "approved" || *r.ApprovedBy != "admin token" || !r.ApprovedAt.Equal(noon()) || r.EndedAt != nil ||
		a.header.Get("Location") != "/api/admin/runs/waits" || !strings.Contains(a.body.Message, "approved") {
		t.Errorf("%v %s", a.header, a.raw)
	}
	s.exec(t, `UPDATE serversync.runs SET state = 'succeeded', phase = 'ended' WHERE id = 'waits'`) // or it is the running sweep
	s.addRun(t, db.Run{ID: "held", State: db.RunNeedsApproval})
	s.addRun(t, db.Run{ID: "tried", State: db.RunNeedsApproval, DryRun: true})
	s.addRun(t, db.Run{ID: "old", State: db.RunSuperseded, SupersededBy: "held"})
	s.addRun(t, db.Run{ID: "his", Kind: db.RunSync, State: db.RunNeedsApproval, UserID: new(int64(41))})
	s.addRun(t, db.Run{ID: "works", State: db.RunRunning, Phase: db.PhaseApplying, ApprovedBy: "somebody", ApprovedAt: new(noon())})
	refused := func(id, says string) {
		t.Helper()
		a := s.admin(t, http.MethodPost, "/api/admin/runs/"+id+"/approve")
		if a.status != http.StatusConflict || a.body.Error.Code != "run_not_waiting" || !strings.Contains(a.body.Error.Message, says) {
			t.Errorf("%s: %d %s, want it to say %s", id, a.status, a.raw, says)
		}
	}
	for id, says := range map[string]string{
		"waits": `"succeeded"`,
		"works": "approved already, by somebody at 2026-03-01 12:00:00 UTC",
		"old":   "run held, which is newer, took over",
		"held":  "a newer sweep is at work",
		"his":   "a sweep, or a newer sync of the user, is at work",
		"tried": "this was a dry run",
	} {
		refused(id, says)
	}
	// The user's newer sync alone stands in the way.
	s.exec(t, `UPDATE serversync.runs SET state = 'succeeded' WHERE id = 'works'`)
	s.addRun(t, db.Run{ID: "newer", Kind: db.RunSync, State: db.RunRunning, UserID: new(int64(41))})
	refused("his", "a newer sync of the user, is at work")
}

// An approval is of a preview: of an older one it is none.
func TestApproveAPreview(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.addRun(t, db.Run{ID: "asks", State: db.RunNeedsApproval, Preview: &db.RunPreview{Mark: "second", Differs: &db.PreviewDifference{
		ApprovedBy: "ann", Approved: decimal.RequireFromString("14.6"), Now: decimal.RequireFromString("21.9"), Servers: 1, ServerIDs: []int64{7}, Customers: 1,
		ByCustomer: []db.CustomerDifference{{UserID: 41, Approved: decimal.RequireFromString("14.6"), Now: decimal.RequireFromString("21.9"), BackBilledApproved: decimal.RequireFromString("0.5"), BackBilledNow: decimal.NewFromInt(2)}},
	}}})
	a := s.admin(t, http.MethodPost, "/api/admin/runs/asks/approve?preview=first")
	if a.status != http.StatusConflict || a.body.Error.Code != "preview_changed" {
		t.Errorf("an older preview: %d %s", a.status, a.raw)
	}
	if a := s.admin(t, http.MethodPost, "/api/admin/runs/asks/approve?preview="); a.status != http.StatusAccepted {
		t.Errorf("whatever preview there is: %d %s", a.status, a.raw)
	}
	s.exec(t, `UPDATE serversync.runs SET state = 'needs_approval' WHERE id = 'asks'`)
	r := dataOf[api.Run](t, s.admin(t, http.MethodPost, "/api/admin/runs/asks/approve?preview=second"), http.StatusAccepted)
	if d := r.Preview.Differs; d == nil || d.ApprovedBy != "ann" || d.Approved != "14.60" || d.Now != "21.90" || d.ServerIDs[0] != 7 || d.BackBilledNow != "0.00" || d.ByCustomer[0] != (api.CustomerDifference{UserID: 41, Approved: "14.60", Now: "21.90", BackBilledApproved: "0.50", BackBilledNow: "2.00"}) {
		t.Errorf("how it differs: %+v", d)
	}
}

func TestASweepIsAskedForAndJoined(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a := s.admin(t, http.MethodPost, "/api/admin/servers/sync?dryRun=false")
	first := dataOf[api.Run](t, a, http.StatusAccepted)
	if first.Kind != "sweep" || first.State != "running" || first.Phase != "queued" || first.DryRun || first.RequestedBy != "admin token" || !first.StartedAt.Equal(noon()) ||
		a.header.Get("Location") != "/api/admin/runs/"+first.ID || !strings.Contains(a.body.Message, "started") {
		t.Errorf("%v %s", a.header, a.raw)
	}
	// As whoever leads looks for it.
	open, err := db.OpenRuns(t.Context(), s.db)
	if err != nil || len(open) != 1 || open[0].ID != first.ID || open[0].Worker != "" {
		t.Errorf("what the leader sees: %+v, %v", open, err)
	}
	a = s.admin(t, http.MethodPost, "/api/admin/servers/sync")
	if again := dataOf[api.Run](t, a, http.StatusAccepted); again.ID != first.ID || !strings.Contains(a.body.Message, "running already") || a.header.Get("Location") != "/api/admin/runs/"+first.ID {
		t.Errorf("the second: %s", a.raw)
	}
	a = s.admin(t, http.MethodPost, "/api/admin/servers/sync?dryRun=true")
	if dry := dataOf[api.Run](t, a, http.StatusAccepted); dry.ID == first.ID || !dry.DryRun {
		t.Errorf("a dry run: %s", a.raw)
	}
	var same api.Run
	if err := json.Unmarshal(s.admin(t, http.MethodGet, "/api/admin/runs/"+first.ID).body.Data, &same); err != nil || same.ID != first.ID {
		t.Errorf("as it is read: %+v, %v", same, err)
	}
}
