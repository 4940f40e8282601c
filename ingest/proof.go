package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
)

const (
	// proofEvery is how often everything is proved by itself; one that could not
	// see everything is tried again after proofAgain.
	proofEvery = 7 * 24 * time.Hour
	proofAgain = 6 * time.Hour
	// proofCheck is how often it is seen whether that is due.
	proofCheck = time.Minute
	// proofLooks is how often a server that differs is asked for by its id before
	// it counts as a mismatch; between two looks the reconciler applies what it has.
	proofLooks = 3
	// maxSuspects is how many servers that differ are looked at more closely.
	maxSuspects = 10_000
)

// proof is a proof in hand. Its job's run is not stored: it counts pages and
// calls, and collects problems.
type proof struct {
	*job
	p     *db.Proof
	begun time.Time
	// suspects are the servers that differed when they were last looked at.
	suspects map[int64]struct{}
	// asked are those for which VirtFusion answered when asked by their ids, filed
	// those that are among the mismatches.
	asked, filed map[int64]struct{}
}

// proofDue returns the proof that somebody has asked for, or that is due by the
// clock, and sees to it that a sweep goes before it; nil: there is none.
func (r *Runs) proofDue(ctx context.Context) (*db.Proof, error) {
	p, err := db.RunningProof(ctx, r.DB)
	if err != nil {
		return nil, err
	}
	if p == nil {
		due, err := r.proofIsDue(ctx)
		if err != nil || !due {
			return nil, err
		}
		started, _, err := db.StartProof(ctx, r.DB, db.NewProof("clock", r.Now()))
		if err != nil {
			return nil, err
		}
		p = &started
	}
	if p.SweepRun != "" {
		return p, nil
	}
	// What a sweep mends is no mismatch.
	if p.SweepRun, _, err = db.StartRun(ctx, r.DB, db.NewSweep(false, "proof "+p.ID, r.Now())); err != nil {
		return nil, err
	}
	p.Note = "a sweep goes first"
	return p, db.SaveProof(ctx, r.DB, p)
}

// proofIsDue looks, at most once a minute, whether the last complete proof, or the
// first sweep, was a week ago. Who never sweeps by the clock does not prove by it.
func (r *Runs) proofIsDue(ctx context.Context) (bool, error) {
	now := r.Now()
	if ago := now.Sub(r.proofLooked); r.Interval <= 0 || ago >= 0 && ago < proofCheck {
		return false, nil
	}
	r.proofLooked = now
	last, err := db.LastProof(ctx, r.DB, false)
	if err != nil || last != nil && within(now, last.StartedAt, proofAgain) {
		return false, err
	}
	if last != nil && last.State != db.ProofComplete {
		if last, err = db.LastProof(ctx, r.DB, true); err != nil {
			return false, err
		}
	}
	if last != nil {
		return !within(now, last.StartedAt, proofEvery), nil
	}
	first, err := db.FirstSweep(ctx, r.DB)
	return first != nil && !within(now, *first, proofEvery), err
}

// within reports that a moment was less than d ago. One that is still to come was
// a wrong clock's.
func within(now, at time.Time, d time.Duration) bool {
	ago := now.Sub(at)
	return ago >= 0 && ago < d
}

// prove does a proof whose sweep has ended. Should it break off it is begun anew:
// it changes nothing but what its fresh looks tell the reconciler.
func (r *Runs) prove(ctx context.Context, p *db.Proof) error {
	sweep, err := db.ReadRun(ctx, r.DB, p.SweepRun)
	if err == nil && sweep.State == db.RunRunning {
		return nil // it goes on later
	}
	if err != nil && db.Classify(err) == db.FaultPassing {
		return err
	}
	fresh := db.NewProof(p.RequestedBy, p.StartedAt)
	fresh.ID, fresh.SweepRun, fresh.Note = p.ID, p.SweepRun, "reads VirtFusion's pages in full"
	run := &db.Run{ID: p.ID, Kind: "proof"}
	w := &proof{job: r.newJob(run), p: fresh, begun: r.Now(), suspects: make(map[int64]struct{}), asked: make(map[int64]struct{}), filed: make(map[int64]struct{})}
	ctx = virtfusion.InBackground(ctx)
	ctx, span := w.span(ctx, "proof")
	err = w.work(ctx)
	endSpan(span, err)
	switch {
	case errors.Is(err, db.ErrProofEnded):
		return nil
	case err == nil || ctx.Err() != nil || passes(err):
		return err
	}
	// Trying again would not help: the proof ends, and says why.
	w.problem(db.Problem{Code: "internal_error", Message: "the proof broke off: " + err.Error() + ": " + remedy(err)})
	return w.end(ctx)
}

