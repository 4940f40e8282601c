package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"serversync/db"
	"serversync/events"
)

// publishPatience is how long the broker may be away.
const publishPatience = 2 * time.Minute

// apply hands the findings to the reconciler. When a person has to approve,
// those that change billing are held, and only the others go.
func (j *job) apply(ctx context.Context) error {
	if j.run.DryRun {
		return db.CloseItems(ctx, j.DB, j.run.ID)
	}
	hold := j.run.Preview != nil && j.run.Preview.Asks != "" && j.run.ApprovedAt == nil
	if hold {
		if err := j.hold(ctx); err != nil {
			return err
		}
	}
	// What was marked as sent before a crash may not have been: again is harmless.
	if err := db.MoveAll(ctx, j.DB, j.run.ID, db.ItemSent, db.ItemStaged); err != nil {
		return err
	}
	if err := j.replay(ctx); err != nil {
		return err
	}
	return j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		if err := j.send(ctx, items); err != nil {
			return err
		}
		return j.save(ctx)
	})
}

// hold makes the servers whose billing would change wait.
func (j *job) hold(ctx context.Context) error {
	return j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		var ids []int64
		var news []events.Event
		for i := range items {
			e, err := eventOf(&items[i])
			if err != nil {
				return err
			}
			if items[i].Effect == db.EffectNone || j.mayEnd(&items[i], e) {
				continue
			}
			ids = append(ids, items[i].ServerID)
			if e != nil && e.Kind != events.KindDestroyed {
				news = append(news, *e)
			}
		}
		if len(ids) == 0 {
			return nil
		}
		for i := range news {
			if err := news[i].Seal(); err != nil {
				return fmt.Errorf("hold a finding: %w", err)
			}
		}
		// First the servers, then the items: after a crash in between they are held again.
		if err := j.Books.Hold(ctx, j.run.ID, ids, news); err != nil {
			return fmt.Errorf("hold the findings: %w", err)
		}
		return db.MoveItems(ctx, j.DB, j.run.ID, ids, db.ItemStaged, db.ItemHeld)
	})
}

// mayEnd: a server that VirtFusion, asked, does not know is not billed any longer
// because other changes wait; unless ends alone are more than the cap allows.
func (j *job) mayEnd(item *db.RunItem, e *events.Event) bool {
	p := j.run.Preview
	return item.Effect == db.EffectEnd && e != nil && e.Kind == events.KindDestroyed && p.Missing == 0 && p.End <= p.Limit
}

// send publishes observations, and has the servers without one decided again.
func (j *job) send(ctx context.Context, items []db.RunItem) error {
	var again, sent []int64
	var observed []*events.Event
	for i := range items {
		e, err := eventOf(&items[i])
		switch {
		case err != nil:
			return err
		case items[i].Effect == "": // nobody has looked what it would do
		case e == nil:
			again = append(again, items[i].ServerID)
		default:
			if items[i].Effect == db.EffectNone {
				e.Expected = events.ExpectNothing
			}
			sent, observed = append(sent, items[i].ServerID), append(observed, e)
		}
	}
	// Within the cap: what waited for another run need not wait any more.
	if err := db.Claim(ctx, j.DB, j.run.ID, sent); err != nil {
		return err
	}
	// Marked first, so that nobody waits for the reconciler's locks on them.
	if err := db.MoveItems(ctx, j.DB, j.run.ID, sent, db.ItemStaged, db.ItemSent); err != nil {
		return err
	}
	if err := j.publish(ctx, observed); err != nil || len(again) == 0 {
		return err
	}
	if _, err := j.Books.RedecideFor(ctx, j.run.ID, again); err != nil {
		return fmt.Errorf("decide %d servers again: %w", len(again), err)
	}
	// What a run found and cannot be decided has failed, or it would never end.
	return db.FailItems(ctx, j.DB, j.run.ID, again, "the server could not be decided: the log of the process with the role sweep says why")
}

