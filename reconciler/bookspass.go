package reconciler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"serversync/db"
	"serversync/events"
)

// The books pass notices, without any event, what changed on SkyPANEL's side:
// a row of its own that came late, a row that it switched off, a price, a
// customer, the billing mode, an operator's wish. It decides servers again
// from what is stored; where nothing changed, nothing is written.
const (
	passYoung = "young"
	passAll   = "all"

	youngInterval = time.Minute
	// youngAge is how long after we made a billing row SkyPANEL's own is
	// looked for each minute; later ones are found by the pass over all.
	youngAge = 24 * time.Hour
	// passCheck is how often it is looked whether a pass is due.
	passCheck = 5 * time.Second
)

// Never is the [Config.BooksInterval] that leaves out the pass over all servers.
const Never time.Duration = -1

// RunBooksPass runs the passes when they are due, until ctx ends. Of several
// processes, one runs each.
func (r *Reconciler) RunBooksPass(ctx context.Context) error {
	ticker := time.NewTicker(passCheck)
	defer ticker.Stop()
	pause := passingFaults()
	for {
		if err := r.BooksPassDue(ctx); err != nil && ctx.Err() == nil {
			wait := pause.NextBackOff()
			r.log.Warn().Err(err).Dur("retry_in", wait).Msg("the books could not be reviewed; trying again")
			sleep(ctx, wait)
		} else {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// BooksPassDue runs what is due: each minute young external rows, and each
// [Config.BooksInterval] everything.
func (r *Reconciler) BooksPassDue(ctx context.Context) error {
	young := func(ctx context.Context, after int64) ([]int64, error) {
		return db.YoungExternals(ctx, r.db, r.now().Add(-youngAge), after, events.BatchSize)
	}
	if err := r.pass(ctx, passYoung, youngInterval, young); err != nil {
		return err
	}
	if r.booksInterval == Never {
		return nil
	}
	all := func(ctx context.Context, after int64) ([]int64, error) {
		return db.ServersToReview(ctx, r.db, after, events.BatchSize)
	}
	return r.pass(ctx, passAll, r.booksInterval, all)
}

// pass claims one kind of pass, if it is due, and decides its servers batch by
// batch.
func (r *Reconciler) pass(ctx context.Context, name string, every time.Duration, next func(ctx context.Context, after int64) ([]int64, error)) error {
	now := r.now()
	claimed, err := db.ClaimPass(ctx, r.db, name, now, now.Add(-every))
	if err != nil || !claimed {
		return err
	}
	done := db.Pass{Name: name}
	for after := int64(0); ctx.Err() == nil; {
		ids, err := next(ctx, after)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			break
		}
		changed, err := r.Redecide(ctx, ids)
		if err != nil {
			return err
		}
		after = ids[len(ids)-1]
		done.Servers += int64(len(ids))
		done.Changed += int64(changed)
	}
	select {
	case <-ctx.Done():
		return nil // it stays unfinished, and is due again in its time
	default:
	}
	done.FinishedAt = new(r.now())
	if done.Changed > 0 {
		r.log.Info().Str("pass", name).Int64("servers", done.Servers).Int64("changed", done.Changed).Msg("reviewed the books")
	}
	return db.FinishPass(ctx, r.db, done)
}

// Redecide decides servers again from what is stored, in one transaction, and
// returns in how many something changed. While the database is away it waits. A
// server whose values PostgreSQL refuses is left out, and said so in the log.
func (r *Reconciler) Redecide(ctx context.Context, ids []int64) (changed int, err error) {
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	works := make([]work, 0, len(sorted))
	for _, id := range slices.Compact(sorted) {
		works = append(works, work{serverID: id, origin: originBooks})
	}
	return r.redecide(ctx, works)
}

func (r *Reconciler) redecide(ctx context.Context, works []work) (changed int, err error) {
	var decisions []decided
	err = r.insist(ctx, 0, func() (err error) {
		decisions, err = r.attempt(ctx, works)
		return err
	})
	switch {
	case err == nil:
		r.metrics.decided(decisions)
		r.report(decisions)
		for i := range decisions {
			if len(decisions[i].Lines) > 0 {
				changed++
			}
		}
		return changed, nil
	case classify(err) != classFault:
		return 0, fmt.Errorf("decide %d servers again: %w", len(works), err)
	case len(works) == 1:
		r.log.Error().Err(err).Int64("server", works[0].serverID).Msg("a server cannot be decided; the others go on. Report it with this line")
		return 0, nil
	}
	half := len(works) / 2
	first, err := r.redecide(ctx, works[:half])
	if err != nil {
		return first, err
	}
	second, err := r.redecide(ctx, works[half:])
	return first + second, err
}
