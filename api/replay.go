package api

import (
	"context"
	"errors"
	"time"

	"github.com/labstack/echo/v4"
)

// ReplayOrder is what is to be replayed.
type ReplayOrder struct {
	UserID int64 // SkyPANEL's
	// Since and Until are times of the stream; nil: all that it holds, and now.
	Since, Until *time.Time
	DryRun       bool
	By           string // who asked for it
}

// replayer works on replays, in the background of this process. Its method
// returns what [syncer]'s does.
type replayer interface {
	StartReplay(ctx context.Context, o ReplayOrder) (runID string, err error)
}

// replayUser answers POST /api/admin/users/:id/servers/replay.
func (a *API) replayUser(c echo.Context) error {
	order, err := a.readReplay(c)
	if err != nil {
		return err
	}
	if a.replays == nil {
		return fault(ErrNotReady)
	}
	id, err := a.replays.StartReplay(c.Request().Context(), order)
	if err != nil {
		return fault(err)
	}
	run, err := a.readRun(c.Request().Context(), id)
	if err != nil {
		return fault(err)
	}
	return accept(c, run, "the replay is started: look at the run for its end")
}

func (a *API) readReplay(c echo.Context) (o ReplayOrder, err error) {
	o.By = caller(c).name
	if o.UserID, err = readUserID(c.Param("id"), "bad_user_id"); err != nil {
		return o, err
	}
	var since, until string
	if err := readBody(c, map[string]any{"since": &since, "until": &until, "dryRun": &o.DryRun}); err != nil {
		return o, err
	}
	if o.DryRun, err = alsoDryRun(c, o.DryRun); err != nil {
		return o, err
	}
	now := a.now()
	if o.Since, err = readMoment(since, now); err != nil {
		return o, badRequest("bad_since", "since must be a time such as 2026-03-01T12:00:00Z, or how long ago, such as 720h")
	}
	if o.Until, err = readMoment(until, now); err != nil {
		return o, badRequest("bad_until", "until must be a time such as 2026-03-01T12:00:00Z, or how long ago, such as 1h")
	}
	switch {
	case o.Since != nil && o.Since.After(now):
		return o, badRequest("bad_since", "since is in the future: nothing was heard from then on yet")
	case o.Since != nil && o.Until != nil && !o.Until.After(*o.Since):
		return o, badRequest("bad_until", "until must be later than since")
	}
	return o, nil
}

var errNoMoment = errors.New("neither a time nor a duration")

// readMoment reads a time, or how long before now it was; nil: empty.
func readMoment(value string, now time.Time) (*time.Time, error) {
	if value == "" {
		return nil, nil //nolint:nilnil // no bound is an answer
	}
	if t, err := time.Parse(time.RFC3339, value); err == nil && t.Year() >= 1970 {
		return new(t.UTC()), nil
	}
	ago, err := time.ParseDuration(value)
	if err != nil || ago <= 0 {
		return nil, errNoMoment
	}
	return new(now.Add(-ago).UTC()), nil
}
