package api

import (
	"context"
	"time"

	"serversync/db"
)

// toLeaking puts prices together, by status and reason.
func toLeaking(found []db.Leak) Leaking {
	leaking := Leaking{Reasons: []Leak{}}
	var all []db.RecordedPrice
	for len(found) > 0 {
		n := 1
		for n < len(found) && found[n].Status == found[0].Status && found[n].Reason == found[0].Reason {
			n++
		}
		leak := Leak{Status: found[0].Status, Reason: found[0].Reason}
		var prices []db.RecordedPrice
		for _, l := range found[:n] {
			leak.Servers += l.Servers
			if l.Monthly.Valid {
				prices = append(prices, db.RecordedPrice{Monthly: l.Monthly.Decimal, Hours: l.Hours, Rows: l.Servers})
			} else {
				leak.WithoutPrice += l.Servers
			}
		}
		leak.Amounts = sum(prices)
		all = append(all, prices...)
		leaking.Servers += leak.Servers
		leaking.Reasons = append(leaking.Reasons, leak)
		found = found[n:]
	}
	leaking.Amounts = sum(all)
	return leaking
}

// lagSeconds asks how old the oldest event is that is not reconciled; nil when
// nobody can say.
func (a *API) lagSeconds(ctx context.Context) *float64 {
	if a.behind == nil {
		return nil
	}
	age, err := a.behind(ctx)
	if err != nil {
		a.log.Warn().Err(err).Msg("cannot say how old the oldest event is that waits")
		return nil
	}
	return new(max(age, 0).Round(time.Millisecond).Seconds())
}

// lagEvery is how often the lag is looked at, for its chart.
const lagEvery = time.Minute

// SampleLag writes down once a minute how far the reconciler is behind, until ctx
// ends. Of several processes that do so at once, one is heard.
func (a *API) SampleLag(ctx context.Context) error {
	ticker := time.NewTicker(lagEvery)
	defer ticker.Stop()
	for {
		if events := a.depth(ctx, "the queue", a.queue); events != nil {
			err := db.SaveLag(ctx, a.db, db.LagSample{At: a.now(), Events: *events, Seconds: a.lagSeconds(ctx)})
			if err != nil && ctx.Err() == nil {
				a.log.Warn().Err(err).Msg("the lag could not be written down; its chart will have a gap")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
