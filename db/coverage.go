package db

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// CoverageDay is serversync.coverage_days: how every server stood at the end of a
// day, or, of the present one, when it was last looked at. Amounts are dollars a
// month, with two decimals.
type CoverageDay struct {
	bun.BaseModel `bun:"table:serversync.coverage_days,alias:d"`

	Day       time.Time `bun:"day,pk,type:date"` // its beginning, UTC
	WrittenAt time.Time `bun:"written_at"`

	Total    int64            `bun:"total"` // the sum of the parts
	On       int64            `bun:"external_on"`
	Off      map[string]int64 `bun:"external_off,type:jsonb"` // by reason; never nil
	Native   int64            `bun:"native"`
	Unlinked int64            `bun:"unlinked"`
	Conflict int64            `bun:"conflict"`
	Settling int64            `bun:"settling"`

	RecordedList      string         `bun:"recorded_list,type:numeric"`
	RecordedEffective string         `bun:"recorded_effective,type:numeric"`
	LeakingServers    int64          `bun:"leaking_servers"`
	LeakingList       string         `bun:"leaking_list,type:numeric"`
	LeakingEffective  string         `bun:"leaking_effective,type:numeric"`
	Leaks             []CoverageLeak `bun:"leaks,type:jsonb"` // the dearest first; never nil

	SweepCount
}

// CoverageLeak is a cause of leaking revenue on a day.
type CoverageLeak struct {
	Status       string `json:"status"` // 'external', 'native'
	Reason       string `json:"reason"` // why billing is off
	Servers      int64  `json:"servers"`
	WithoutPrice int64  `json:"withoutPrice"` // those of Servers of which nobody knows a price
	List         string `json:"list"`
	Effective    string `json:"effective"`
}

// SweepCount compares VirtFusion's own count of servers in a complete sweep with
// what is known to have been there then. While a sweep reads its pages servers
// come and go, so what is known is a span. All fields are nil where there was no
// such sweep.
type SweepCount struct {
	RunID           *string    `bun:"sweep_run"`
	At              *time.Time `bun:"sweep_at"` // when it ended
	VirtFusionTotal *int64     `bun:"virtfusion_total"`
	KnownLeast      *int64     `bun:"known_least"`
	KnownMost       *int64     `bun:"known_most"`
}

// Mismatch reports that VirtFusion counted other servers than are known.
func (c *SweepCount) Mismatch() bool {
	return c.RunID != nil && (*c.VirtFusionTotal < *c.KnownLeast || *c.VirtFusionTotal > *c.KnownMost)
}

// mismatched is [SweepCount.Mismatch] in SQL.
const mismatched = `virtfusion_total NOT BETWEEN known_least AND known_most`

// countSlack forgives VirtFusion's clock and ours their difference.
const countSlack = "2 minutes"

// ErrNoSweep means that no sweep has seen everything yet.
var ErrNoSweep = errors.New("no sweep has been complete yet")

// LastSweepEnd is when the last complete sweep ended; [ErrNoSweep].
func LastSweepEnd(ctx context.Context, idb bun.IDB) (time.Time, error) {
	var at bun.NullTime
	if err := idb.NewRaw(`SELECT max(ended_at) FROM serversync.runs WHERE `+completeSweep).Scan(ctx, &at); err != nil {
		return time.Time{}, fmt.Errorf("look for the last complete sweep: %w", err)
	}
	if at.IsZero() {
		return time.Time{}, ErrNoSweep
	}
	return at.Time, nil
}

// completeSweep is a sweep that saw and did everything, of which VirtFusion's
// count is kept.
const completeSweep = `kind = 'sweep' AND state = 'succeeded' AND NOT dry_run AND (progress->>'whole')::boolean AND progress->>'since' IS NOT NULL AND ended_at IS NOT NULL`

// CountAtLastSweep compares VirtFusion's count in the last complete sweep with the
// inventory, as it knows by now that things were then; [ErrNoSweep].
func CountAtLastSweep(ctx context.Context, idb bun.IDB) (SweepCount, error) {
	counts, err := queryAll(ctx, idb, func(rows *sql.Rows) (SweepCount, error) {
		var c SweepCount
		err := rows.Scan(&c.RunID, &c.At, &c.VirtFusionTotal, &c.KnownLeast, &c.KnownMost)
		return c, err
	}, `
		SELECT r.id, r.ended_at, (r.progress->>'total')::bigint, k.least, k.most
		FROM (
			SELECT *, (progress->>'since')::timestamptz - interval '`+countSlack+`' AS begun, ended_at + interval '`+countSlack+`' AS over
			FROM serversync.runs WHERE `+completeSweep+` ORDER BY ended_at DESC, id LIMIT 1) r
		CROSS JOIN LATERAL (
			SELECT `+knownWithin+`
			FROM serversync.servers s) k`)
	if err != nil {
		return SweepCount{}, fmt.Errorf("compare the inventory with VirtFusion's count: %w", err)
	}
	if len(counts) == 0 {
		return SweepCount{}, ErrNoSweep
	}
	return counts[0], nil
}

