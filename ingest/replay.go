package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
)

// past is the stream, as far as replays need it.
type past interface {
	Holds(ctx context.Context) (events.Held, error)
	// Read calls do for each event of a part of the stream, in the stream's
	// order, without those that replays published.
	Read(ctx context.Context, p events.Past, do func(e *events.Event) error) error
	// ServersIn lists the servers of which a part of the stream tells.
	ServersIn(ctx context.Context, p events.Past) ([]int64, error)
	// Republish puts events on the stream again, in their order: without an
	// error, all are on disk.
	Republish(ctx context.Context, events []*events.Event) error
}

// ReplayOrder is what is to be replayed.
type ReplayOrder struct {
	UserID int64 // SkyPANEL's
	// Since and Until are times of the stream; nil: all that it holds, and now.
	Since, Until *time.Time
	DryRun       bool
	By           string // who asked for it
}

// StartReplay makes a run that replays one SkyPANEL user's part of the stream
// and then pulls the user's servers, and hands it to [Runs.RunSyncs].
// [db.ErrNoUser], [ErrNoSyncs].
func (r *Runs) StartReplay(ctx context.Context, o ReplayOrder) (runID string, err error) {
	if r.Past == nil {
		return "", ErrNoSyncs
	}
	users, err := db.UsersByLink(ctx, r.DB, nil, []int64{o.UserID})
	if err != nil {
		return "", err
	}
	if len(users) == 0 {
		return "", db.ErrNoUser
	}
	run := r.newRun(db.RunReplay, o.By, o.DryRun)
	run.UserID = &o.UserID
	run.Progress.Replay = &db.ReplayPart{Since: o.Since, Until: o.Until}
	if _, _, err := db.StartRun(ctx, r.DB, run); err != nil {
		return "", err
	}
	return run.ID, r.hand(ctx, run)
}

// newRun is a run that this process works on.
func (r *Runs) newRun(kind, by string, dryRun bool) *db.Run {
	now := r.Now()
	return &db.Run{
		ID: db.NewRunID(), Kind: kind, State: db.RunRunning, Phase: db.PhaseQueued, DryRun: dryRun,
		RequestedBy: by, StartedAt: now, BeatAt: now, Worker: r.worker,
	}
}

// hand gives a run that was started to [Runs.RunSyncs], or ends it.
func (r *Runs) hand(ctx context.Context, run *db.Run) error {
	var err error
	select {
	case r.syncs <- run:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.stopped:
		err = ErrNoSyncs
	}
	now := r.Now()
	run.State, run.Phase, run.EndedAt, run.Note = db.RunFailed, db.PhaseEnded, &now, ErrNoSyncs.Error()
	return errors.Join(err, db.SaveRun(context.WithoutCancel(ctx), r.DB, run, now))
}

// window finds out, once, how far the stream reaches.
func (j *job) window(ctx context.Context) (events.Past, error) {
	part := j.run.Progress.Replay
	if part.Last == 0 {
		held, err := j.Past.Holds(ctx)
		if err != nil {
			return events.Past{}, err
		}
		part.Last = held.Last
		if part.Since != nil && part.Since.Before(held.Begins) {
			part.Limits = fmt.Sprintf("the stream holds nothing from before %s: what was heard earlier cannot be replayed (STREAM_MAX_AGE says how long it is kept)",
				held.Begins.UTC().Format(time.RFC3339))
		}
	}
	p := events.Past{Last: part.Last}
	if part.Since != nil {
		p.Since = *part.Since
	}
	if part.Until != nil {
		p.Until = *part.Until
	}
	return p, nil
}

// listReplay finds every server that ever had to do with the run's user, and
// asks VirtFusion for each: what it says ends the replay of that server. A
// server that is known to be gone, and of which the stream does not tell, is
// only decided again.
func (j *job) listReplay(ctx context.Context) error {
	part, err := j.window(ctx)
	if err != nil {
		return err
	}
	if err := j.connect(ctx); err != nil {
		return err
	}
	linked, err := db.ServersLinkedTo(ctx, j.DB, *j.run.UserID)
	if err != nil {
		return err
	}
	ids := make([]int64, len(linked))
	for i := range linked {
		ids[i] = linked[i].ServerID
	}
	told, err := j.toldOf(ctx, part, ids)
	if err != nil {
		return err
	}
	var again []db.RunItem
	asked := told
	for _, l := range linked {
		if _, found := slices.BinarySearch(told, l.ServerID); l.Gone && !found {
			again = append(again, db.RunItem{RunID: j.run.ID, ServerID: l.ServerID, Found: db.FoundBooks})
			continue
		}
		asked = append(asked, l.ServerID)
	}
	if err := db.StageMore(ctx, j.DB, j.run.ID, again); err != nil {
		return err
	}
	return j.pullThese(ctx, asked)
}

