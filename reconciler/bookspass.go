package reconciler

import (
	"context"
	"slices"
	"time"

	"serversync/db"
	"serversync/events"
)

// What changes on SkyPANEL's side, a row of its own that came late or one that
// it switched off, a price, a customer, the billing mode, an operator's wish, is
// no event. Sweeps review all servers for it, through [Reconciler.Preview] and
// [Reconciler.RedecideFor]; the books pass reviews the young ones each minute,
// because while one of ours is young SkyPANEL's own row may still turn up, and
// both would be charged.
const (
	passYoung = "young"

	youngInterval = time.Minute
	// youngAge is how long after we made a billing row SkyPANEL's own is
	// looked for each minute; later ones are found by sweeps.
	youngAge = 24 * time.Hour
	// passCheck is how often it is looked whether a pass is due.
	passCheck = 5 * time.Second
)

// RunBooksPass runs the pass when it is due, until ctx ends. Of several
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

// BooksPassDue reviews young external servers, if that is due, and decides again
// those whose decision would change something. One that is interrupted stays
// unfinished, and is due again in its time.
func (r *Reconciler) BooksPassDue(ctx context.Context) error {
	now := r.now()
	claimed, err := db.ClaimPass(ctx, r.db, passYoung, now, now.Add(-youngInterval))
	if err != nil || !claimed {
		return err
	}
	done := db.Pass{Name: passYoung}
	found, err := r.review(ctx, &done)
	if err != nil {
		return err
	}
	ids, err := r.withinCap(ctx, &found)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(ids, events.BatchSize) {
		if ctx.Err() != nil {
			break
		}
		changed, err := r.Redecide(ctx, batch)
		if err != nil {
			return err
		}
		done.Changed += int64(changed)
	}
	if ctx.Err() != nil {
		return nil // it stays unfinished
	}
	done.FinishedAt = new(r.now())
	if done.Changed > 0 {
		r.log.Info().Str("pass", done.Name).Int64("servers", done.Servers).Int64("changed", done.Changed).Msg("reviewed the books")
	}
	return db.FinishPass(ctx, r.db, done)
}

// reviewed are the servers that a pass would change, by what it would do.
type reviewed struct {
	urgent  []int64 // it is gone, or a row is taken back
	billing []int64 // any other change of billing
	words   []int64 // nothing of billing
}

// review previews young external servers, and counts them in done.
func (r *Reconciler) review(ctx context.Context, done *db.Pass) (reviewed, error) {
	var found reviewed
	since := r.now().Add(-youngAge)
	for after := int64(0); ctx.Err() == nil; {
		ids, err := db.YoungExternals(ctx, r.db, since, after, previewBatch)
		if err != nil {
			return found, err
		}
		if len(ids) == 0 {
			break
		}
		outlooks, err := r.preview(ctx, worksFor(ids, nil))
		if err != nil {
			return found, err
		}
		for i := range outlooks {
			switch o := &outlooks[i]; {
			case !o.Changes:
			case o.urgent:
				found.urgent = append(found.urgent, o.ServerID)
			case o.waits:
			case o.Effect == db.EffectNone:
				found.words = append(found.words, o.ServerID)
			default:
				found.billing = append(found.billing, o.ServerID)
			}
		}
		after = ids[len(ids)-1]
		done.Servers += int64(len(ids))
	}
	return found, nil
}

// withinCap are the servers that the pass may decide, in order. Where there are
// too many whose billing would change, those are left for the sweep, which asks
// a person; what ends waits for nobody.
func (r *Reconciler) withinCap(ctx context.Context, found *reviewed) ([]int64, error) {
	ids := slices.Concat(found.urgent, found.words)
	if len(found.billing) > 0 && r.maxChanges != nil {
		fleet, err := db.InventorySize(ctx, r.db)
		if err != nil {
			return nil, err
		}
		if limit := r.maxChanges(fleet); int64(len(found.billing)) > limit {
			r.log.Warn().Int("changes", len(found.billing)).Int64("limit", limit).Int64("fleet", fleet).
				Msg("something changed the billing of more servers at once than may change without a person's word; they were left as they are. " +
					"The next sweep shows what would change and asks: serversync sweep")
			slices.Sort(ids)
			return ids, nil
		}
	}
	ids = append(ids, found.billing...)
	slices.Sort(ids)
	return ids, nil
}
