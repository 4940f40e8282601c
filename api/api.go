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
	"github.com/labstack/echo/v4/middleware"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/db"
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
	// ResolveCharge writes what a person has found out about a first charge:
	// whether its credit was taken, and by which record of VirtFusion's. It returns
	// the charge as it is then, [db.ErrNoCharge] or [db.ErrChargeState].
	ResolveCharge(ctx context.Context, id int64, taken bool, creditID, by string) (db.FirstCharge, error)
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
	// Replays works on replays, Bulks on bulk actions; nil: not in this process,
	// and they are refused as not ready.
	Replays replayer
	Bulks   bulker
	// SyncWait is how long an answer waits for the end of a user's sync; 0: 25 s.
	SyncWait time.Duration
	// Queue tells how many events the reconciler has not acknowledged yet, and
	// DeadLetters how many wait for a person. Nil: nobody knows.
	Queue, DeadLetters func(ctx context.Context) (int64, error)
	// Behind tells how old the oldest event is that the reconciler has not
	// acknowledged; 0: it has acknowledged all. Nil: nobody knows.
	Behind func(ctx context.Context) (time.Duration, error)
	// Letters are the dead letters; nil: not in this process, and what concerns
	// them is refused as not ready.
	Letters deadLetters
	// Live tells what happens, to be relayed to those who watch; nil: nobody can.
	Live watcher
	// LiveRecheck is how often those who watch are asked anew who they are; 0:
	// every 10 s.
	LiveRecheck time.Duration
	// AdminToken is the bearer token that opens the admin's routes. Not empty.
	AdminToken string
	// SessionSecret is what SkyPANEL signs its session cookies with; empty:
	// cookies are not accepted.
	SessionSecret string
	// PublicOrigins are those besides our own whose pages may call the API with
	// a session.
	PublicOrigins []Origin
	// Checks are the doctor's, made anew at each call.
	Checks func(ctx context.Context) []Finding
	// UserChecks are the doctor's for one SkyPANEL user; nil: it has none.
	UserChecks func(ctx context.Context, userID int64) []Finding
	Now        func() time.Time
	Log        zerolog.Logger
}

// API answers the routes under /api.
type API struct {
	db       *bun.DB
	books    books
	syncs    syncer
	replays  replayer
	bulks    bulker
	syncWait time.Duration
	queue    func(ctx context.Context) (int64, error)
	dead     func(ctx context.Context) (int64, error)
	behind   func(ctx context.Context) (time.Duration, error)
	letters  deadLetters
	auth     *authenticator
	// statuses of users, by the user and what became of the user's runs.
	statuses *memory[string, UserStatus]
	hub      *liveHub // nil: nothing is relayed
	watcher  watcher
	// liveRecheck is how often viewers are asked anew who they are.
	liveRecheck time.Duration
	checks      func(ctx context.Context) []Finding
	userChecks  func(ctx context.Context, userID int64) []Finding
	now         func() time.Time
	log         zerolog.Logger
	// stopping is closed when answers must not wait any longer.
	stopping chan struct{}
}

// New fails without an admin token: an empty one would let everybody in.
func New(c Config) (*API, error) {
	if c.AdminToken == "" {
		return nil, errors.New("the admin token is empty: set ADMIN_TOKEN, or leave it out to have one made")
	}
	a := &API{
		db: c.DB, books: c.Books, syncs: c.Syncs, replays: c.Replays, bulks: c.Bulks, syncWait: cmp.Or(c.SyncWait, defaultSyncWait), queue: c.Queue, dead: c.DeadLetters,
		behind: c.Behind, letters: c.Letters,
		checks: c.Checks, userChecks: c.UserChecks, auth: newAuthenticator(&c), statuses: newMemory[string, UserStatus](statusFor), now: c.Now, log: c.Log, stopping: make(chan struct{}),
	}
	a.liveRecheck = cmp.Or(c.LiveRecheck, liveRecheck)
	if c.Live != nil {
		a.watcher, a.hub = c.Live, newLiveHub(a)
	}
	return a, nil
}

// Register adds the routes. Whoever adds one to a group has nothing to ask
// about the caller any more, see [authenticator.requireUser] and
// [authenticator.requireAdmin]; TestEveryRouteAndEveryCaller must be told of it.
func (a *API) Register(e *echo.Echo) {
	e.Use(a.auth.origins.cors)
	user := e.Group("/api/user", a.auth.requireUser)
	user.GET("/me", a.me)
	user.POST("/servers/sync", a.syncOwn)
	user.GET("/servers/sync/status", a.ownStatus)
	user.GET("/servers/sync/live", a.ownLive)
	user.GET("/servers/sync/runs/:id", a.showOwnRun)
	user.GET("/servers/sync/history", a.ownHistory)
	user.GET("/servers", a.listOwnServers)
	admin := e.Group("/api/admin", a.auth.requireAdmin)
	admin.GET("/servers/:id/timeline", a.timeline)
	admin.POST("/cleanup", a.cleanup)
	admin.GET("/doctor", a.examine)
	admin.GET("/audit", a.audit)
	admin.POST("/servers/sync", a.startSweep)
	admin.POST("/users/:id/servers/sync", a.syncUser)
	admin.POST("/users/:id/servers/replay", a.replayUser)
	admin.GET("/users/:id/servers/sync/status", a.syncStatus)
	admin.GET("/runs", a.listRuns)
	admin.POST("/servers/bulk", a.bulk)
	admin.GET("/runs/:id", a.showRun)
	admin.GET("/runs/:id/servers", a.runServers)
	admin.GET("/runs/:id/preview", a.previewCustomers)
	admin.GET("/runs/:id/preview.csv", a.previewCSV)
	admin.POST("/runs/:id/approve", a.approveRun)
	admin.POST("/runs/:id/undo", a.undoRun)
	admin.POST("/servers/:id/undo", a.undoServer)
	admin.GET("/overview", a.overview)
	admin.GET("/servers", a.listServers)
	admin.GET("/servers.csv", a.listServersCSV)
	admin.GET("/users/:id/servers/sync/history", a.userHistory)
	admin.GET("/dead-letters", a.listDeadLetters)
	admin.POST("/dead-letters/:id/requeue", a.requeueDeadLetter)
	admin.DELETE("/dead-letters/:id", a.discardDeadLetter)
	admin.GET("/charges", a.listCharges)
	admin.POST("/charges/:id/resolve", a.resolveCharge)
	admin.GET("/reports/external.csv", a.externalReport)
	admin.GET("/reports/monthly", a.monthlyReport)
	admin.GET("/reports/monthly.csv", a.monthlyCSV)
	admin.GET("/coverage", a.listCoverage)
	admin.GET("/coverage.csv", a.coverageCSV)
	admin.GET("/notices", a.listNotices)
	admin.POST("/proofs", a.startProof)
	admin.GET("/proofs", a.listProofs)
	admin.GET("/proofs/:id", a.showProof)
	compressed := middleware.GzipWithConfig(middleware.GzipConfig{MinLength: 512})
	for name, read := range chartsByName {
		admin.GET("/charts/"+name+".svg", a.drawChart(read), compressed)
	}
	admin.GET("/live", a.adminLive)
}