func (w *proof) work(ctx context.Context) error {
	if err := w.save(ctx); err != nil {
		return err
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	if w.client == nil {
		return w.finish(ctx)
	}
	unbooked, err := db.Unbooked(ctx, w.DB, nil)
	if err != nil {
		return err
	}
	if err := w.read(ctx); err != nil {
		return err
	}
	if err := w.unlisted(ctx); err != nil {
		return err
	}
	left, err := w.lookAgain(ctx)
	if err != nil {
		return err
	}
	if err := w.describe(ctx, left); err != nil {
		return err
	}
	if err := w.books(ctx, unbooked); err != nil {
		return err
	}
	return w.finish(ctx)
}

// read compares all pages, in the full form, with the inventory.
func (w *proof) read(ctx context.Context) error {
	s := &scan{job: w.job, full: true, compared: w.compare, saved: w.saveNowAndThen}
	err := s.all(ctx)
	w.p.VirtFusionTotal, w.p.Listed = w.run.Progress.Total, int64(len(w.seen))
	return err
}

// compare notes which servers of a page differ. What a later look shows counts.
func (w *proof) compare(ctx context.Context, _ int64, _ virtfusion.Page, _ bool, _ map[int64]*virtfusion.Server, listed []db.Listed) error {
	drift, err := db.DriftOf(ctx, w.DB, listed)
	if err != nil {
		return databaseError{err}
	}
	for i := range listed {
		delete(w.suspects, listed[i].ID)
	}
	for _, d := range drift {
		if d.Found != db.FoundAwaiting { // a person's
			w.suspects[d.ServerID] = struct{}{}
		}
	}
	return nil
}

// unlisted makes suspects of the servers that the pages did not show.
func (w *proof) unlisted(ctx context.Context) error {
	if w.run.Progress.Flawed {
		return nil // what was not read may be there
	}
	known, err := db.KnownIDs(ctx, w.DB)
	if err != nil {
		return err
	}
	var missing []int64
	for _, id := range known {
		if _, seen := w.seen[id]; !seen {
			missing = append(missing, id)
		}
	}
	if n := int64(len(missing)); n > 0 && (w.p.Listed == 0 || n > w.limit(w.p.Listed)) {
		w.problem(db.Problem{Code: "list_leaves_out", Message: fmt.Sprintf(
			"VirtFusion's list leaves out %d of the servers that we know, more than SWEEP_MAX_CHANGES allows to ask for: check what the API token may see, and sweep", n)})
		return nil
	}
	for _, id := range missing {
		w.suspects[id] = struct{}{}
	}
	return nil
}

// lookAgain asks for each suspect by its id, once the reconciler has applied what
// was on the stream. Those that still differ go onto the stream as observations,
// unless they are more than a run may change unasked, and are looked at again. It
// returns what VirtFusion last said of those that stay different.
func (w *proof) lookAgain(ctx context.Context) ([]events.Event, error) {
	ids := slices.Sorted(maps.Keys(w.suspects))
	if len(ids) > maxSuspects {
		w.problem(db.Problem{Code: "too_many_differ", Message: fmt.Sprintf(
			"%d servers differ, and only %d of them were looked at more closely: sweep, then prove again", len(ids), maxSuspects)})
		ids = ids[:maxSuspects]
	}
	published := false
	for look := 1; ; look++ {
		if len(ids) == 0 {
			return nil, nil
		}
		w.p.Note = fmt.Sprintf("looks again at %d servers that differ", len(ids))
		if err := w.save(ctx); err != nil {
			return nil, err
		}
		if applied, err := w.applied(ctx); err != nil || !applied {
			return nil, err
		}
		shown, err := w.askFor(ctx, ids)
		if err != nil {
			return nil, err
		}
		left, err := w.differing(ctx, shown)
		if err != nil {
			return nil, err
		}
		if agree := w.agreed(shown, left); published {
			w.p.Mended += agree
		} else {
			w.p.Moved += agree
		}
		if look == proofLooks || len(left) == 0 {
			return left, nil
		}
		if published = int64(len(left)) <= w.limit(max(w.p.Listed, 1)); published {
			if err := w.tellReconciler(ctx, left); err != nil {
				return nil, err
			}
		}
		ids = ids[:0]
		for i := range left {
			ids = append(ids, left[i].Server.ID)
		}
	}
}

// agreed are suspects no more, and returns how many.
func (w *proof) agreed(shown, left []events.Event) int64 {
	before := len(w.suspects)
	differ := make(map[int64]bool, len(left))
	for i := range left {
		differ[left[i].Server.ID] = true
	}
	for i := range shown {
		if id := shown[i].Server.ID; !differ[id] {
			delete(w.suspects, id)
		}
	}
	return int64(before - len(w.suspects))
}

// applied waits until the reconciler has acknowledged what is on the stream now.
// False, and a problem: it does not come on.
func (w *proof) applied(ctx context.Context) (bool, error) {
	if w.Stream == nil {
		return true, nil
	}
	ticker := time.NewTicker(w.pollInterval)
	defer ticker.Stop()
	var mark, before uint64
	marked := false
	for since := w.Now(); ; {
		last, done, err := w.Stream(ctx)
		switch {
		case err != nil: // it may come back
			w.log.Debug().Err(err).Msg("nobody says how far the reconciler is")
		case !marked:
			mark, marked = last, true
		}
		if err == nil && done >= mark {
			return true, nil
		}
		if err == nil && done != before {
			before, since = done, w.Now()
		}
		if w.Now().Sub(since) > w.stallTimeout {
			w.problem(db.Problem{Code: "reconciler_behind", Message: "the reconciler does not apply what is on the stream, so that nobody can say what differs: check that a process with the role reconcile runs, and /readyz"})
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-ticker.C:
		}
	}
}

// askFor asks VirtFusion for servers by their ids, several at once. One for which
// it does not answer is a problem.
func (w *proof) askFor(ctx context.Context, ids []int64) ([]events.Event, error) {
	answers, failures := make([]events.Event, len(ids)), make([]error, len(ids))
	var g errgroup.Group
	g.SetLimit(looksAtOnce)
	for i, id := range ids {
		g.Go(func() error {
			if ctx.Err() == nil {
				answers[i], failures[i] = w.look(ctx, id)
			}
			return nil
		})
	}
	_ = g.Wait() // each has its own
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var shown []events.Event
	for i, id := range ids {
		if failures[i] != nil {
			w.problem(problemOf(failures[i], id))
			continue
		}
		shown = append(shown, answers[i])
		w.asked[id] = struct{}{}
	}
	return shown, nil
}

// differing returns those observations with which the inventory does not agree.
// Changes that wait for approval are a person's, and left out; an end never waits.
func (w *proof) differing(ctx context.Context, shown []events.Event) ([]events.Event, error) {
	var left []events.Event
	for some := range slices.Chunk(shown, unseenAtOnce) {
		listed, ids := make([]db.Listed, 0, len(some)), make([]int64, len(some))
		for i := range some {
			ids[i] = some[i].Server.ID
			if some[i].Kind != events.KindDestroyed {
				listed = append(listed, listedOf(&some[i].Server))
			}
		}
		drift, err := db.DriftOf(ctx, w.DB, listed)
		if err != nil {
			return nil, err
		}
		known, err := db.ReadKnown(ctx, w.DB, ids)
		if err != nil {
			return nil, err
		}
		drifted := make(map[int64]bool, len(drift))
		for _, d := range drift {
			drifted[d.ServerID] = true
		}
		for i := range some {
			of, is := known[ids[i]]
			gone := some[i].Kind == events.KindDestroyed && is && of.Status != "gone"
			if gone || drifted[ids[i]] && of.AwaitingRun == "" {
				left = append(left, some[i])
			}
		}
	}
	return left, nil
}

// tellReconciler publishes what VirtFusion, asked for single servers, said: as a
// refetch does.
func (w *proof) tellReconciler(ctx context.Context, shown []events.Event) error {
	observed := make([]*events.Event, len(shown))
	for i := range shown {
		e := shown[i]
		e.Source, e.RunID = events.SourceRefetch, ""
		observed[i] = &e
	}
	return w.publish(ctx, observed)
}

// describe files the servers that stay different.
func (w *proof) describe(ctx context.Context, left []events.Event) error {
	for some := range slices.Chunk(left, unseenAtOnce) {
		ids := make([]int64, len(some))
		for i := range some {
			ids[i] = some[i].Server.ID
		}
		known, err := db.ReadKnown(ctx, w.DB, ids)
		if err != nil {
			return err
		}
		for i := range some {
			of, is := known[ids[i]]
			if !is {
				of.Status = "unknown"
			}
			w.file(differences(&some[i], &of)...)
		}
	}
	return nil
}

// file keeps what one server differs in.
func (w *proof) file(all ...db.Mismatch) {
	for _, m := range all {
		w.filed[m.ServerID] = struct{}{}
		w.p.Details = append(w.p.Details, m)
	}
	w.p.Mismatches = int64(len(w.filed))
}

// books files the servers of which SkyPANEL's billing rows said something else
// than the inventory before the proof, and still do once they are decided again.
func (w *proof) books(ctx context.Context, before []db.Mismatch) error {
	if len(before) == 0 {
		return nil
	}
	ids := make([]int64, 0, len(before))
	for i := range before {
		ids = append(ids, before[i].ServerID)
	}
	ids = slices.Compact(ids)
	if int64(len(ids)) <= w.limit(max(w.p.Listed, 1)) {
		if _, err := w.Books.RedecideFor(ctx, "", ids); err != nil {
			return fmt.Errorf("decide %d servers again: %w", len(ids), err)
		}
	}
	after, err := db.Unbooked(ctx, w.DB, ids)
	if err != nil {
		return err
	}
	for i := range after {
		if slices.ContainsFunc(before, func(b db.Mismatch) bool { return b.ServerID == after[i].ServerID && b.Field == after[i].Field }) {
			w.file(after[i])
		}
	}
	for _, id := range ids {
		if _, stays := w.filed[id]; !stays {
			w.p.Mended++
		}
	}
	return nil
}

// finish counts, and files the result.
func (w *proof) finish(ctx context.Context) error {
	if err := w.count(ctx); err != nil {
		return err
	}
	return w.end(ctx)
}

// end files the result.
func (w *proof) end(ctx context.Context) error {
	p := w.p
	p.Problems = w.run.Problems
	p.State = db.ProofComplete
	if len(p.Problems) > 0 {
		p.State = db.ProofIncomplete
	}
	p.Note = w.verdict()
	p.EndedAt = new(w.Now())
	p.Details = p.Details[:min(len(p.Details), db.MaxProofDetails)]
	if err := w.save(ctx); err != nil {
		return err
	}
	line := w.log.Info()
	switch {
	case p.Mismatches > 0:
		line = w.log.Error().Str("do", "look at GET /api/admin/proofs/"+p.ID)
	case p.State != db.ProofComplete:
		line = w.log.Warn()
	}
	line.Str("state", p.State).Str("by", p.RequestedBy).Int64("virtfusion_total", p.VirtFusionTotal).Int64("listed", p.Listed).Int64("known", p.Total).
		Int64("agree", p.Agree).Int64("awaiting", p.Awaiting).Int64("moved", p.Moved).Int64("mended", p.Mended).Int64("mismatches", p.Mismatches).
		Int64("calls", p.Calls).Int("problems", len(p.Problems)).Dur("took", w.Now().Sub(p.StartedAt)).Msg("a full proof has ended: " + p.Note)
	return nil
}

// count writes down how all servers stand, and whether VirtFusion counts as many.
func (w *proof) count(ctx context.Context) (err error) {
	p := w.p
	if p.KnownLeast, p.KnownMost, err = db.KnownWithin(ctx, w.DB, w.begun, w.Now()); err != nil {
		return err
	}
	if len(w.run.Problems) == 0 && !p.TotalAgrees() {
		ours := strconv.FormatInt(p.KnownLeast, 10)
		if p.KnownMost != p.KnownLeast {
			ours += " to " + strconv.FormatInt(p.KnownMost, 10)
		}
		w.file(db.Mismatch{Field: "total", Ours: ours, Theirs: strconv.FormatInt(p.VirtFusionTotal, 10)})
	}
	var compared []int64 // nil: all
	if len(w.run.Problems) > 0 {
		compared = idsIn(w.seen, w.asked)
	}
	return db.CountProof(ctx, w.DB, p, compared, idsIn(w.filed, w.suspects))
}

// idsIn are the ids in sets; never nil.
func idsIn(sets ...map[int64]struct{}) []int64 {
	ids := []int64{}
	for _, set := range sets {
		ids = slices.AppendSeq(ids, maps.Keys(set))
	}
	return ids
}

// verdict is the result in words.
func (w *proof) verdict() string {
	p := w.p
	words := fmt.Sprintf("all %d servers agree", p.Total)
	switch {
	case p.Mismatches == 1:
		words = fmt.Sprintf("1 mismatch; %d of %d servers agree", p.Agree, p.Total)
	case p.Mismatches > 0:
		words = fmt.Sprintf("%d mismatches; %d of %d servers agree", p.Mismatches, p.Agree, p.Total)
	case p.Awaiting > 0:
		words = fmt.Sprintf("%d of %d servers agree, the changes of %d wait for approval", p.Agree, p.Total, p.Awaiting)
	}
	if len(p.Problems) > 0 {
		words = fmt.Sprintf("it could not see everything: %d problems; %d mismatches among what it saw", len(p.Problems), p.Mismatches)
	}
	return words
}

// save writes how far the proof has come.
func (w *proof) save(ctx context.Context) error {
	w.mu.Lock()
	w.p.Calls += w.calls
	w.calls = 0
	w.mu.Unlock()
	progress := &w.run.Progress
	w.p.Page, w.p.Pages = progress.Page, progress.Pages
	w.saved = w.Now()
	return db.SaveProof(ctx, w.DB, w.p)
}

// saveNowAndThen is save, at most once a second.
func (w *proof) saveNowAndThen(ctx context.Context) error {
	if w.Now().Sub(w.saved) < time.Second {
		return nil
	}
	return w.save(ctx)
}
