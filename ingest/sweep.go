package ingest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/cenkalti/backoff/v4"

	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
)

const (
	// leadCheck is how often the lead is confirmed; leadTimeout how long that
	// may take.
	leadCheck   = 2 * time.Second
	leadTimeout = 5 * time.Second
	// jitter is the part of the interval by which sweeps come earlier or later,
	// so that several installations do not ask one VirtFusion at once for ever.
	jitter = 0.1
)

// RunSweeps does the sweeps that are asked for or due, until ctx ends. Of
// several processes one leads; when it dies, another goes on where it was.
func (r *Runs) RunSweeps(ctx context.Context) error {
	ticker := time.NewTicker(r.pollInterval)
	defer ticker.Stop()
	pause := backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0))
	for ctx.Err() == nil {
		err := r.lead(ctx)
		wait := 4 * r.pollInterval // somebody else leads
		if err != nil && ctx.Err() == nil {
			wait = pause.NextBackOff()
			r.Log.Warn().Err(err).Dur("retry_in", wait).Msg("no sweeping for now; trying again")
		} else {
			pause.Reset()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// lead takes the lead, if nobody has it, and works until it is lost or ctx
// ends.
func (r *Runs) lead(ctx context.Context) error {
	lead, err := db.TryLead(ctx, r.DB)
	if err != nil || lead == nil {
		return err
	}
	r.Log.Info().Msg("this process leads the sweeps")
	ctx, lose := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.confirm(ctx, lead, lose)
	}()
	err = r.workAsLeader(ctx)
	lose(nil)
	<-done
	give, cancel := context.WithTimeout(context.WithoutCancel(ctx), leadTimeout)
	defer cancel()
	if releaseErr := lead.Release(give); releaseErr != nil {
		r.Log.Debug().Err(releaseErr).Msg("the lead ended with its connection")
	}
	if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// confirm asks again and again whether the lead is still ours. A connection
// that is lost is a lead that is lost.
func (r *Runs) confirm(ctx context.Context, lead *db.Lead, lose context.CancelCauseFunc) {
	ticker := time.NewTicker(leadCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		check, cancel := context.WithTimeout(ctx, leadTimeout)
		err := lead.Check(check)
		cancel()
		if err != nil {
			lose(err)
			return
		}
	}
}

// workAsLeader does what is open or due until ctx ends.
func (r *Runs) workAsLeader(ctx context.Context) error {
	ticker := time.NewTicker(r.pollInterval)
	defer ticker.Stop()
	for {
		if err := r.Due(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Due starts a sweep or a proof when it is time, and works on every run, and the
// proof, that is open. It is for whoever leads.
func (r *Runs) Due(ctx context.Context) error {
	if r.Room != nil {
		if err := r.Room(); err != nil {
			return err
		}
	}
	abandoned, err := db.AbandonRuns(ctx, r.DB, r.Now().Add(-deadAfter), r.Now())
	if err != nil {
		return err
	}
	if len(abandoned) > 0 {
		r.Log.Warn().Strs("runs", abandoned).Msg("runs were given up: the processes that worked on them ended")
	}
	if err := r.clock(ctx); err != nil {
		return err
	}
	proof, err := r.proofDue(ctx)
	if err != nil {
		return err
	}
	open, err := db.OpenRuns(ctx, r.DB)
	if err != nil {
		return err
	}
	for i := range open {
		if err := r.take(ctx, &open[i]); err != nil {
			return err
		}
	}
	if proof == nil {
		return nil
	}
	return r.prove(ctx, proof)
}

// clock starts a sweep when the last one is older than the interval.
func (r *Runs) clock(ctx context.Context) error {
	if r.Interval <= 0 {
		return nil
	}
	last, err := db.LastSweep(ctx, r.DB, r.Now())
	if err != nil {
		return err
	}
	if last != nil {
		ago := r.Now().Sub(last.StartedAt)
		ahead := ago < -db.ClockSlack // its starter's clock was, and there is none since
		if last.State == db.RunRunning || !ahead && ago < r.until(last.ID) {
			return nil
		}
	}
	_, _, err = db.StartRun(ctx, r.DB, db.NewSweep(false, "clock", r.Now()))
	return err
}

// until is the time from one sweep to the next: the interval, somewhat more or
// less, the same whoever asks.
func (r *Runs) until(id string) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	part := float64(h.Sum32()%2001)/1000 - 1 // -1 to 1
	return r.Interval + time.Duration(part*jitter*float64(r.Interval))
}

// take works on a run.
func (r *Runs) take(ctx context.Context, run *db.Run) error {
	if err := db.TakeRun(ctx, r.DB, run, r.worker, r.Now()); err != nil {
		if errors.Is(err, db.ErrLostRun) {
			return nil // it ended meanwhile
		}
		return err
	}
	j := r.newJob(run)
	j.partly = run.ApprovedAt != nil && run.Phase == db.PhaseApplying
	if run.Phase == db.PhaseQueued {
		if err := j.begin(ctx); err != nil {
			return err
		}
	}
	err := j.work(virtfusion.InBackground(ctx), j.steps())
	if err == nil || ctx.Err() != nil || errors.Is(err, db.ErrLostRun) || passes(err) {
		return err
	}
	// Trying again would not help: the run ends, and says why.
	return j.breakOff(ctx, "the run broke off: "+err.Error()+": "+remedy(err))
}

// remedy is what to do about a fault for which trying again does not help.
func remedy(err error) string {
	if db.Classify(err) == db.FaultOfSetup {
		return db.Remedy(err)
	}
	return "report this line"
}

// passes reports that something is away, and the run goes on when it is back.
func passes(err error) bool {
	return errors.Is(err, events.ErrNotDurable) || events.Passing(err) || db.Classify(err) == db.FaultPassing
}

// breakOff ends a run in the middle. What it has not handed on, and would change
// billing, or waited for approval before, waits for a person.
func (j *job) breakOff(ctx context.Context, why string) error {
	j.problem(db.Problem{Code: "internal_error", Message: why})
	waiting, err := db.HoldBack(ctx, j.DB, j.run.ID)
	if err != nil {
		return err
	}
	if waiting == 0 {
		j.run.Preview = nil // nobody is to be asked
		return j.finish(ctx)
	}
	j.run.Preview, j.run.ApprovedBy, j.run.ApprovedAt = nil, "", nil
	j.run.State, j.run.Phase, j.run.Note = db.RunNeedsApproval, db.PhaseWaiting, fmt.Sprintf("it broke off, and %d servers wait for it: approve it to have it worked out and shown again", waiting)
	j.metrics.ended(j.run, j.Now())
	return j.save(ctx)
}

// begin prepares a sweep that nobody has worked on.
func (j *job) begin(ctx context.Context) error {
	if j.run.Kind != db.RunSweep {
		return nil
	}
	last, err := db.LastSlot(ctx, j.DB, j.run.ID)
	if err != nil {
		return err
	}
	j.run.Progress.Slot = last + 1
	j.run.Note = ""
	return nil
}

// steps are what is to be done for a run.
func (j *job) steps() []step {
	if j.run.ApprovedAt != nil {
		return []step{
			{db.PhaseApproved, j.approved},
			{db.PhaseAsking, j.askHeld},
			{db.PhasePreview, j.checkAnswers},
			{db.PhaseApplying, j.applyApproved},
			{db.PhaseFinishing, j.await},
		}
	}
	switch j.run.Kind {
	case db.RunReplay:
		return []step{
			{db.PhaseListing, j.listReplay},
			{db.PhasePreview, j.preview},
			{db.PhaseApplying, j.apply},
			{db.PhaseFinishing, j.await},
		}
	case db.RunBulk:
		return []step{
			{db.PhaseListing, j.listBulk},
			{db.PhasePreview, j.previewBulk},
			{db.PhaseApplying, j.applyBulk},
			{db.PhaseFinishing, j.await},
		}
	case db.RunUndo:
		return []step{
			{db.PhaseListing, j.listUndo},
			{db.PhasePreview, j.previewUndo},
			{db.PhaseApplying, j.applyUndo},
			{db.PhaseFinishing, j.await},
		}
	case db.RunSync:
		return []step{
			{db.PhaseListing, j.pull},
			{db.PhasePreview, j.preview},
			{db.PhaseApplying, j.apply},
			{db.PhaseFinishing, j.await},
		}
	}
	return []step{
		{db.PhaseListing, j.list},
		{db.PhaseAsking, j.missing},
		{db.PhaseReviewing, j.review},
		{db.PhasePreview, j.preview},
		{db.PhaseApplying, j.apply},
		{db.PhaseFinishing, j.await},
	}
}