// KeepCoverage writes down how a day stands, in place of what was written of it
// before. Its sweep is written with the day on which that ended, be it an earlier
// one, if that day is known.
func KeepCoverage(ctx context.Context, database *bun.DB, d *CoverageDay) error {
	day := *d
	sweep := day.SweepCount
	if sweep.At != nil && !sweep.At.UTC().Truncate(24*time.Hour).Equal(day.Day) {
		day.SweepCount = SweepCount{}
	}
	err := database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		insert := tx.NewInsert().Model(&day).On("CONFLICT (day) DO UPDATE").Set("written_at = excluded.written_at")
		for _, column := range []string{
			"total", "external_on", "external_off", "native", "unlinked", "conflict", "settling",
			"recorded_list", "recorded_effective", "leaking_servers", "leaking_list", "leaking_effective", "leaks",
		} {
			insert = insert.Set("? = excluded.?", bun.Ident(column), bun.Ident(column))
		}
		if _, err := insert.Exec(ctx); err != nil || sweep.At == nil {
			return err
		}
		_, err := tx.NewRaw(`
			UPDATE serversync.coverage_days SET sweep_run = ?, sweep_at = ?, virtfusion_total = ?, known_least = ?, known_most = ?
			WHERE day = ?`, sweep.RunID, sweep.At, sweep.VirtFusionTotal, sweep.KnownLeast, sweep.KnownMost, sweep.At.UTC().Format(time.DateOnly)).Exec(ctx)
		return err
	})
	return wrap(err, "write down the coverage of "+d.Day.Format(time.DateOnly))
}

// CoverageDays reads the days from the given one on, oldest first. Days on which
// nobody looked are missing.
func CoverageDays(ctx context.Context, idb bun.IDB, from time.Time) ([]CoverageDay, error) {
	var days []CoverageDay
	if err := idb.NewSelect().Model(&days).Where("day >= ?", from.UTC().Format(time.DateOnly)).Order("day").Scan(ctx); err != nil {
		return nil, fmt.Errorf("read the coverage by day: %w", err)
	}
	return days, nil
}

// CoverageMismatch is the newest comparison with VirtFusion's count that was
// written down, where that disagrees; nil: it agrees, or there is none.
func CoverageMismatch(ctx context.Context, idb bun.IDB) (*SweepCount, error) {
	counts, err := queryAll(ctx, idb, func(rows *sql.Rows) (SweepCount, error) {
		var c SweepCount
		err := rows.Scan(&c.RunID, &c.At, &c.VirtFusionTotal, &c.KnownLeast, &c.KnownMost)
		return c, err
	}, `
		SELECT sweep_run, sweep_at, virtfusion_total, known_least, known_most FROM serversync.coverage_days
		WHERE sweep_run IS NOT NULL ORDER BY day DESC LIMIT 1`)
	if err != nil {
		return nil, fmt.Errorf("look whether VirtFusion counts other servers: %w", err)
	}
	if len(counts) == 0 || !counts[0].Mismatch() {
		return nil, nil //nolint:nilnil // no mismatch is no error, and nothing to show
	}
	return &counts[0], nil
}

// CoverageSum is how the servers that are not gone stood. Total is the sum of the
// parts; On and Off count external servers.
type CoverageSum struct {
	Total    int64            `bun:"total"`
	On       int64            `bun:"external_on"`
	Off      map[string]int64 `bun:"external_off,type:jsonb"` // by reason; never nil
	Native   int64            `bun:"native"`
	Unlinked int64            `bun:"unlinked"`
	Conflict int64            `bun:"conflict"`
	Settling int64            `bun:"settling"`
}

// offUnknown is the reason of servers that are not billed though nobody said
// why. There should be none.
const offUnknown = "unknown"

// AddUp sums counts of servers by what they are: each is in one part.
func AddUp(covered []Covered) CoverageSum {
	c := CoverageSum{Off: map[string]int64{}}
	for _, part := range covered {
		c.Total += part.Servers
		switch {
		case part.Status == "native":
			c.Native += part.Servers
		case part.Status == "unlinked":
			c.Unlinked += part.Servers
		case part.Status == "conflict":
			c.Conflict += part.Servers
		case part.Status == "settling":
			c.Settling += part.Servers
		case part.Billing == "on":
			c.On += part.Servers
		default:
			c.Off[cmp.Or(part.Reason, offUnknown)] += part.Servers
		}
	}
	return c
}
