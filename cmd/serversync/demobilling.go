package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db/skypanelsim"
	"serversync/internal/skypanel"
	"serversync/virtfusion/virtfusionsim"
)

// billWatch watches SkyPANEL's billing job in the demo: it tells of each round in
// a line, and compares what the job takes with what serversync's previews and
// forecasts say that an hour of a row costs.
type billWatch struct {
	database *bun.DB
	hour     time.Duration // how long one lasts that is billed; 0: an hour
	log      zerolog.Logger

	mu sync.Mutex
	// prices are what serversync says of the rows that the round in hand may charge.
	prices  map[int64]hourPrice
	rounds  int
	charges int
	// In tokens, each a cent.
	charged, foreseen int64
}

// hourPrice is what serversync says that an hour of a billing row costs, in tokens.
type hourPrice struct {
	next, later int64 // the next hour, and those after it
}

func newBillWatch(database *bun.DB, hour time.Duration, log zerolog.Logger) *billWatch {
	return &billWatch{database: database, hour: hour, log: log, prices: map[int64]hourPrice{}}
}

// job is SkyPANEL's own: it charges by the hour, and asks VirtFusion who owns each
// server.
func (w *billWatch) job(panel *virtfusionsim.Panel) *skypanelsim.Job {
	return skypanelsim.NewJob(w.database, skypanelsim.JobConfig{
		Owner: func(_ context.Context, serverID int64) (int64, error) {
			server, err := panel.Server(serverID)
			return server.OwnerID, err
		},
		Hour: w.hour, Interval: w.hour, // 0: an hour, and each minute
		Pause:  w.foresee,
		OnTick: w.tell,
	})
}

// foresee reads what the job is about to charge, as serversync reckons it.
func (w *billWatch) foresee(ctx context.Context) error {
	rows, err := w.database.DB.QueryContext(ctx, `
		SELECT b.id, b.monthly_price, coalesce(nullif(b.hours_in_month, 0), 730),
			EXISTS (SELECT FROM public.virtfusion_hourly_transactions t WHERE t.billing_id = b.id AND t.status = 'completed')
		FROM public.virtfusion_hourly_billing b`)
	if err != nil {
		return fmt.Errorf("read what SkyPANEL's job is about to charge: %w", err)
	}
	defer rows.Close()
	prices := make(map[int64]hourPrice)
	for rows.Next() {
		var id, hours int64
		var monthly decimal.Decimal
		var collected bool
		if err := rows.Scan(&id, &monthly, &hours, &collected); err != nil {
			return fmt.Errorf("read what SkyPANEL's job is about to charge: %w", err)
		}
		p := hourPrice{later: skypanel.HourlyTokens(monthly, hours)}
		if p.next = p.later; !collected {
			p.next = skypanel.FirstTokens(monthly, hours)
		}
		prices[id] = p
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prices = prices
	return rows.Err()
}

// tell tells what a run of the job did.
func (w *billWatch) tell(r skypanelsim.Report, err error) {
	if err != nil {
		w.log.Warn().Err(err).Msg("SkyPANEL: the billing job failed")
		return
	}
	for _, id := range r.SwitchedOff {
		w.log.Info().Msgf("SkyPANEL: switched off billing row %d, whose server is not its user's any more", id)
	}
	if len(r.Charges) == 0 {
		return
	}
	servers, users := make(map[int64]bool), make(map[int64]bool)
	var charged, foreseen int64
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range r.Charges {
		c := &r.Charges[i]
		servers[c.ServerID], users[c.UserID] = true, true
		charged += c.Cents.IntPart()
		p := w.prices[c.BillingID]
		foreseen += p.next
		w.prices[c.BillingID] = hourPrice{next: p.later, later: p.later}
	}
	w.rounds++
	w.charges += len(r.Charges)
	w.charged, w.foreseen = w.charged+charged, w.foreseen+foreseen
	w.log.Info().Msgf("SkyPANEL: charged an hour of %d servers to %d customers: %s in all, %s", len(servers), len(users), inDollars(charged), compared(charged, foreseen))
}

// summary compares what SkyPANEL took in all with what serversync said; empty:
// it took nothing.
func (w *billWatch) summary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rounds == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nSkyPANEL billed in %d rounds, each for an hour that lasted %s: %d charges, %s in all, %s.\n",
		w.rounds, cmp.Or(w.hour, time.Hour), w.charges, inDollars(w.charged), compared(w.charged, w.foreseen))
	return b.String()
}

// compared says whether what was charged is what serversync said.
func compared(charged, foreseen int64) string {
	if charged == foreseen {
		return "as serversync foresaw"
	}
	return "where serversync foresaw " + inDollars(foreseen)
}

// inDollars are cents in words.
func inDollars(cents int64) string { return "$" + decimal.New(cents, -2).StringFixed(2) }
