package ingest

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/events"
)

const (
	// looksAtOnce is how many servers are asked for side by side.
	looksAtOnce = 4
	// unseenAtOnce is how many servers that were not listed are read together.
	unseenAtOnce = 500
)

// missing looks for servers that the listing left out. That proves nothing:
// VirtFusion is asked for each by its id, and only its own "not found" is an
// end. When so many are missing that a person has to approve in any case they
// are not asked for before that.
func (j *job) missing(ctx context.Context) error {
	p := &j.run.Progress
	if !p.Whole {
		return nil // what was not read may be there
	}
	if j.client == nil { // the run was taken up again
		if err := j.connect(ctx); err != nil || j.client == nil {
			return err
		}
	}
	n, err := db.CountUnseen(ctx, j.DB, p.Since)
	if err != nil {
		return err
	}
	p.Missing = n
	if n == 0 {
		return nil
	}
	ask := p.Listed > 0 && n <= j.limit(p.Listed)
	j.log.Info().Int64("servers", n).Bool("asked", ask).Msg("VirtFusion's list left out servers that we know")
	for after := int64(0); ; {
		ids, err := db.Unseen(ctx, j.DB, p.Since, after, unseenAtOnce)
		if err != nil || len(ids) == 0 {
			return err
		}
		after = ids[len(ids)-1]
		if ask {
			if err = j.lookAt(ctx, ids, db.FoundOverlooked); errors.Is(err, errFatal) {
				return nil // what was not asked for stays as it is
			}
		} else {
			items := make([]db.RunItem, len(ids))
			for i, id := range ids {
				items[i] = db.RunItem{RunID: j.run.ID, ServerID: id, Found: db.FoundMissing}
			}
			err = db.StageItems(ctx, j.DB, j.run.ID, items)
		}
		if err != nil {
			return err
		}
	}
}

// lookAt asks VirtFusion for servers by their ids, several at once, and stages
// the answers. A server that it does not answer for has failed.
func (j *job) lookAt(ctx context.Context, ids []int64, found string) error {
	var (
		mu     sync.Mutex
		items  []db.RunItem
		seen   []int64
		failed []db.Completion

		problems []db.Problem
	)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(looksAtOnce)
	for _, id := range ids {
		g.Go(func() error {
			e, err := j.look(gctx, id)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil && gctx.Err() != nil {
				return nil // another one's fatal error ended this question
			}
			if err != nil {
				problem := problemOf(err, id)
				problems = append(problems, problem)
				items = append(items, db.RunItem{RunID: j.run.ID, ServerID: id, Found: found})
				failed = append(failed, db.Completion{RunID: j.run.ID, ServerID: id, Outcome: db.OutcomeFailed, Error: problem.Message})
				if fatal(err) {
					return err
				}
				return nil
			}
			item, err := j.item(found, &e)
			if err != nil {
				return err
			}
			items = append(items, item)
			if e.Kind != events.KindDestroyed {
				seen = append(seen, id)
			}
			return nil
		})
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, p := range problems {
		j.problem(p)
	}
	if err != nil && !fatal(err) {
		return err
	}
	if found != db.FoundAsked { // a user's own sync asks for all of them
		j.run.Progress.Drift += int64(len(items) - len(failed))
	}
	if err := db.StageItems(ctx, j.DB, j.run.ID, items); err != nil {
		return err
	}
	if err := db.CompleteItems(ctx, j.DB, failed); err != nil {
		return err
	}
	if err := db.MarkSeen(ctx, j.DB, seen, j.Now()); err != nil {
		return err
	}
	if err := j.save(ctx); err != nil {
		return err
	}
	if fatal(err) {
		return errFatal
	}
	return nil
}

// errFatal: VirtFusion answers no question of ours any more; the run's problems
// say why.
var errFatal = errors.New("VirtFusion refuses")

// askHeld asks VirtFusion for the servers that were missing when the run was
// put to a person, now that asking may end them.
func (j *job) askHeld(ctx context.Context) error {
	if err := j.connect(ctx); err != nil {
		return err
	}
	return j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		var ids []int64
		for i := range items {
			if items[i].Found == db.FoundMissing {
				ids = append(ids, items[i].ServerID)
			}
		}
		if len(ids) == 0 {
			return nil
		}
		if j.client == nil {
			return db.FailItems(ctx, j.DB, j.run.ID, ids, "VirtFusion could not be asked for it: see the run's problems, and sweep again")
		}
		err := j.lookAt(ctx, ids, db.FoundOverlooked)
		if errors.Is(err, errFatal) {
			j.client = nil
			err = nil
		}
		if err != nil {
			return err
		}
		// What could not be asked for has failed.
		return db.FailUnasked(ctx, j.DB, j.run.ID, ids, "VirtFusion could not be asked for it: see the run's problems, and sweep again")
	})
}