// publish puts observations on the stream, and tries again while the broker is
// away.
func (j *job) publish(ctx context.Context, observed []*events.Event) error {
	pace := backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(publishPatience))
	return backoff.Retry(func() error {
		err := j.Publisher.PublishAll(ctx, observed)
		if err != nil && !errors.Is(err, events.ErrNotDurable) {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(pace, ctx))
}

// await waits until the reconciler has completed what was sent.
func (j *job) await(ctx context.Context) error {
	ticker := time.NewTicker(j.pollInterval)
	defer ticker.Stop()
	last, since := int64(-1), j.Now()
	for {
		open, err := db.CountOpen(ctx, j.DB, j.run.ID, db.ItemSent)
		if err != nil {
			return err
		}
		if open == 0 {
			return j.finish(ctx)
		}
		if open != last {
			last, since = open, j.Now()
		} else if j.Now().Sub(since) > j.stallTimeout {
			j.problem(db.Problem{Code: "reconciler_behind", Message: fmt.Sprintf(
				"the reconciler has not completed %d servers: check that a process with the role reconcile runs, and /readyz", open)})
			return j.finish(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// finish says how the run ended, or puts it to a person.
func (j *job) finish(ctx context.Context) error {
	r := j.run
	if err := j.tally(ctx); err != nil {
		return err
	}
	totals, err := db.TotalsOfRuns(ctx, j.DB, []string{r.ID})
	if err != nil {
		return err
	}
	t := totals[r.ID]
	open := t.Expected - t.Processed
	if r.DryRun { // which processes nothing
		open = 0
	}
	switch {
	case r.Preview != nil && r.Preview.Asks != "" && r.ApprovedAt == nil && !r.DryRun:
		r.State, r.Phase, r.Note = db.RunNeedsApproval, db.PhaseWaiting, r.Preview.Asks
	case r.ApprovedAt == nil && (r.Kind == db.RunSweep && r.Progress.Page == 0 || r.Kind == db.RunSync && j.sawNothing()):
		r.State, r.Phase, r.Note = db.RunFailed, db.PhaseEnded, "VirtFusion showed nothing"
	case len(r.Problems) > 0 || t.Failed > 0 || open > 0:
		r.State, r.Phase, r.Note = db.RunIncomplete, db.PhaseEnded, "it could not see or do everything: "+counted(max(int64(len(r.Problems)), t.Failed, open), "problem")
	default:
		r.State, r.Phase, r.Note = db.RunSucceeded, db.PhaseEnded, fmt.Sprintf("%s listed, %d new, %d updated", counted(r.Progress.Listed, "server"), t.New, t.Updated)
	}
	j.remark()
	if r.State != db.RunNeedsApproval {
		r.EndedAt = new(j.Now())
		if err := db.Release(ctx, j.DB, r.ID); err != nil {
			return err
		}
	}
	if err := j.save(ctx); err != nil {
		return err
	}
	j.tell(&t)
	return nil
}

// sawNothing: the one call that a user's sync rests on went wrong.
func (j *job) sawNothing() bool { return !j.run.Progress.Scanned }

// tell writes the run's one line.
func (j *job) tell(t *db.RunTotals) {
	r := j.run
	line := j.log.Info()
	switch {
	case r.State == db.RunNeedsApproval:
		line = j.log.Error().Str("do", "look at it with `serversync status`, then `serversync sweep --approve "+r.ID+"`")
	case r.State != db.RunSucceeded:
		line = j.log.Warn()
	}
	j.metrics.ended(r, j.Now())
	p := r.Preview
	if p == nil {
		p = new(db.RunPreview)
	}
	line.Str("state", r.State).Str("by", r.RequestedBy).Bool("dry_run", r.DryRun).
		Int64("listed", r.Progress.Listed).Int64("drift", r.Progress.Drift).Int64("missing", r.Progress.Missing).Int64("reviewed", r.Progress.Reviewed).
		Int64("new", t.New).Int64("updated", t.Updated).Int64("unchanged", t.Unchanged).Int64("failed", t.Failed).Int64("held", t.Held).
		Int64("would_create", p.Create).Int64("would_change", p.Change).Int64("would_move", p.Move).Int64("would_end", p.End).
		Str("list_monthly", p.ListMonthly.StringFixed(2)).Str("effective_monthly", p.EffectiveMonthly.StringFixed(2)).
		Int64("calls", r.Progress.Calls).Int("problems", len(r.Problems)).Dur("took", j.Now().Sub(r.StartedAt)).
		Msg(sentence(r))
}

func sentence(r *db.Run) string {
	switch r.State {
	case db.RunNeedsApproval:
		return "a run waits for a person's approval: " + r.Note
	case db.RunSucceeded:
		return "a run is complete: " + r.Note
	default:
		return "a run is not complete: " + r.Note
	}
}

// counted is "1 server" or "3 servers".
func counted(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
