package ingest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/virtfusion"
)

// chargeBook is the reconciler, the only one who changes billing rows.
type chargeBook interface {
	// NextCharge hands out the next first charge whose credit is to be taken; not
	// found: there is none.
	NextCharge(ctx context.Context) (c db.FirstCharge, found bool, err error)
	// EndCharge writes what became of it: State, Reason, CreditID and DueAt of end.
	EndCharge(ctx context.Context, c db.FirstCharge, end db.ChargeEnd) error
	// AgeCharges gives up those whose process is gone.
	AgeCharges(ctx context.Context) (int, error)
}

// ChargesConfig is what takes the credit of first charges is made of.
type ChargesConfig struct {
	DB    *bun.DB
	Books chargeBook
	// Client gives the API client of the moment.
	Client func(ctx context.Context) (*virtfusion.Client, error)
	// Idle: nothing is to be taken. It is only looked, now and then, what became of
	// charges of an earlier time.
	Idle    bool
	Now     func() time.Time
	Log     zerolog.Logger
	Metrics prometheus.Registerer
}

// Charges takes the credit of first charges through VirtFusion's API, one after
// the other, each at most once. Several may run side by side, in one process or in
// many: they share the work.
type Charges struct {
	ChargesConfig

	open  *prometheus.GaugeVec
	ended *prometheus.CounterVec
	// doubt: the last call has left it open whether VirtFusion can be reached.
	// Nothing is taken in hand then until it has answered.
	doubt bool
}

// NewCharges returns what takes the credit of first charges; [Charges.Run] makes
// it work.
func NewCharges(c ChargesConfig) *Charges {
	w := &Charges{
		ChargesConfig: c,
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serversync_charges_open", Help: "First charges of which something is yet to become, by state; those that are unclear wait for a person.",
		}, []string{"state"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_charge_attempts_total", Help: "Attempts of this process to take the credit of a first charge, by what became of it.",
		}, []string{"state"}),
		doubt: true,
	}
	c.Metrics.MustRegister(w.open, w.ended)
	return w
}

const (
	// chargeInterval is how often it is looked for what is due.
	chargeInterval = time.Second
	// chargeTimeout bounds a call, the wait for the request budget included, and
	// chargeGrace what a call in hand may still take when a shutdown is asked for.
	chargeTimeout = time.Minute
	chargeGrace   = 3 * time.Second
	// longestPause is the longest time until a charge of which nothing was taken
	// is tried again.
	longestPause = time.Hour
)

// Run takes what is due until ctx ends; a call in hand is finished first.
func (w *Charges) Run(ctx context.Context) error {
	interval := chargeInterval
	if w.Idle {
		interval = time.Minute
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	pause := backoff.NewExponentialBackOff(backoff.WithInitialInterval(chargeInterval), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := w.Take(ctx)
		if err == nil {
			pause.Reset()
			continue
		}
		if ctx.Err() != nil {
			return nil // a shutdown that was asked for is no failure
		}
		wait := pause.NextBackOff()
		w.Log.Warn().Err(err).Dur("retry_in", wait).Msg("no first charges can be taken right now; nothing is lost, trying again")
		rest(ctx, wait)
	}
}

// rest waits, unless ctx ends first.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Take takes the credit of every first charge that is due, and returns when there
// is none left, or when something stands in the way of all.
func (w *Charges) Take(ctx context.Context) error {
	if _, err := w.Books.AgeCharges(ctx); err != nil {
		return err
	}
	open, err := db.CountOpenCharges(ctx, w.DB)
	if err != nil {
		return err
	}
	for state, n := range open {
		w.open.WithLabelValues(string(state)).Set(float64(n))
	}
	if open[db.ChargeDue] == 0 || w.Idle {
		return nil
	}
	client, err := w.Client(ctx)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if w.doubt {
			if err := client.Connect(ctx); err != nil {
				return fmt.Errorf("see whether VirtFusion answers before any credit is taken: %w", err)
			}
			w.doubt = false
		}
		c, found, err := w.Books.NextCharge(ctx)
		if err != nil || !found {
			return err
		}
		if err := w.take(ctx, client, c); err != nil {
			return err
		}
	}
	return nil
}

