package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

func (s *syncs) StartReplay(ctx context.Context, o api.ReplayOrder) (string, error) {
	if s.err != nil {
		return "", s.err
	}
	return s.begin(ctx, &db.Run{
		Kind: db.RunReplay, UserID: &o.UserID, DryRun: o.DryRun, RequestedBy: o.By,
		Progress: db.RunProgress{Replay: &db.ReplayPart{Since: o.Since, Until: o.Until}},
	})
}

func (s *syncs) StartBulk(ctx context.Context, o api.BulkOrder) (string, error) {
	if s.err != nil {
		return "", s.err
	}
	r := &db.Run{Kind: db.RunBulk, DryRun: o.DryRun, RequestedBy: o.By, Progress: db.RunProgress{Bulk: &o.Order}}
	id, err := s.begin(ctx, r)
	if err == nil {
		err = db.StageBulk(ctx, s.db, id, o.IDs)
	}
	if err == nil && s.begun != nil {
		s.begun(r)
	}
	return id, err
}

func (s *syncs) StartUndo(ctx context.Context, order db.UndoOrder, dryRun bool, by string) (string, error) {
	if s.err != nil {
		return "", s.err
	}
	r := &db.Run{Kind: db.RunUndo, DryRun: dryRun, RequestedBy: by, Progress: db.RunProgress{Undo: &order}}
	id, err := s.begin(ctx, r)
	if err == nil && s.begun != nil {
		s.begun(r)
	}
	return id, err
}

func (s *syncs) begin(ctx context.Context, r *db.Run) (string, error) {
	r.ID, r.State, r.Phase, r.StartedAt, r.BeatAt = db.NewRunID(), db.RunRunning, db.PhaseQueued, noon(), noon()
	id, _, err := db.StartRun(ctx, s.db, r)
	if err == nil && s.begun != nil && r.Kind == db.RunReplay {
		s.begun(r)
	}
	return id, err
}

// put sends a body with the admin token.
func (s *system) put(t *testing.T, path, body string) answer {
	t.Helper()
	return s.send(t, http.MethodPost, path, headers("Authorization", "Bearer "+testToken), body)
}

func TestReplayIsARun(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for body, want := range map[string]db.ReplayPart{
		"":                             {},
		"{}":                           {},
		`{"since": null, "until": ""}`: {},
		`{"since": "720h"}`:            {Since: new(noon().Add(-720 * time.Hour))},
		`{"since": "2026-02-01T13:00:00+01:00", "until": "1h30m"}`:                   {Since: new(time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)), Until: new(noon().Add(-90 * time.Minute))},
		`{"since": "48h", "until": "2026-03-01T11:59:59.5Z", "dryRun": true}` + "\n": {Since: new(noon().Add(-48 * time.Hour)), Until: new(noon().Add(-500 * time.Millisecond))},
	} {
		a := s.put(t, "/api/admin/users/41/servers/replay", body)
		r := dataOf[api.Run](t, a, http.StatusAccepted)
		if r.Kind != "replay" || *r.UserID != 41 || r.DryRun != strings.Contains(body, "true") || r.RequestedBy != "admin token" || a.header.Get("Location") != "/api/admin/runs/"+r.ID {
			t.Errorf("%s: %s", body, a.raw)
		}
		if same := func(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }; r.Replay == nil || !same(r.Replay.Since, want.Since) || !same(r.Replay.Until, want.Until) {
			t.Errorf("%s: %+v, want %+v", body, r.Replay, want)
		}
	}
}

func TestReplayRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.syncs.begun = func(*db.Run) { t.Error("a run was begun") }
	for _, test := range []struct{ user, body, want string }{
		{"x", `{}`, "400 bad_user_id"},
		{"0", `{}`, "400 bad_user_id"},
		{"41", `[]`, "400 invalid_json"},
		{"41", `null`, "400 invalid_json"},
		{"41", `{} {}`, "400 invalid_json"},
		{"41", `{"since": `, "400 invalid_json"},
		{"41", `{"Since": "1h"}`, "400 unknown_field"},
		{"41", `{"user": 42}`, "400 unknown_field"},
		{"41", `{"since": 720}`, "400 bad_since"},
		{"41", `{"since": "30d"}`, "400 bad_since"},
		{"41", `{"since": "-1h"}`, "400 bad_since"},
		{"41", `{"since": "0s"}`, "400 bad_since"},
		{"41", `{"since": "0001-01-01T00:00:00Z"}`, "400 bad_since"},
		{"41", `{"since": "2026-03-01"}`, "400 bad_since"},
		{"41", `{"since": "2026-03-01T12:00:01Z"}`, "400 bad_since"},
		{"41", `{"until": "tomorrow"}`, "400 bad_until"},
		{"41", `{"since": "1h", "until": "2h"}`, "400 bad_until"},
		{"41", `{"dryRun": "yes"}`, "400 bad_dry_run"},
		{"41", `{"dryRun": null}`, "400 bad_dry_run"},
		{"41", `{"since": "` + strings.Repeat(" ", 1<<20) + `"}`, "413 too_large"},
	} {
		a := s.put(t, "/api/admin/users/"+test.user+"/servers/replay", test.body)
		if got := fmt.Sprint(a.status, " ", a.body.Error.Code); got != test.want {
			t.Errorf("%.60s: %s, want %s: %.300s", test.body, got, test.want, a.raw)
		}
	}
	s.syncs.err = api.ErrNoUser
	if a := s.put(t, "/api/admin/users/42/servers/replay", ""); a.status != http.StatusNotFound || a.body.Error.Code != "user_not_found" {
		t.Errorf("%s", a.raw)
	}
}

func TestARunSaysWhatTheStreamNoLongerHolds(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.addRun(t, db.Run{ID: "old", Kind: db.RunReplay, State: db.RunSucceeded, Progress: db.RunProgress{Replay: &db.ReplayPart{Events: 7, Limits: "nothing from before"}}})
	r := data[api.Run](t, s.admin(t, http.MethodGet, "/api/admin/runs/old"))
	if r.Replay == nil || r.Replay.Events != 7 || *r.Replay.Limits != "nothing from before" || r.Replay.Since != nil {
		t.Errorf("%+v", r.Replay)
	}
}
