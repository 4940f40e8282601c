package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"serversync/api"
	"serversync/db"
)

// foresee writes what the servers of a run would do.
func (s *system) foresee(t *testing.T, runID string, effects ...db.RunEffect) {
	t.Helper()
	for i := range effects {
		content, err := json.Marshal(&effects[i])
		if err != nil {
			t.Fatal(err)
		}
		s.exec(t, `INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, effect, forecast) VALUES (?, ?, 'changed', 'done', ?, ?)`,
			runID, effects[i].ServerID, effects[i].Effect, string(content))
	}
}

// share is what changes a customer's month from and to, as charged and by the list.
func share(user int64, from, to string, rows db.RowChanges) db.RunShare {
	cost := db.MonthlyCost{EffectiveBefore: decimal.RequireFromString(from), EffectiveAfter: decimal.RequireFromString(to)}
	cost.ListBefore, cost.ListAfter = cost.EffectiveBefore, cost.EffectiveAfter.Add(decimal.RequireFromString("0.5"))
	return db.RunShare{UserID: user, Rows: rows, MonthlyCost: cost}
}

// previewed is a dry run of four servers and three customers, one of whom has a
// name that a spreadsheet would run.
func (s *system) previewed(t *testing.T) {
	t.Helper()
	s.addRun(t, db.Run{ID: "tried", State: db.RunSucceeded, DryRun: true, Preview: &db.RunPreview{Create: 1, Move: 1, Mark: "m1"}})
	first := share(42, "0", "7.3", db.RowChanges{Created: 1})
	first.FirstCharge, first.BackBilled = decimal.RequireFromString("0.0137"), decimal.RequireFromString("1.25")
	s.foresee(t, "tried",
		db.RunEffect{
			ServerID: 1, Name: "=cmd|' /C calc'!A0", UserID: new(int64(42)), Effect: db.EffectCreate, Billing: "on", Why: "made outside SkyPANEL",
			EffectiveAfter: decimal.RequireFromString("7.3"), FirstCharge: first.FirstCharge, BackBilled: first.BackBilled, Shares: []db.RunShare{first},
		},
		db.RunEffect{
			ServerID: 2, Effect: db.EffectMove, UserID: new(int64(43)), EffectiveBefore: decimal.RequireFromString("14.6"), EffectiveAfter: decimal.RequireFromString("14.6"),
			Shares: []db.RunShare{share(41, "14.6", "0", db.RowChanges{Moved: 1}), share(43, "0", "14.6", db.RowChanges{Created: 1})},
		},
		db.RunEffect{ServerID: 3, Effect: db.EffectChange, UserID: new(int64(42)), // as an older version wrote it
			EffectiveBefore: decimal.RequireFromString("7.3"), EffectiveAfter: decimal.RequireFromString("7.3"), ListBefore: decimal.RequireFromString("8"), ListAfter: decimal.RequireFromString("9")},
		db.RunEffect{ServerID: 4, Effect: db.EffectNone, UserID: new(int64(44)), EffectiveBefore: decimal.RequireFromString("7.3"), EffectiveAfter: decimal.RequireFromString("7.3")})
}

