package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	// defaultSyncWait is how long an answer waits for a user's sync.
	defaultSyncWait = 25 * time.Second
	// syncPoll is how often it is looked whether the sync has ended.
	syncPoll = 250 * time.Millisecond
	// shownErrors of a user's sync are in its answer.
	shownErrors = 1000
)

// startSweep answers POST /api/admin/servers/sync. It only makes the run: the
// process that leads works on it.
func (a *API) startSweep(c echo.Context) error {
	if err := readOptions(c, "dryRun"); err != nil {
		return err
	}
	dryRun, err := dryRunParam(c)
	if err != nil {
		return err
	}
	ctx, now := c.Request().Context(), a.now()
	id, joined, err := db.StartRun(ctx, a.db, db.NewSweep(dryRun, caller(c).name, now))
	if err != nil {
		return fault(err)
	}
	run, err := a.readRun(ctx, id)
	if err != nil {
		return fault(err)
	}
	message := "a sweep of all servers is started"
	if dryRun {
		message = "a dry run of a sweep of all servers is started"
	}
	if joined {
		message = "a sweep was running already: this is that one"
	}
	return accept(c, run, message)
}

// Synced is what became of one user's sync. Counts are of servers; in a dry
// run, what would become of them.
type Synced struct {
	SyncedServers  int64     `json:"syncedServers"`  // in step now
	NewServers     int64     `json:"newServers"`     // a billing row was made
	UpdatedServers int64     `json:"updatedServers"` // a billing row changed
	Errors         []Problem `json:"errors"`
	RunID          string    `json:"runId"`
	// Settling are new servers for which SkyPANEL's own billing row may still
	// come; the rows that they get later carry the run's id.
	Settling []Settling `json:"settling"`
	// Preview is what a dry run would do to the books; left out where it was none, or
	// a customer's own.
	Preview *Preview `json:"preview,omitempty"`
}

// Settling is a server that settles.
type Settling struct {
	ID    int64     `json:"id"` // VirtFusion's
	Name  string    `json:"name"`
	Until time.Time `json:"until"` // when it is decided at the latest
}

// syncUser answers POST /api/admin/users/:id/servers/sync.
func (a *API) syncUser(c echo.Context) error {
	userID, err := readUserID(c.Param("id"), "bad_user_id")
	if err != nil {
		return err
	}
	query, err := a.readSyncQuery(c)
	if err != nil {
		return err
	}
	query.userID = userID
	return a.sync(c, query)
}

// sync starts one user's sync, or joins the one that is running, and answers
// when it has ended or the wait is over.
func (a *API) sync(c echo.Context, query syncQuery) error {
	if a.syncs == nil {
		return fault(ErrNotReady)
	}
	ctx := c.Request().Context()
	id, _, err := a.syncs.StartSync(ctx, query.userID, query.dryRun, caller(c).name)
	if err != nil {
		return fault(err)
	}
	run, err := a.awaitRun(ctx, id, query.wait)
	if err != nil {
		return fault(err)
	}
	switch {
	case query.own && (run.State == db.RunRunning || run.State == db.RunNeedsApproval):
		return acceptOwn(c, run)
	case run.State == db.RunRunning:
		return accept(c, run, "the sync goes on: look at the run for its end")
	case run.State == db.RunNeedsApproval:
		return accept(c, run, "its changes are more than may be made unasked: POST /api/admin/runs/"+run.ID+"/approve lets them be made")
	}
	synced, err := a.toSynced(ctx, run)
	if err != nil {
		return fault(err)
	}
	if query.own {
		synced.Errors, synced.Preview = problemsForUser(synced.Errors), nil
	}
	return c.JSON(http.StatusOK, successBody{Success: true, Message: syncMessage(run, query.userID, synced.SyncedServers), Data: synced})
}

// syncQuery is what a request for a sync asks. Whose sync it is, the handler
// adds: own, that of whoever asks.
type syncQuery struct {
	userID int64
	own    bool
	dryRun bool
	wait   time.Duration
}

func (a *API) readSyncQuery(c echo.Context) (q syncQuery, err error) {
	if err := readOptions(c, "dryRun", "wait"); err != nil {
		return q, err
	}
	if q.dryRun, err = dryRunParam(c); err != nil {
		return q, err
	}
	q.wait = a.syncWait
	if wait := c.QueryParam("wait"); wait != "" {
		seconds, err := strconv.Atoi(wait)
		if err != nil || seconds < 0 || seconds > int(defaultSyncWait/time.Second) {
			return q, badRequest("bad_wait", "wait must be a number of seconds from 0 to 25")
		}
		q.wait = time.Duration(seconds) * time.Second
	}
	return q, nil
}

// awaitRun waits until a run is no longer running, for at most the given time,
// and returns it as it is then.
func (a *API) awaitRun(ctx context.Context, id string, wait time.Duration) (*Run, error) {
	timeout, ticker := time.NewTimer(wait), time.NewTicker(syncPoll)
	defer timeout.Stop()
	defer ticker.Stop()
	for {
		found, err := db.ReadRun(ctx, a.db, id)
		if err != nil {
			return nil, err
		}
		if found.State != db.RunRunning || wait == 0 {
			return a.toRun(ctx, &found)
		}
		select {
		case <-ticker.C:
			continue
		case <-timeout.C:
		case <-a.stopping:
		case <-ctx.Done():
		}
		return a.toRun(ctx, &found)
	}
}

func (a *API) readRun(ctx context.Context, id string) (*Run, error) {
	found, err := db.ReadRun(ctx, a.db, id)
	if err != nil {
		return nil, err
	}
	return a.toRun(ctx, &found)
}

// toSynced tells a run that has ended as the answer to a user's sync.
func (a *API) toSynced(ctx context.Context, run *Run) (*Synced, error) {
	s := &Synced{
		SyncedServers: run.Processed - run.Failed, NewServers: run.New, UpdatedServers: run.Updated,
		Errors: run.Problems, RunID: run.ID, Settling: []Settling{},
	}
	settling, err := db.SettlingOfRun(ctx, a.db, run.ID, shownErrors)
	if err != nil {
		return nil, err
	}
	for _, one := range settling {
		s.Settling = append(s.Settling, Settling{ID: one.ID, Name: one.Name, Until: one.Until.UTC()})
	}
	if p := run.Preview; run.DryRun && p != nil {
		s.Preview = p
		s.SyncedServers, s.NewServers, s.UpdatedServers = p.None, p.Create, p.Change+p.Move+p.End
	}
	if run.Failed <= shownFailures {
		return s, nil
	}
	failures, err := db.FailuresOfRuns(ctx, a.db, []string{run.ID}, shownErrors)
	if err != nil {
		return nil, err
	}
	for _, f := range failures[shownFailures:] {
		s.Errors = append(s.Errors, failureOf(f))
	}
	return s, nil
}

// syncMessage says how a user's sync ended. Only one that saw and did everything
// is called a success.
func syncMessage(run *Run, userID, synced int64) string {
	switch {
	case run.State == db.RunFailed:
		return fmt.Sprintf("The servers of user %d could not be synchronized: errors says why", userID)
	case run.State != db.RunSucceeded:
		return fmt.Sprintf("Synchronized %d servers for user %d, but not everything could be seen or done: errors says what", synced, userID)
	case run.DryRun:
		return fmt.Sprintf("Dry run: nothing was changed for user %d", userID)
	}
	return fmt.Sprintf("Successfully synchronized %d servers for user %d", synced, userID)
}
