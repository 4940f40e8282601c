package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"serversync/events"
)

// Redecide decides servers again from what is stored, in one transaction, and
// returns in how many something changed. While the database is away it waits. A
// server whose values PostgreSQL refuses is left out, and said so in the log.
func (r *Reconciler) Redecide(ctx context.Context, ids []int64) (changed int, err error) {
	works := worksFor(ids, nil)
	for i := range works {
		works[i].origin = originBooks
	}
	return r.redecide(ctx, works)
}

// RedecideFor is [Reconciler.Redecide] on behalf of a run that a person approved
// or that is within its cap: servers that wait for approval wait no longer, what
// is written carries the run's id, and the run's items of these servers are
// completed, as failed where a server could not be decided. Servers that the
// inventory does not know are unchanged. Each batch of servers is one
// transaction.
func (r *Reconciler) RedecideFor(ctx context.Context, runID string, ids []int64) (changed int, err error) {
	works := worksFor(ids, nil)
	for i := range works {
		works[i].runID, works[i].origin = runID, originBooks
	}
	for batch := range slices.Chunk(works, events.BatchSize) {
		n, err := r.redecide(ctx, batch)
		changed += n
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
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
		return 0, r.fail(ctx, &works[0], err, "the service's log has the line to report")
	}
	half := len(works) / 2
	first, err := r.redecide(ctx, works[:half])
	if err != nil {
		return first, err
	}
	second, err := r.redecide(ctx, works[half:])
	return first + second, err
}

// worksFor is the work to decide the given servers and those of the news, by
// their ids.
func worksFor(ids []int64, news []events.Event) []work {
	works := group(news)
	for _, id := range ids {
		works = append(works, work{serverID: id})
	}
	slices.SortStableFunc(works, func(a, b work) int { return cmp.Compare(a.serverID, b.serverID) })
	return slices.CompactFunc(works, func(a, b work) bool { return a.serverID == b.serverID })
}