// take takes the credit of a charge that is in hand, once, and has written what
// became of it. The call is not torn by a shutdown unless it takes too long.
func (w *Charges) take(ctx context.Context, client *virtfusion.Client, c db.FirstCharge) error {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), chargeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(chargeGrace, cancel) })
	defer stop()
	end, callErr := w.look(call, client, &c)
	if end.State == "" {
		var receipt virtfusion.CreditReceipt
		receipt, callErr = client.RemoveCredit(call, c.UserID, virtfusion.Credit{Tokens: c.Tokens, Reference1: c.TransactionID, Reference2: c.Reference})
		end = chargeEnd(receipt, callErr)
	}
	if end.State == db.ChargeDue {
		end.DueAt = w.Now().Add(chargePause(c.Attempts, callErr))
	}
	w.doubt = end.State == db.ChargeDue || end.State == db.ChargeUnclear
	w.ended.WithLabelValues(string(end.State)).Inc()
	line := w.Log.Info()
	switch {
	case end.State == db.ChargeUnclear:
		line = w.Log.Error()
	case callErr != nil:
		line = w.Log.Warn()
	}
	line.Err(callErr).Int64("charge", c.ID).Int64("server", c.ServerID).Int64("user", c.UserID).Int64("tokens", c.Tokens).Str("reference", c.Reference).
		Str("credit", end.CreditID).Str("state", string(end.State)).Msg("the credit of a first charge was to be taken")
	if err := w.Books.EndCharge(ctx, c, end); err != nil {
		// As long as nobody writes it, the charge counts as one of which nobody knows.
		w.Log.Error().Err(err).Int64("charge", c.ID).Int64("server", c.ServerID).Str("state", string(end.State)).Str("credit", end.CreditID).
			Msg("what became of a first charge could not be written; compare it with GET /api/admin/charges")
		if !errors.Is(err, db.ErrChargeState) {
			return err
		}
	}
	return nil
}

// look asks VirtFusion for the server of a charge when a webhook was the last to tell
// of it: whoever has stolen the token must not spend customers' credit on servers that
// do not exist, or are somebody else's. The end is empty when the credit may be taken.
// Nothing has been taken yet, whatever goes wrong. What the answer leaves open waits
// for a sweep.
func (w *Charges) look(ctx context.Context, client *virtfusion.Client, c *db.FirstCharge) (db.ChargeEnd, error) {
	word, err := db.WordOn(ctx, w.DB, c.ServerID)
	if err != nil {
		return db.ChargeEnd{State: db.ChargeDue, Reason: err.Error()}, err
	}
	if word.Pulled {
		return db.ChargeEnd{}, nil
	}
	seen, err := client.GetServer(ctx, c.ServerID)
	s := &seen.Server
	switch {
	case errors.Is(err, virtfusion.ErrNotFound) && word.Shown: // it has ended; its hour had begun
		return db.ChargeEnd{}, nil
	case errors.Is(err, virtfusion.ErrNotFound):
		return db.ChargeEnd{State: db.ChargeCancelled, Reason: "VirtFusion, asked for the server, does not know it, and never showed it"}, nil
	case err != nil:
		return db.ChargeEnd{State: db.ChargeDue, Reason: err.Error()}, err
	case s.OwnerID == nil:
		err = fmt.Errorf("VirtFusion, asked for server %d, does not say whose it is: nothing is taken until a sweep has seen it", c.ServerID)
	case *s.OwnerID != c.OwnerID:
		return db.ChargeEnd{State: db.ChargeCancelled, Reason: fmt.Sprintf("VirtFusion, asked for the server, says that it is its user %d's", *s.OwnerID)}, nil
	case s.SelfService != nil && *s.SelfService != 0 && !word.SelfService:
		err = fmt.Errorf("VirtFusion, asked for server %d, says that it bills it itself: nothing is taken until a sweep has seen it", c.ServerID)
	}
	if err != nil {
		return db.ChargeEnd{State: db.ChargeDue, Reason: err.Error()}, err
	}
	return db.ChargeEnd{}, nil
}

// chargeEnd says what became of a charge by what its call returned. That VirtFusion
// carried it out is known by its answer alone; that it did not, by a refusal, or
// because nothing of the request ever left.
func chargeEnd(receipt virtfusion.CreditReceipt, err error) db.ChargeEnd {
	if err == nil {
		end := db.ChargeEnd{State: db.ChargeTaken}
		if receipt.ID != 0 {
			end.CreditID = strconv.FormatInt(receipt.ID, 10)
		}
		return end
	}
	end := db.ChargeEnd{State: db.ChargeUnclear, Reason: err.Error()}
	failed, ok := errors.AsType[*virtfusion.Error](err)
	if !ok { // the time was over before anything was sent
		end.State = db.ChargeDue
		return end
	}
	switch failed.Kind {
	case virtfusion.KindNotFound, virtfusion.KindInvalid: // VirtFusion says no to this charge
		end.State = db.ChargeFailed
	case virtfusion.KindUnauthorized, virtfusion.KindForbidden, virtfusion.KindRateLimited, virtfusion.KindUnavailable, virtfusion.KindMalformed: // to us, or nothing was sent to it
		end.State = db.ChargeDue
	case virtfusion.KindOutcomeUnknown:
	}
	return end
}

// chargePause is the time until a charge of which nothing was taken is tried
// again: longer with every attempt, and as long as VirtFusion asked for.
func chargePause(attempts int64, err error) time.Duration {
	pause := min(time.Minute<<min(max(attempts-1, 0), 10), longestPause)
	if failed, ok := errors.AsType[*virtfusion.Error](err); ok {
		pause = max(pause, failed.RetryAfter)
	}
	return pause
}
