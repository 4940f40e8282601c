package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

func (a *administered) StartReplay(ctx context.Context, o api.ReplayOrder) (string, error) {
	if o.UserID == 404 {
		return "", api.ErrNoUser
	}
	now := time.Now()
	id, _, err := db.StartRun(ctx, a.db, &db.Run{
		ID: db.NewRunID(), Kind: db.RunReplay, State: db.RunRunning, Phase: db.PhaseQueued, DryRun: o.DryRun, UserID: &o.UserID,
		RequestedBy: o.By, StartedAt: now, BeatAt: now, Progress: db.RunProgress{Replay: &db.ReplayPart{Since: o.Since, Until: o.Until}},
	})
	return id, err
}

func TestReplayFollowsARunToItsEnd(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]int{"succeeded": exitDone, "failed": exitFailed, "incomplete": exitIncomplete, "needs_approval": exitIncomplete} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			a := administer(t)
			a.endNext(t, state)
			code, out, errs := a.command(t, "replay", "--user", "41")
			if code != want || !strings.Contains(out, "Replay of user 41 (") || !strings.Contains(out, "a note") {
				t.Errorf("exit code %d, want %d\n%s%s", code, want, out, errs)
			}
			if (state == "needs_approval") != strings.Contains(out, "serversync sweep --approve") {
				t.Errorf("what to do next: %s", out)
			}
		})
	}
}

func TestReplaySaysWhatIsToBeReplayed(t *testing.T) {
	t.Parallel()
	a := administer(t)
	begun := time.Now()
	code, out, errs := a.command(t, "replay", "--user", "41", "--since", "720h", "--until", "2026-03-01T12:00:00+02:00", "--dry-run", "--json", "--no-wait")
	if code != exitUsage { // since is later than until
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	code, out, errs = a.command(t, "replay", "--user", "41", "--since", "2026-01-01T00:00:00Z", "--until", "1h", "--dry-run", "--json", "--no-wait")
	var run api.Run
	if err := json.Unmarshal([]byte(out), &run); code != exitDone || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, errs)
	}
	if p := run.Replay; run.Kind != "replay" || !run.DryRun || *run.UserID != 41 || !p.Since.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) ||
		p.Until.Sub(begun.Add(-time.Hour)).Abs() > time.Minute {
		t.Errorf("%s", out)
	}
	if code, _, errs := a.command(t, "replay", "--user", "404"); code != exitFailed || !strings.Contains(errs, "no user with this id") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

func TestReplayRefusesWrongUsage(t *testing.T) {
	t.Parallel()
	a := administer(t)
	for _, args := range []string{
		"", "--user x", "--user 0", "--user 41 --since tomorrow", "--user 41 --since 30d", "--user 41 --until -1h", "--user 41 now", "--user 41 --force",
	} {
		code, out, errs := a.command(t, append([]string{"replay"}, strings.Fields(args)...)...)
		if code != exitUsage {
			t.Errorf("replay %s: exit code %d\n%s%s", args, code, out, errs)
		}
	}
	code, out, _ := a.command(t, "replay", "--help")
	if code != exitDone || !strings.Contains(out, "REPLAY_USER") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
