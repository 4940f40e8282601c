// Package api is the HTTP interface for people and their programs: what
// serversync knows, why it decided what it did, and what operators may ask of
// it. It reads through package db; whatever changes billing rows it asks of
// the reconciler, through an interface of its own.
package api

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
)

// books is the reconciler, the only one who changes billing rows. Its methods
// return [ErrNotReady] while it is still starting.
type books interface {
	// Redecide decides servers that the inventory knows again from what is
	// stored, and returns in how many something changed.
	Redecide(ctx context.Context, serverIDs []int64) (changed int, err error)
	// VoidOrphanedCharges voids the pending charges of ours whose rows were
	// withdrawn, and returns how many.
	VoidOrphanedCharges(ctx context.Context) (voided int, err error)
}

// syncer works on one user's sync, in the background of this process. Its
// method returns [ErrNotReady] while it is still starting, and [ErrNoUser] for
// a user whom SkyPANEL does not have.
type syncer interface {
	// StartSync makes a run for a SkyPANEL user and begins it; joined: one was
	// running already, and this is its id. By is who asked for it.
	StartSync(ctx context.Context, userID int64, dryRun bool, by string) (runID string, joined bool, err error)
}

// Config is what an [API] is made of.
type Config struct {
	DB *bun.DB
	// Books changes billing rows.
	Books books
	// Syncs works on users' syncs; nil: not in this process, and they are
	// refused as not ready.
	Syncs syncer
	// SyncWait is how long an answer waits for the end of a user's sync; 0: 25 s.
	SyncWait time.Duration
	// Queue tells how many events the reconciler has not acknowledged yet, and
	// DeadLetters how many wait for a person. Nil: nobody knows.
	Queue, DeadLetters func(ctx context.Context) (int64, error)
	// AdminToken is the bearer token that opens the admin's routes. Not empty.
	AdminToken string
	// Checks are the doctor's, made anew at each call.
	Checks func(ctx context.Context) []Finding
	Now    func() time.Time
	Log    zerolog.Logger
}

// API answers the routes under /api.
type API struct {
	db       *bun.DB
	books    books
	syncs    syncer
	syncWait time.Duration
	queue    func(ctx context.Context) (int64, error)
	dead     func(ctx context.Context) (int64, error)
	auth     *authenticator
	checks   func(ctx context.Context) []Finding
	now      func() time.Time
	log      zerolog.Logger
	// stopping is closed when answers must not wait any longer.
	stopping chan struct{}
}

// New fails without an admin token: an empty one would let everybody in.
func New(c Config) (*API, error) {
	if c.AdminToken == "" {
		return nil, errors.New("the admin token is empty: set ADMIN_TOKEN, or leave it out to have one made")
	}
	return &API{
		db: c.DB, books: c.Books, syncs: c.Syncs, syncWait: cmp.Or(c.SyncWait, defaultSyncWait), queue: c.Queue, dead: c.DeadLetters,
		checks: c.Checks, auth: newAuthenticator(c.AdminToken, c.Now), now: c.Now, log: c.Log, stopping: make(chan struct{}),
	}, nil
}

// Register adds the routes.
func (a *API) Register(e *echo.Echo) {
	admin := e.Group("/api/admin", a.auth.require(roleAdmin))
	admin.GET("/servers/:id/timeline", a.timeline)
	admin.POST("/cleanup", a.cleanup)
	admin.GET("/doctor", a.examine)
	admin.POST("/servers/sync", a.startSweep)
	admin.POST("/users/:id/servers/sync", a.syncUser)
	admin.GET("/users/:id/servers/sync/status", a.syncStatus)
	admin.GET("/runs", a.listRuns)
	admin.GET("/runs/:id", a.showRun)
	admin.POST("/runs/:id/approve", a.approveRun)
	admin.GET("/overview", a.overview)
}
