package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/virtfusion"
)

// singlePull is up to how many servers of a user are each asked for by their
// ids in that user's sync. Of more, those that differ in what the list of the
// user shows are; the others are decided again from what is stored.
const singlePull = 50

// ErrNoSyncs means that this process does not work on syncs (yet).
var ErrNoSyncs = errors.New("this process is not ready to sync: try again in a moment")

// StartSync makes a run that syncs one SkyPANEL user's servers, and hands it to
// [Runs.RunSyncs]. Where one runs already it returns that one's id and joined.
// [db.ErrNoUser], [ErrNoSyncs].
func (r *Runs) StartSync(ctx context.Context, userID int64, dryRun bool, by string) (runID string, joined bool, err error) {
	users, err := db.UsersByLink(ctx, r.DB, nil, []int64{userID})
	if err != nil {
		return "", false, err
	}
	if len(users) == 0 {
		return "", false, db.ErrNoUser
	}
	now := r.Now()
	run := &db.Run{
		ID: db.NewRunID(), Kind: db.RunSync, State: db.RunRunning, Phase: db.PhaseQueued, DryRun: dryRun, UserID: &userID,
		RequestedBy: by, StartedAt: now, BeatAt: now, Worker: r.worker,
	}
	runID, joined, err = db.StartRun(ctx, r.DB, run)
	if err != nil || joined {
		return runID, joined, err
	}
	select {
	case r.syncs <- run:
		return runID, false, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.stopped:
		err = ErrNoSyncs
	}
	run.State, run.Phase, run.EndedAt, run.Note = db.RunFailed, db.PhaseEnded, &now, ErrNoSyncs.Error()
	return "", false, errors.Join(err, db.SaveRun(context.WithoutCancel(ctx), r.DB, run, now))
}

// RunSyncs works on the users' syncs that this process started, until ctx ends.
// Those in hand then end as incomplete.
func (r *Runs) RunSyncs(ctx context.Context) error {
	defer close(r.stopped)
	g, gctx := errgroup.WithContext(ctx)
	for {
		select {
		case <-gctx.Done():
			return g.Wait()
		case run := <-r.syncs:
			g.Go(func() error {
				j := r.newJob(run)
				err := j.work(gctx, j.steps())
				if err == nil || errors.Is(err, db.ErrLostRun) {
					return nil
				}
				finish, cancel := context.WithTimeout(context.WithoutCancel(gctx), leadTimeout)
				defer cancel()
				if err := j.breakOff(finish, "the sync broke off: "+err.Error()+": start it again"); err != nil {
					j.log.Warn().Err(err).Msg("a sync that broke off could not be ended; it will count as abandoned")
				}
				return nil
			})
		}
	}
}

// pull asks VirtFusion for all servers of the run's user: those of its list,
// and those that we know and the list omits.
func (j *job) pull(ctx context.Context) error {
	if err := j.connect(ctx); err != nil || j.client == nil {
		return err
	}
	ids, differ, err := j.ofUser(ctx)
	if err != nil {
		return err
	}
	j.run.Progress.Total, j.run.Progress.Listed = int64(len(ids)), int64(len(ids))
	if len(ids) > singlePull {
		var again []db.RunItem
		for _, id := range ids {
			if _, differs := slices.BinarySearch(differ, id); !differs {
				again = append(again, db.RunItem{RunID: j.run.ID, ServerID: id, Found: db.FoundAsked})
			}
		}
		if err := db.StageMore(ctx, j.DB, j.run.ID, again); err != nil {
			return err
		}
		ids = differ
	}
	for some := range slices.Chunk(ids, 4*looksAtOnce) {
		if err := j.lookAt(ctx, some, db.FoundAsked); errors.Is(err, errFatal) {
			break // the problem says why
		} else if err != nil {
			return err
		}
	}
	return j.save(ctx)
}

// ofUser returns the servers of the run's user, in order: the listed and the
// known ones; and those of them that differ from what is known.
func (j *job) ofUser(ctx context.Context) (ids, differ []int64, err error) {
	known, err := db.ServersOfUser(ctx, j.DB, *j.run.UserID)
	if err != nil {
		return nil, nil, err
	}
	owner, err := j.owner(ctx)
	if err != nil || owner == 0 {
		return known, known, err
	}
	list, err := ask(ctx, j, func(p panel) (virtfusion.UserServers, error) { return p.ServersOfUser(ctx, owner) })
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		j.problem(problemOf(err, 0))
		return known, known, nil
	}
	j.run.Progress.Scanned = true
	var listed []db.Listed
	shown := make(map[int64]bool, len(list.Servers))
	for i := range list.Servers {
		if id := list.Servers[i].ID; id > 0 && !shown[id] {
			shown[id] = true
			kept := keep(&list.Servers[i])
			listed = append(listed, listedOf(&kept))
			ids = append(ids, id)
		}
	}
	drift, err := db.DriftOf(ctx, j.DB, listed)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range drift {
		differ = append(differ, d.ServerID)
	}
	for _, id := range known {
		if !shown[id] {
			ids, differ = append(ids, id), append(differ, id)
		}
	}
	slices.Sort(ids)
	slices.Sort(differ)
	return ids, differ, nil
}

// owner is the VirtFusion user of the run's SkyPANEL user; 0, and a problem:
// there is none.
func (j *job) owner(ctx context.Context) (int64, error) {
	users, err := db.UsersByLink(ctx, j.DB, nil, []int64{*j.run.UserID})
	if err != nil {
		return 0, err
	}
	if len(users) == 1 && users[0].VirtfusionID != nil {
		return *users[0].VirtfusionID, nil
	}
	user, err := ask(ctx, j, func(p panel) (virtfusion.User, error) { return p.UserByExtRelation(ctx, *j.run.UserID) })
	switch {
	case err == nil:
		return user.ID, nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, virtfusion.ErrNotFound):
		j.problem(db.Problem{Code: "user_not_linked", Message: fmt.Sprintf(
			"SkyPANEL's user %d is nobody in VirtFusion: set users.virtfusion_id, or the user's external relation id in VirtFusion", *j.run.UserID)})
	default:
		j.problem(problemOf(err, 0))
	}
	return 0, nil
}
