package api

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"serversync/db"
	"serversync/internal/skypanel"
)

const (
	defaultMonths = 12
	maxMonths     = 60
)

// MonthlyReport is what happened in each month, and in each quarter. It begins
// with a quarter, so that each sum is whole but for the present one's.
type MonthlyReport struct {
	Months   []Period `json:"months"` // oldest first
	Quarters []Period `json:"quarters"`
}

// Period is what happened in a month or a quarter (UTC). Amounts are dollars a
// month.
type Period struct {
	Period string `json:"period"` // 2026-03, 2026-Q1
	// Found counts external servers that were found for the first time, Recorded
	// what their billing rows brought then.
	Found    int64   `json:"found"`
	Recorded Amounts `json:"recorded"`
	// LeaksClosed counts servers that are billed again, or at last.
	LeaksClosed     int64 `json:"leaksClosed"`
	FindingsCleared int64 `json:"findingsCleared"`
	Conflicts       int64 `json:"conflicts"`
	DeadLetters     int64 `json:"deadLetters"`
	// FailedRuns is null where not all runs of that time are kept any more.
	FailedRuns *int64 `json:"failedRuns"`
	RefundsDue int64  `json:"refundsDue"`
	// AtEnd is how things stood on the last day of which that is known; null: of
	// none.
	AtEnd *PeriodEnd `json:"atEnd"`
	// MismatchDays counts days on which VirtFusion counted other servers than are
	// known.
	MismatchDays int64 `json:"mismatchDays"`

	list, effective decimal.Decimal // Recorded
}

// PeriodEnd is how things stood on a day: effective amounts.
type PeriodEnd struct {
	Day      string `json:"day"`
	Servers  int64  `json:"servers"`
	Recorded string `json:"recorded"`
	Leaking  string `json:"leaking"`
}

// monthlyReport answers GET /api/admin/reports/monthly.
func (a *API) monthlyReport(c echo.Context) error {
	report, err := a.readMonthly(c)
	if err != nil {
		return err
	}
	return succeed(c, report)
}

var monthlyHeadings = []string{
	"period", "external_found", "recorded_list", "recorded_effective", "leaks_closed", "findings_cleared",
	"conflicts", "dead_letters", "failed_runs", "refunds_due", "mismatch_days", "last_day", "servers", "recorded_then", "leaking_then",
}

// monthlyCSV answers GET /api/admin/reports/monthly.csv: each quarter's sums stand
// below its months.
func (a *API) monthlyCSV(c echo.Context) error {
	report, err := a.readMonthly(c)
	if err != nil {
		return err
	}
	s := a.newSheet(c, "monthly", monthlyHeadings)
	return a.send(c, s, func() (bool, error) {
		for i := range report.Months {
			s.row(periodCells(&report.Months[i])...)
			if i%3 == 2 || i == len(report.Months)-1 {
				s.row(periodCells(&report.Quarters[i/3])...)
			}
		}
		return false, nil
	})
}

func periodCells(p *Period) []string {
	cells := []string{
		p.Period, number(&p.Found), p.Recorded.List, p.Recorded.Effective, number(&p.LeaksClosed), number(&p.FindingsCleared),
		number(&p.Conflicts), number(&p.DeadLetters), number(p.FailedRuns), number(&p.RefundsDue), number(&p.MismatchDays),
	}
	if p.AtEnd == nil {
		return append(cells, "", "", "", "")
	}
	return append(cells, p.AtEnd.Day, number(&p.AtEnd.Servers), p.AtEnd.Recorded, p.AtEnd.Leaking)
}

// readMonthly reads the months that were asked for, from the beginning of the
// quarter of the first.
func (a *API) readMonthly(c echo.Context) (*MonthlyReport, error) {
	given, err := readParams(c, []string{"months"})
	if err != nil {
		return nil, err
	}
	n := defaultMonths
	if value := given.Get("months"); value != "" {
		if n, err = strconv.Atoi(value); err != nil || n < 1 || n > maxMonths {
			return nil, badRequest("bad_months", fmt.Sprintf("months must be a number from 1 to %d", maxMonths))
		}
	}
	now := a.now().UTC()
	first := time.Date(now.Year(), now.Month()+time.Month(1-n), 1, 0, 0, 0, 0, time.UTC)
	first = first.AddDate(0, -(int(first.Month())-1)%3, 0)
	report, err := a.monthly(c.Request().Context(), first, now)
	if err != nil {
		return nil, fault(err)
	}
	return report, nil
}

func (a *API) monthly(ctx context.Context, first, now time.Time) (*MonthlyReport, error) {
	months, err := db.Monthly(ctx, a.db, first, now)
	if err != nil {
		return nil, err
	}
	found, err := db.FoundByDay(ctx, a.db, first)
	if err != nil {
		return nil, err
	}
	report := &MonthlyReport{Months: make([]Period, len(months)), Quarters: []Period{}}
	for i := range months {
		report.Months[i] = toPeriod(&months[i])
	}
	for _, f := range found {
		i := (f.Day.UTC().Year()-first.Year())*12 + int(f.Day.UTC().Month()) - int(first.Month())
		if i >= len(report.Months) {
			continue // after now
		}
		p, servers := &report.Months[i], decimal.NewFromInt(f.Servers)
		p.Found += f.Servers
		p.list = p.list.Add(f.Monthly.Mul(servers))
		p.effective = p.effective.Add(skypanel.EffectiveMonthly(f.Monthly, f.Hours).Mul(servers))
	}
	for i := range report.Months {
		p := &report.Months[i]
		begins := months[i].Begins.UTC()
		if i%3 == 0 {
			report.Quarters = append(report.Quarters, Period{Period: fmt.Sprintf("%d-Q%d", begins.Year(), (int(begins.Month())+2)/3), FailedRuns: new(int64(0))})
		}
		report.Quarters[i/3].add(p)
		p.Recorded = Amounts{List: dollars(p.list), Effective: dollars(p.effective)}
	}
	for i := range report.Quarters {
		q := &report.Quarters[i]
		q.Recorded = Amounts{List: dollars(q.list), Effective: dollars(q.effective)}
	}
	return report, nil
}

func toPeriod(m *db.Month) Period {
	p := Period{
		Period: m.Begins.UTC().Format("2006-01"), LeaksClosed: m.LeaksClosed, FindingsCleared: m.FindingsCleared, Conflicts: m.Conflicts,
		DeadLetters: m.DeadLetters, FailedRuns: m.FailedRuns, RefundsDue: m.RefundsDue,
	}
	if m.Last != nil {
		p.AtEnd = &PeriodEnd{Day: m.Last.Day.Format(time.DateOnly), Servers: m.Last.Servers, Recorded: m.Last.Recorded, Leaking: m.Last.Leaking}
		p.MismatchDays = m.Last.Mismatches
	}
	return p
}

// add adds a month to its quarter.
func (p *Period) add(m *Period) {
	p.Found += m.Found
	p.list, p.effective = p.list.Add(m.list), p.effective.Add(m.effective)
	p.LeaksClosed += m.LeaksClosed
	p.FindingsCleared += m.FindingsCleared
	p.Conflicts += m.Conflicts
	p.DeadLetters += m.DeadLetters
	p.RefundsDue += m.RefundsDue
	p.MismatchDays += m.MismatchDays
	if m.FailedRuns == nil || p.FailedRuns == nil {
		p.FailedRuns = nil // a sum without a part is none
	} else {
		p.FailedRuns = new(*p.FailedRuns + *m.FailedRuns)
	}
	if m.AtEnd != nil {
		p.AtEnd = m.AtEnd
	}
}
