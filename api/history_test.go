package api_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

// happened gives anna runs and changes: a run and a line each hour, two lines and
// two runs of one moment among them.
func (s *system) happened(t *testing.T) {
	t.Helper()
	s.people(t)
	s.listed(t)
	for i, id := range []string{"r0", "r1", "r1b", "r2"} {
		s.addRun(t, db.Run{
			ID: id, Kind: db.RunSync, State: db.RunIncomplete, UserID: new(int64(anna)), StartedAt: noon().Add(time.Duration([]int{0, 1, 1, 2}[i]) * time.Hour),
			RequestedBy: "root-the-admin", Note: "operators-words", Problems: []db.Problem{{Code: "virtfusion_unavailable", Message: "secret-address"}},
		})
	}
	s.addRun(t, db.Run{ID: "dry", Kind: db.RunSync, State: db.RunSucceeded, DryRun: true, UserID: new(int64(anna)), StartedAt: noon().Add(time.Hour)})
	s.addRun(t, db.Run{ID: "others", Kind: db.RunSync, State: db.RunSucceeded, UserID: new(int64(boris)), StartedAt: noon().Add(time.Hour)})
	s.exec(t, `INSERT INTO serversync.history (at, virtfusion_id, kind, reason, before, after, source, event_id, run_id, billing_id, user_id)
		SELECT '2026-03-01T12:00Z'::timestamptz + at * '1 h'::interval, server, kind, 'why: user 42', '{"a": 1}', '{"a": 2}', 'sweep', 'ev', NULL, 901, usr
		FROM (VALUES (0, 9001, 'observed', 41), (1, 9001, 'billing_created', 41), (1, 9003, 'billing_changed', 41), (3, 9002, 'billing_closed', 41), (1, 9002, 'observed', 42), (1, 9001, 'observed', NULL))
			AS v (at, server, kind, usr)`)
}

// story tells a history in short.
func story(items []api.HistoryEntry) string {
	var all []string
	for _, e := range items {
		if e.Run != nil {
			all = append(all, e.Run.ID)
		} else {
			all = append(all, strings.TrimPrefix(e.Change.Kind, "billing_"))
		}
	}
	return strings.Join(all, " ")
}

func TestHistory(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.happened(t)
	key := withKey(s.addKey(t, anna, 1, "{read:servers}", ""))
	const path = "/api/admin/users/41/servers/sync/history"
	const want = "closed r2 r1b r1 changed created r0 observed"
	page := func(path string) api.Page[api.HistoryEntry] {
		t.Helper()
		if strings.HasPrefix(path, "/api/user/") {
			return data[api.Page[api.HistoryEntry]](t, s.send(t, http.MethodGet, path, key, ""))
		}
		return data[api.Page[api.HistoryEntry]](t, s.admin(t, http.MethodGet, path))
	}
	for _, path := range []string{path, "/api/user/servers/sync/history"} {
		if got := story(page(path).Items); got != want {
			t.Errorf("%s: %s", path, got)
		}
		for limit := 1; limit < 9; limit++ {
			var all []string
			for cursor := ""; ; {
				p := page(fmt.Sprintf("%s?limit=%d%s", path, limit, cursor))
				all = append(all, story(p.Items))
				if p.NextCursor == nil {
					break
				}
				cursor = "&cursor=" + *p.NextCursor
			}
			if got := strings.Join(all, " "); got != want {
				t.Errorf("%s by %d: %s", path, limit, got)
			}
		}
	}

	items := page(path).Items
	if c := items[4].Change; c == nil || c.ServerID != 9003 || c.ServerName != "mail" || c.Kind != "billing_changed" || c.Message == "" || *c.BillingID != 901 || c.Reason != "why: user 42" ||
		string(c.Before) != `{"a":1}` || c.Source != "sweep" || *c.EventID != "ev" || items[4].Type != "change" || !items[4].At.Equal(noon().Add(time.Hour)) {
		t.Errorf("%+v", c)
	}
	if r := items[1]; r.Type != "run" || r.Run.RequestedBy != "root-the-admin" || r.Run.Note != "operators-words" || !r.At.Equal(r.Run.StartedAt) {
		t.Errorf("%+v", r)
	}
	// The server is another's by now, and so is its name.
	if c := items[0].Change; c.ServerID != 9002 || c.ServerName != "" {
		t.Errorf("%+v", c)
	}
	own := s.send(t, http.MethodGet, "/api/user/servers/sync/history", key, "")
	for _, secret := range []string{"root-the-admin", "operators-words", "secret-address", "why", "user 42", `"before"`, `"source"`, "HYPERLINK"} {
		if strings.Contains(own.raw, secret) {
			t.Errorf("a customer is shown %q: %s", secret, own.raw)
		}
	}
	if c := data[api.Page[api.HistoryEntry]](t, own).Items[5].Change; c.Message != "its billing was recorded" {
		t.Errorf("%+v", c)
	}
	if got := page("/api/admin/users/1/servers/sync/history"); len(got.Items) != 0 || got.Items == nil || got.NextCursor != nil {
		t.Errorf("of nothing: %+v", got)
	}

	place := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	for query, want := range map[string]string{
		"limit=0": "bad_limit", "cursor=x": "bad_cursor", "cursor=" + place(`{"t":1}`): "bad_cursor", "cursor=" + place(`{"t":1,"r":"a","l":1}`): "bad_cursor",
		"cursor=" + place(`{"t":-1,"l":1}`): "bad_cursor", "cursor=" + place(`{"t":1,"r":"a b"}`): "bad_cursor", "cursor=" + place(`{"t":9223372036854775807,"l":1}`): "bad_cursor",
		"user=42": "unknown_parameter", "limit=1&limit=2": "repeated_parameter",
	} {
		for _, a := range []answer{s.admin(t, http.MethodGet, path+"?"+query), s.send(t, http.MethodGet, "/api/user/servers/sync/history?"+query, key, "")} {
			if a.status != http.StatusBadRequest || a.body.Error.Code != want {
				t.Errorf("%s: %s, want %s", query, a.raw, want)
			}
		}
	}
	for path, want := range map[string]string{"/api/admin/users/0/servers/sync/history": "bad_user_id", "/api/admin/users/99/servers/sync/history": "user_not_found"} {
		if a := s.admin(t, http.MethodGet, path); a.body.Error.Code != want {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
}