// toldOf lists the servers of which a part of the stream tells: under the
// user's owner in VirtFusion, whoever they belong to now, and the given ones.
func (j *job) toldOf(ctx context.Context, part events.Past, ids []int64) ([]int64, error) {
	part.Servers = ids
	if j.client != nil {
		owner, err := j.owner(ctx)
		if err != nil {
			return nil, err
		}
		if owner != 0 {
			part.Owners = []int64{owner}
		}
	}
	told, err := j.Past.ServersIn(ctx, part)
	if err != nil {
		return nil, fmt.Errorf("look what the stream tells: %w", err)
	}
	return told, nil
}

// pullThese asks VirtFusion for servers, and for what else is the user's, each
// by its id: an observation of the run ends the replay of each.
func (j *job) pullThese(ctx context.Context, ids []int64) error {
	if j.client == nil {
		var items []db.RunItem
		for _, id := range ids {
			items = append(items, db.RunItem{RunID: j.run.ID, ServerID: id, Found: db.FoundAsked})
		}
		if err := db.StageMore(ctx, j.DB, j.run.ID, items); err != nil {
			return err
		}
		return db.FailItems(ctx, j.DB, j.run.ID, ids, "VirtFusion could not be asked for it: see the run's problems")
	}
	listed, _, err := j.ofUser(ctx)
	if err != nil {
		return err
	}
	ids = append(ids, listed...)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	j.run.Progress.Total, j.run.Progress.Listed = int64(len(ids)), int64(len(ids))
	if len(ids) > singlePull { // nobody waits for that many
		ctx = virtfusion.InBackground(ctx)
	}
	for some := range slices.Chunk(ids, 4*looksAtOnce) {
		if err := j.lookAt(ctx, some, db.FoundAsked); err != nil {
			return err
		}
	}
	return j.save(ctx)
}

// replayed are the events of servers that the run replays, as it publishes
// them: for a preview. None in a run that is no replay.
func (j *job) replayed(ctx context.Context, ids []int64) ([]events.Event, error) {
	if j.run.Kind != db.RunReplay || len(ids) == 0 {
		return nil, nil
	}
	part, err := j.window(ctx)
	if err != nil {
		return nil, err
	}
	part.Servers = ids
	var news []events.Event
	err = j.Past.Read(ctx, part, func(e *events.Event) error {
		j.asReplay(e)
		news = append(news, *e)
		return e.Seal()
	})
	return news, err
}

// asReplay makes an event of the stream one of the run's. It is as old as it
// was.
func (j *job) asReplay(e *events.Event) { e.RunID, e.Replay = j.run.ID, true }

// replayAtOnce is how many events are published again together.
const replayAtOnce = 1000

// replay publishes the events of the staged servers again, in the order of the
// stream. After a crash it does so again, which is harmless. In a run that is no
// replay it does nothing.
func (j *job) replay(ctx context.Context) error {
	if j.run.Kind != db.RunReplay {
		return nil
	}
	part, err := j.window(ctx)
	if err != nil {
		return err
	}
	if part.Servers, err = j.stagedIDs(ctx); err != nil {
		return err
	}
	progress := j.run.Progress.Replay
	var some []*events.Event
	flush := func() error {
		if err := j.republish(ctx, some); err != nil {
			return err
		}
		progress.Events += int64(len(some))
		some = nil
		return j.saveNowAndThen(ctx)
	}
	err = j.Past.Read(ctx, part, func(e *events.Event) error {
		j.asReplay(e)
		if some = append(some, e); len(some) < replayAtOnce {
			return nil
		}
		return flush()
	})
	if err != nil {
		return fmt.Errorf("replay the stream: %w", err)
	}
	if err := flush(); err != nil {
		return err
	}
	return j.save(ctx)
}

// republish publishes events again, and tries on while the broker is away.
func (j *job) republish(ctx context.Context, some []*events.Event) error {
	if len(some) == 0 {
		return nil
	}
	pace := backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(publishPatience))
	return backoff.Retry(func() error {
		err := j.Past.Republish(ctx, some)
		if err != nil && !errors.Is(err, events.ErrNotDurable) {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(pace, ctx))
}

// tally counts what a replay did to a server's rows in all. In a run that is no
// replay it does nothing.
func (j *job) tally(ctx context.Context) error {
	if j.run.Kind != db.RunReplay || j.run.DryRun {
		return nil
	}
	return db.TallyReplay(ctx, j.DB, j.run.ID)
}

// remark adds to the note of a run that has ended what bounds it had.
func (j *job) remark() {
	part := j.run.Progress.Replay
	if part == nil || j.run.State == db.RunNeedsApproval {
		return
	}
	if j.run.State == db.RunSucceeded && !j.run.DryRun {
		j.run.Note = fmt.Sprintf("%d events replayed; ", part.Events) + j.run.Note
	}
	if part.Limits != "" {
		j.run.Note += "; " + part.Limits
	}
}
