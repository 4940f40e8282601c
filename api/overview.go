package api

import (
	"context"
	"slices"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"
	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/internal/skypanel"
)

// Overview is how everything stands.
type Overview struct {
	Coverage Coverage `json:"coverage"`
	// Mismatch is the last complete sweep, where VirtFusion counted other servers
	// than are known; null: it agreed, or there was none.
	Mismatch *SweepCount `json:"mismatch"`
	// AwaitingApproval counts servers; they are among those of Coverage.
	AwaitingApproval int64   `json:"awaitingApproval"`
	Revenue          Revenue `json:"revenue"`
	// Lag is how many events the reconciler has not acknowledged yet,
	// DeadLetters how many wait for a person; null: nobody knows.
	Lag         *int64 `json:"lag"`
	DeadLetters *int64 `json:"deadLetters"`
	// UnclearCharges counts the first charges of which nobody knows whether the credit
	// was taken: they wait for a person.
	UnclearCharges int64 `json:"unclearCharges"`
	// LagSeconds is how old the oldest of the former is; null: nobody knows.
	LagSeconds *float64 `json:"lagSeconds"`
	LastSweep  *Run     `json:"lastSweep"` // null: there was none
	// Sweeping: a process with the role sweep is there.
	Sweeping bool  `json:"sweeping"`
	Waiting  []Run `json:"waiting"` // for approval, newest first
}

// Coverage counts the servers that are not gone. Its parts add up to Total.
type Coverage struct {
	Total    int64            `json:"total"`
	On       int64            `json:"on"`  // external, billed
	Off      map[string]int64 `json:"off"` // external, not billed: by reason
	Native   int64            `json:"native"`
	Unlinked int64            `json:"unlinked"`
	Conflict int64            `json:"conflict"`
	Settling int64            `json:"settling"`
}

// Revenue is what external servers bring a month. Amounts are dollars, as
// strings.
type Revenue struct {
	RecordedMonthly Amounts `json:"recordedMonthly"`
	// LeakingMonthly is what is not billed though it should be. Native servers
	// are in it too.
	LeakingMonthly Leaking `json:"leakingMonthly"`
}

// Leaking is what servers that run and are not billed would bring a month, as far
// as their prices are known.
type Leaking struct {
	Amounts
	Servers int64  `json:"servers"`
	Reasons []Leak `json:"reasons"`
}

// Leak is a part of it.
type Leak struct {
	Amounts
	Status  string `json:"status"` // "external" or "native"
	Reason  string `json:"reason"` // why billing is off
	Servers int64  `json:"servers"`
	// WithoutPrice counts those of Servers of which nobody knows a price.
	WithoutPrice int64 `json:"withoutPrice"`
}

// Amounts are what billing rows say, and what SkyPANEL charges for them in
// whole tokens.
type Amounts struct {
	List      string `json:"list"`
	Effective string `json:"effective"`
}

// overview answers GET /api/admin/overview.
func (a *API) overview(c echo.Context) error {
	ctx := c.Request().Context()
	o, err := a.readBooks(ctx)
	if err != nil {
		return fault(err)
	}
	if err := a.readSweeps(ctx, o); err != nil {
		return fault(err)
	}
	o.Lag = a.depth(ctx, "the queue", a.queue)
	o.LagSeconds = a.lagSeconds(ctx)
	o.DeadLetters = a.depth(ctx, "the dead letters", a.dead)
	return succeed(c, o)
}

