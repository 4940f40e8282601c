package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-analyze/charts"
	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"serversync/db"
)

const (
	coveragePass = "coverage"
	// coverageEvery is how often the present day is written down besides after
	// each complete sweep, coverageCheck how often it is seen whether that is due.
	coverageEvery = time.Hour
	coverageCheck = time.Minute
	// maxCoverageDays bounds an answer: a year, and a month to compare it with.
	maxCoverageDays = 400
)

// CoverageDay is how every server stood at the end of a day (UTC); of the present
// one, when it was last looked at.
type CoverageDay struct {
	Day       string    `json:"day"` // 2026-03-01
	WrittenAt time.Time `json:"writtenAt"`
	Coverage  Coverage  `json:"coverage"`
	Revenue   Revenue   `json:"revenue"` // its reasons the dearest first
	// Sweep is the last complete sweep that ended on that day; null: there was none.
	Sweep *SweepCount `json:"sweep"`
}

// SweepCount compares VirtFusion's own count in a complete sweep with what is
// known to have been there while it went on: KnownLeast all the time, KnownMost at
// any time.
type SweepCount struct {
	RunID           string    `json:"runId"`
	At              time.Time `json:"at"` // when it ended
	VirtFusionTotal int64     `json:"virtFusionTotal"`
	KnownLeast      int64     `json:"knownLeast"`
	KnownMost       int64     `json:"knownMost"`
	Mismatch        bool      `json:"mismatch"`
}

