package reconciler

import (
	"context"
	"fmt"
	"slices"

	"serversync/db"
)

// runsOf are the runs whose items of a server its decision completes: those
// whose observations are among its news, be they overtaken by others in the
// batch, and the one on whose behalf it is decided.
func runsOf(w *work) []string {
	var runs []string
	add := func(id string) {
		if id != "" && !slices.Contains(runs, id) {
			runs = append(runs, id)
		}
	}
	if w.hold {
		return nil // its item waits as well
	}
	add(w.runID)
	for i := range w.news {
		if !w.news[i].Replay { // the observation that ends the replay completes its item
			add(w.news[i].RunID)
		}
	}
	return runs
}

// fail completes the items of works that could not be decided, and says what to
// do about it.
func (r *Reconciler) fail(ctx context.Context, w *work, cause error, remedy string) error {
	var completions []db.Completion
	for _, runID := range runsOf(w) {
		completions = append(completions, db.Completion{
			RunID: runID, ServerID: w.serverID, Outcome: outcomeFailed, Error: oneLine(cause.Error()) + ": " + remedy,
		})
	}
	if len(completions) == 0 {
		return nil
	}
	err := r.insist(ctx, 1, func() error {
		ctx, cancel := finishing(ctx)
		defer cancel()
		return db.CompleteItems(ctx, r.db, completions)
	})
	switch classify(err) {
	case classFine:
		return nil
	case classFault, classHopeless:
		r.log.Error().Err(err).Int64("server", w.serverID).Msg("a run's item could not be completed; the run will say that it is incomplete")
		return nil
	default:
		return fmt.Errorf("record that server %d could not be decided: %w", w.serverID, err)
	}
}

// outcomeFailed is the outcome of an item whose server could not be decided.
const outcomeFailed = "failed"