// readBooks reads how servers and revenue stand. In a large fleet each of these
// takes some hundredths of a second: they are read at the same time.
func (a *API) readBooks(ctx context.Context) (*Overview, error) {
	var o Overview
	var covered []db.Covered
	var prices []db.RecordedPrice
	var leaks []db.Leak
	var mismatch *db.SweepCount
	var charges map[db.ChargeState]int64
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { covered, err = db.Coverage(ctx, a.db); return err })
	group.Go(func() (err error) { prices, err = db.RecordedPrices(ctx, a.db); return err })
	group.Go(func() (err error) { leaks, err = db.Leaks(ctx, a.db); return err })
	group.Go(func() (err error) { o.AwaitingApproval, err = db.AwaitingApproval(ctx, a.db); return err })
	group.Go(func() (err error) { mismatch, err = db.CoverageMismatch(ctx, a.db); return err })
	group.Go(func() (err error) { charges, err = db.CountOpenCharges(ctx, a.db); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	o.Coverage, o.Revenue.RecordedMonthly, o.Revenue.LeakingMonthly = Coverage(db.AddUp(covered)), sum(prices), toLeaking(leaks)
	o.Mismatch, o.UnclearCharges = toSweepCount(mismatch), charges[db.ChargeUnclear]
	return &o, nil
}

// maxWaiting bounds the runs that wait in an overview.
const maxWaiting = 50

// readSweeps reads which runs there are to know of.
func (a *API) readSweeps(ctx context.Context, o *Overview) error {
	last, err := db.LastSweep(ctx, a.db, a.now())
	if err != nil {
		return err
	}
	if last != nil {
		if o.LastSweep, err = a.toRun(ctx, last); err != nil {
			return err
		}
	}
	waiting, err := db.Runs(ctx, a.db, db.RunsQuery{State: db.RunNeedsApproval, Limit: maxWaiting})
	if err != nil {
		return err
	}
	waiting = slices.DeleteFunc(waiting, func(r db.Run) bool { return r.DryRun }) // nobody can approve those
	if o.Waiting, err = a.toRuns(ctx, waiting); err != nil {
		return err
	}
	o.Sweeping, err = db.Leading(ctx, a.db)
	return err
}

// depth asks how much waits somewhere; nil when nobody can say, which is no
// reason not to tell the rest.
func (a *API) depth(ctx context.Context, of string, ask func(context.Context) (int64, error)) *int64 {
	if ask == nil {
		return nil
	}
	n, err := ask(ctx)
	if err != nil {
		a.log.Warn().Err(err).Msg("cannot say how many events are in " + of)
		return nil
	}
	return &n
}

func sum(prices []db.RecordedPrice) Amounts {
	var list, effective decimal.Decimal
	for _, p := range prices {
		rows := decimal.NewFromInt(p.Rows)
		list = list.Add(p.Monthly.Mul(rows))
		effective = effective.Add(skypanel.EffectiveMonthly(p.Monthly, p.Hours).Mul(rows))
	}
	return Amounts{List: dollars(list), Effective: dollars(effective)}
}

// UserStatus is how one user's servers stand in the books.
type UserStatus struct {
	// LastSync is when the user's own sync, or a sweep of all, last succeeded;
	// null: never.
	LastSync        *time.Time `json:"lastSync"`
	TotalServers    int64      `json:"totalServers"`
	SyncedServers   int64      `json:"syncedServers"` // billed as they should be, as far as is known
	ExternalServers int64      `json:"externalServers"`
	BillingRecords  int64      `json:"billingRecords"` // but for those of servers that are gone
}

// syncStatus answers GET /api/admin/users/:id/servers/sync/status.
func (a *API) syncStatus(c echo.Context) error {
	userID, err := readUserID(c.Param("id"), "bad_user_id")
	if err != nil {
		return err
	}
	status, err := a.userStatus(c.Request().Context(), userID)
	if err != nil {
		return fault(err)
	}
	return succeed(c, status)
}

// userStatus counts one user's servers; [ErrNoUser].
func (a *API) userStatus(ctx context.Context, userID int64) (UserStatus, error) {
	books, err := db.ReadUserBooks(ctx, a.db, userID)
	if err != nil {
		return UserStatus{}, err
	}
	return UserStatus{
		LastSync: utc(books.LastSync), TotalServers: books.Servers, SyncedServers: books.Synced,
		ExternalServers: books.External, BillingRecords: books.Rows,
	}, nil
}