func TestPreviewByCustomer(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.previewed(t)
	users := func(query string) (string, api.PreviewCustomers) {
		t.Helper()
		page := data[api.PreviewCustomers](t, s.admin(t, http.MethodGet, "/api/admin/runs/tried/preview"+query))
		var all []string
		for _, c := range page.Items {
			all = append(all, fmt.Sprintf("%d %s", c.UserID, c.EffectiveChange))
		}
		return strings.Join(all, ", "), page
	}
	got, page := users("")
	if want := "43 14.60, 41 -14.60, 42 7.30"; got != want || page.Total != 3 || page.NextCursor != nil || page.Preview == nil || *page.Preview.Mark != "m1" {
		t.Errorf("got %s, want %s: %+v", got, want, page)
	}
	want := api.CustomerEffect{
		UserID: 42, Servers: 2, Rows: api.RowChanges{Created: 1}, MonthlyCost: api.MonthlyCost{ListBefore: "8.00", ListAfter: "16.80", EffectiveBefore: "7.30", EffectiveAfter: "14.60"},
		ListChange: "8.80", EffectiveChange: "7.30", FirstCharges: 1, FirstChargeAmount: "0.0137", BackBilled: "1.25",
	}
	if page.Items[2] != want {
		t.Errorf("got %+v, want %+v", page.Items[2], want)
	}
	if got, page := users("?changesOver=7.30"); got != "43 14.60, 41 -14.60" || page.Total != 2 {
		t.Errorf("over 7.30: %s", got)
	}
	got, page = users("?limit=2")
	if next, _ := users("?limit=2&cursor=" + *page.NextCursor); got+", "+next != "43 14.60, 41 -14.60, 42 7.30" {
		t.Errorf("in pages: %s, then %s", got, next)
	}
	for query, code := range map[string]string{
		"?changesOver=-1": "bad_changes_over", "?changesOver=1e3": "bad_changes_over", "?changesOver=lots": "bad_changes_over", "?limit=0": "bad_limit", "?cursor=-1": "bad_cursor", "?over=1": "unknown_parameter",
	} {
		if a := s.admin(t, http.MethodGet, "/api/admin/runs/tried/preview"+query); a.status != http.StatusBadRequest || a.body.Error.Code != code {
			t.Errorf("%s: %d %s", query, a.status, a.raw)
		}
	}
}

func TestPreviewAsCSV(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.previewed(t)
	lines := func(query string) []string {
		t.Helper()
		a := s.admin(t, http.MethodGet, "/api/admin/runs/tried/preview.csv"+query)
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="preview-tried-`) {
			t.Fatalf("%s: %d %v %s", query, a.status, a.header, a.raw)
		}
		return strings.Split(strings.TrimSpace(a.raw), "\n")[1:]
	}
	want := []string{
		"43,1,1,0,0,0,0,0,0,0,0.00,,0.00,15.10,15.10,0.00,14.60,14.60,0.00",
		"41,1,0,0,0,1,0,0,0,0,0.00,,14.60,0.50,-14.10,14.60,0.00,-14.60,0.00",
		"42,2,1,0,0,0,0,0,0,1,0.0137,recorded as pending; nobody collects them,8.00,16.80,8.80,7.30,14.60,7.30,1.25",
	}
	if got := lines(""); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := lines("?changesOver=10&by=customer"); !slices.Equal(got, want[:2]) {
		t.Errorf("over 10:\n%s", strings.Join(got, "\n"))
	}
	got := lines("?by=server")
	if len(got) != 4 || !strings.HasPrefix(got[0], `1,'=cmd|' /C calc'!A0,42,create,on,,0.00,0.00,0.00,0.00,7.30,7.30,0.0137,recorded as pending; nobody collects them,1.25,made outside SkyPANEL,`) {
		t.Errorf("by server:\n%s", strings.Join(got, "\n"))
	}
	if got := lines("?by=server&changesOver=5"); len(got) != 1 {
		t.Errorf("servers over 5:\n%s", strings.Join(got, "\n"))
	}
}

// A dry run of a user's sync tells what it would cost, and a sync that is none does not.
func TestAUsersDryRunHasItsPreview(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.syncs.begun = func(r *db.Run) {
		s.exec(t, `UPDATE serversync.runs SET state = 'succeeded', preview = '{"create": 1, "cost": {"effectiveAfter": "7.3"}, "rows": {"created": 1}}' WHERE id = ?`, r.ID)
	}
	if p := data[api.Synced](t, s.admin(t, http.MethodPost, "/api/admin/users/41/servers/sync?dryRun=true")).Preview; p == nil || p.EffectiveAfter != "7.30" || p.Rows.Created != 1 {
		t.Errorf("the preview is %+v", p)
	}
	s.exec(t, `DELETE FROM serversync.runs`)
	if done := data[api.Synced](t, s.admin(t, http.MethodPost, "/api/admin/users/41/servers/sync")); done.RunID == "" || done.Preview != nil {
		t.Errorf("no dry run: %+v", done)
	}
}