// RunCoverage writes down how every server stands, every hour and after each
// complete sweep, until ctx ends. Of several processes one does it.
func (a *API) RunCoverage(ctx context.Context) error {
	ticker := time.NewTicker(coverageCheck)
	defer ticker.Stop()
	for {
		if err := a.coverageDue(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn().Err(err).Dur("retry_in", coverageCheck).Msg("today's coverage could not be written down; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// coverageDue writes the present day down if that was last begun an hour ago, or
// before the last complete sweep was over. What fails is as if it had not been.
func (a *API) coverageDue(ctx context.Context) error {
	now := a.now()
	due := now.Add(-coverageEvery)
	swept, err := db.LastSweepEnd(ctx, a.db)
	switch {
	case err == nil && swept.After(due) && swept.Before(now):
		due = swept
	case err != nil && !errors.Is(err, db.ErrNoSweep):
		return err
	}
	claimed, err := db.ClaimPass(ctx, a.db, coveragePass, now, due)
	if err != nil || !claimed {
		return err
	}
	err = a.keepCoverage(ctx, now)
	if err != nil {
		if giveBack := db.UnclaimPass(context.WithoutCancel(ctx), a.db, coveragePass, now); giveBack != nil && ctx.Err() == nil {
			a.log.Debug().Err(giveBack).Msg("the coverage is written down again in an hour")
		}
	}
	return err
}

func (a *API) keepCoverage(ctx context.Context, now time.Time) error {
	books, err := a.readBooks(ctx)
	if err != nil {
		return err
	}
	day := coverageDay(books, now)
	if day.SweepCount, err = db.CountAtLastSweep(ctx, a.db); err != nil && !errors.Is(err, db.ErrNoSweep) {
		return err
	}
	if err := db.KeepCoverage(ctx, a.db, &day); err != nil {
		return err
	}
	return db.FinishPass(ctx, a.db, db.Pass{Name: coveragePass, FinishedAt: new(a.now()), Servers: day.Total})
}

// coverageDay is the row of how the books stand.
func coverageDay(o *Overview, now time.Time) db.CoverageDay {
	c, leaking := &o.Coverage, &o.Revenue.LeakingMonthly
	day := db.CoverageDay{
		Day: now.UTC().Truncate(24 * time.Hour), WrittenAt: now,
		Total: c.Total, On: c.On, Off: c.Off, Native: c.Native, Unlinked: c.Unlinked, Conflict: c.Conflict, Settling: c.Settling,
		RecordedList: o.Revenue.RecordedMonthly.List, RecordedEffective: o.Revenue.RecordedMonthly.Effective,
		LeakingServers: leaking.Servers, LeakingList: leaking.List, LeakingEffective: leaking.Effective,
		Leaks: make([]db.CoverageLeak, len(leaking.Reasons)),
	}
	for i, l := range leaking.Reasons {
		day.Leaks[i] = db.CoverageLeak{Status: l.Status, Reason: l.Reason, Servers: l.Servers, WithoutPrice: l.WithoutPrice, List: l.List, Effective: l.Effective}
	}
	slices.SortStableFunc(day.Leaks, func(a, b db.CoverageLeak) int {
		return cmp.Or(parsed(b.Effective).Cmp(parsed(a.Effective)), cmp.Compare(b.Servers, a.Servers))
	})
	return day
}

// parsed reads dollars that we wrote.
func parsed(dollars string) decimal.Decimal {
	d, _ := decimal.NewFromString(dollars) // else 0
	return d
}

func toCoverageDay(d *db.CoverageDay) CoverageDay {
	day := CoverageDay{
		Day: d.Day.Format(time.DateOnly), WrittenAt: d.WrittenAt.UTC(), Sweep: toSweepCount(&d.SweepCount),
		Coverage: Coverage{Total: d.Total, On: d.On, Off: d.Off, Native: d.Native, Unlinked: d.Unlinked, Conflict: d.Conflict, Settling: d.Settling},
		Revenue: Revenue{
			RecordedMonthly: Amounts{List: d.RecordedList, Effective: d.RecordedEffective},
			LeakingMonthly:  Leaking{Amounts: Amounts{List: d.LeakingList, Effective: d.LeakingEffective}, Servers: d.LeakingServers, Reasons: make([]Leak, len(d.Leaks))},
		},
	}
	for i, l := range d.Leaks {
		day.Revenue.LeakingMonthly.Reasons[i] = Leak{Amounts: Amounts{List: l.List, Effective: l.Effective}, Status: l.Status, Reason: l.Reason, Servers: l.Servers, WithoutPrice: l.WithoutPrice}
	}
	return day
}

// toSweepCount is nil where there was no sweep.
func toSweepCount(c *db.SweepCount) *SweepCount {
	if c == nil || c.RunID == nil {
		return nil
	}
	return &SweepCount{
		RunID: *c.RunID, At: c.At.UTC(), VirtFusionTotal: *c.VirtFusionTotal, KnownLeast: *c.KnownLeast, KnownMost: *c.KnownMost,
		Mismatch: c.Mismatch(),
	}
}

// listCoverage answers GET /api/admin/coverage.
func (a *API) listCoverage(c echo.Context) error {
	days, err := a.readCoverage(c)
	if err != nil {
		return err
	}
	list := make([]CoverageDay, len(days))
	for i := range days {
		list[len(days)-1-i] = toCoverageDay(&days[i]) // newest first
	}
	return succeed(c, list)
}

// readCoverage reads the days that were asked for, oldest first.
func (a *API) readCoverage(c echo.Context) ([]db.CoverageDay, error) {
	wanted, err := readDays(c, a.now(), maxCoverageDays)
	if err != nil {
		return nil, err
	}
	days, err := db.CoverageDays(c.Request().Context(), a.db, wanted[0])
	if err != nil {
		return nil, fault(err)
	}
	return days, nil
}

var coverageHeadings = []string{
	"day", "written_at", "total", "external_on", "external_off", "off_reasons", "native", "unlinked", "conflict", "settling",
	"recorded_list", "recorded_effective", "leaking_servers", "leaking_list", "leaking_effective", "leaks",
	"sweep_run", "sweep_at", "virtfusion_total", "known_least", "known_most", "mismatch",
}

// coverageCSV answers GET /api/admin/coverage.csv.
func (a *API) coverageCSV(c echo.Context) error {
	days, err := a.readCoverage(c)
	if err != nil {
		return err
	}
	s := a.newSheet(c, "coverage", coverageHeadings)
	return a.send(c, s, func() (bool, error) {
		for i := range days {
			s.row(coverageCells(&days[i])...)
		}
		return false, nil
	})
}

func coverageCells(d *db.CoverageDay) []string {
	var reasons, leaks []string
	off := int64(0)
	for reason, servers := range d.Off {
		off += servers
		reasons = append(reasons, reason+" "+strconv.FormatInt(servers, 10))
	}
	slices.Sort(reasons)
	for _, l := range d.Leaks {
		leaks = append(leaks, l.Status+" "+l.Reason+" "+l.Effective)
	}
	mismatch := ""
	if d.RunID != nil {
		mismatch = strconv.FormatBool(d.Mismatch())
	}
	return []string{
		d.Day.Format(time.DateOnly), moment(&d.WrittenAt), number(&d.Total), number(&d.On), number(&off), strings.Join(reasons, "; "), number(&d.Native), number(&d.Unlinked), number(&d.Conflict), number(&d.Settling),
		d.RecordedList, d.RecordedEffective, number(&d.LeakingServers), d.LeakingList, d.LeakingEffective, strings.Join(leaks, "; "),
		text(d.RunID), moment(d.At), number(d.VirtFusionTotal), number(d.KnownLeast), number(d.KnownMost), mismatch,
	}
}

// coverageChart shows what is not billed or not settled beside what is.
func (a *API) coverageChart(ctx context.Context, days []time.Time) (*chart, error) {
	kept, err := db.CoverageDays(ctx, a.db, days[0])
	if err != nil {
		return nil, err
	}
	inBooks, others := make([]float64, len(days)), make([]float64, len(days))
	for i := range days {
		if len(kept) > 0 {
			inBooks[i], others[i] = charts.GetNullValue(), charts.GetNullValue() // nobody looked
		}
	}
	for i := range kept {
		d := &kept[i]
		if n := slices.IndexFunc(days, d.Day.Equal); n >= 0 {
			inBooks[n] = float64(d.On + d.Native)
			others[n] = float64(d.Total - d.On - d.Native)
		}
	}
	return &chart{
		title: "Servers by what becomes of their billing, at the end of each day", unit: "servers", labels: dayLabels(days),
		names: []string{"billed, or SkyPANEL's own", "all others"}, series: [][]float64{inBooks, others}, empty: len(kept) == 0,
	}, nil
}
