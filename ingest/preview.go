package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/events"
)

const (
	// reviewAtOnce is how many servers are reviewed together.
	reviewAtOnce = 1000
	// largestKept is how many of the largest changes a preview names.
	largestKept = 10
)

// review looks which servers would be decided otherwise because of what changed
// on SkyPANEL's side: a row, a price, a customer, an operator's wish.
func (j *job) review(ctx context.Context) error {
	p := &j.run.Progress
	p.Reviewed = 0
	for after := int64(0); ; {
		candidates, last, err := db.ServersToReview(ctx, j.DB, after)
		if err != nil || last == 0 {
			return err
		}
		after = last
		for ids := range slices.Chunk(candidates, reviewAtOnce) {
			effects, err := j.Books.Preview(ctx, ids, nil)
			if err != nil {
				return fmt.Errorf("review the books: %w", err)
			}
			var items []db.RunItem
			for i := range effects {
				if effects[i].Changes {
					items = append(items, db.RunItem{RunID: j.run.ID, ServerID: effects[i].ServerID, Found: db.FoundBooks})
				}
			}
			if err := db.StageMore(ctx, j.DB, j.run.ID, items); err != nil {
				return err
			}
		}
		p.Reviewed += int64(len(candidates))
		if err := j.save(ctx); err != nil {
			return err
		}
	}
}

// preview works out what the findings would change, and whether a person has to
// approve. Runs that wait already give way: this one found the same, or takes
// over what it did not see.
func (j *job) preview(ctx context.Context) error {
	if !j.run.DryRun && (j.run.Kind != db.RunSweep || j.run.Progress.Page > 0) { // who saw nothing takes nothing over
		err := j.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			superseded, err := db.Supersede(ctx, tx, j.run)
			if len(superseded) > 0 {
				j.log.Info().Strs("superseded", superseded).Msg("a run that waited for approval gave way to this one")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	sum := newSummary()
	if err := j.previewItems(ctx, db.ItemStaged, sum); err != nil {
		return err
	}
	fleet, err := j.fleet(ctx)
	if err != nil {
		return err
	}
	j.run.Preview = sum.preview(fleet, j.limit(fleet))
	j.run.Preview.Asks = j.asks(j.run.Preview)
	return j.save(ctx)
}

// previewItems adds what the items of one state would do to a summary, and
// records it with each.
func (j *job) previewItems(ctx context.Context, state string, sum *summary) error {
	return j.eachItem(ctx, state, func(items []db.RunItem) error {
		ids := make([]int64, len(items))
		news := make([]events.Event, 0, len(items))
		missing, shown := make(map[int64]bool), make(map[int64]*db.RunEffect)
		for i := range items {
			ids[i] = items[i].ServerID
			if sum.approved != nil && items[i].Forecast != "" {
				shown[ids[i]] = new(db.RunEffect)
				if err := json.Unmarshal([]byte(items[i].Forecast), shown[ids[i]]); err != nil {
					return fmt.Errorf("read what was foreseen of server %d: %w", ids[i], err)
				}
			}
			e, err := eventOf(&items[i])
			if err != nil {
				return err
			}
			switch {
			case e != nil:
				news = append(news, *e)
			case items[i].Found == db.FoundMissing: // at worst it is gone
				missing[ids[i]] = true
				news = append(news, j.end(ids[i], j.Now()))
			}
		}
		replayed, err := j.replayed(ctx, ids)
		if err != nil {
			return err
		}
		effects, err := j.Books.Preview(ctx, ids, append(news, replayed...))
		if err != nil {
			return fmt.Errorf("preview the findings: %w", err)
		}
		forecasts := make([]string, len(effects))
		for i := range effects {
			if missing[effects[i].ServerID] {
				effects[i].Unasked = true
				effects[i].Why = "not in VirtFusion's list, and not asked for yet: " + effects[i].Why
				if effects[i].Effect != db.EffectNone {
					sum.missing++
				}
			}
			content, err := json.Marshal(&effects[i])
			if err != nil {
				return fmt.Errorf("encode the preview of server %d: %w", effects[i].ServerID, err)
			}
			forecasts[i] = string(content)
			sum.add(&effects[i])
			if sum.approved != nil {
				sum.approved.compare(&effects[i], shown[effects[i].ServerID])
			}
		}
		if sum.approved != nil {
			return db.SetOutlooks(ctx, j.DB, j.run.ID, effects, forecasts)
		}
		return db.SetEffects(ctx, j.DB, j.run.ID, effects, forecasts)
	})
}

// eventOf reads an item's observation; nil: it has none.
func eventOf(item *db.RunItem) (*events.Event, error) {
	if item.Event == "" {
		return nil, nil //nolint:nilnil // an item without an observation is decided from what is stored
	}
	var e events.Event
	if err := json.Unmarshal([]byte(item.Event), &e); err != nil {
		return nil, fmt.Errorf("read the observation of server %d in run %s: %w", item.ServerID, item.RunID, err)
	}
	e.RunID = item.RunID // it may have been taken over from an older run
	return &e, nil
}

// asks says why a person has to approve the run; empty: nobody has to.
func (j *job) asks(p *db.RunPreview) string {
	switch {
	case j.run.Progress.Whole && j.run.Progress.Listed == 0 && j.run.Progress.Missing > 0:
		return fmt.Sprintf("VirtFusion's list is empty, and we know %d servers: check what the API token may see. Once approved, VirtFusion is asked for each, and what it does not know ends", p.Missing)
	case p.Missing > 0:
		return fmt.Sprintf("VirtFusion's list leaves out %d of the servers that we know, more than %s. Once approved, VirtFusion is asked for each, and what it does not know ends", p.Missing, j.limitWords(p))
	case j.ObserveOnly:
		return ""
	case p.Changes > p.Limit:
		return fmt.Sprintf("it would change the billing of %d servers, more than %s", p.Changes, j.limitWords(p))
	}
	return ""
}

// fleet is how many servers VirtFusion has, as far as its list could be read;
// else how many we know.
func (j *job) fleet(ctx context.Context) (int64, error) {
	p := &j.run.Progress
	if p.Whole {
		return p.Listed, nil
	}
	known, err := db.InventorySize(ctx, j.DB)
	return max(p.Listed, known), err
}

// limit is how many servers of a fleet the run may change unasked.
func (j *job) limit(fleet int64) int64 {
	n := j.MaxChanges.Limit(fleet)
	if j.run.Kind == db.RunSync || j.run.Kind == db.RunReplay {
		n = max(n, syncExempt)
	}
	return n
}

// limitWords names the limit as it was set.
func (j *job) limitWords(p *db.RunPreview) string {
	if j.MaxChanges.percent > 0 {
		return fmt.Sprintf("SWEEP_MAX_CHANGES allows (%g%% of %d servers, at least %d)", j.MaxChanges.percent, p.Fleet, leastShare)
	}
	return fmt.Sprintf("SWEEP_MAX_CHANGES allows (%d)", p.Limit)
}

// summary adds up effects.
type summary struct {
	db.RunPreview

	missing   int64
	customers db.CustomerEffects
	// approved is what a person has seen of the same servers; nil: nobody has.
	approved *seen
}

func newSummary() *summary {
	return &summary{RunPreview: db.RunPreview{Off: make(map[string]int64)}, customers: make(db.CustomerEffects)}
}

func (s *summary) add(e *db.RunEffect) {
	switch e.Effect {
	case db.EffectCreate:
		s.Create++
		if e.Billing != "on" {
			s.CreateOff++
			s.Off[e.Reason]++
		}
	case db.EffectChange:
		s.Change++
	case db.EffectMove:
		s.Move++
	case db.EffectEnd:
		s.End++
	default:
		s.None++
		return
	}
	s.customers.Add(e)
	if e.FirstCharge.IsPositive() {
		s.FirstCharges++
		s.FirstChargeAmount = s.FirstChargeAmount.Add(e.FirstCharge)
		s.Collected = s.Collected || e.Collected
	}
	s.BackBilled = s.BackBilled.Add(e.BackBilled)
	s.ListMonthly = s.ListMonthly.Add(e.ListAfter).Sub(e.ListBefore)
	s.EffectiveMonthly = s.EffectiveMonthly.Add(e.EffectiveAfter).Sub(e.EffectiveBefore)
	s.Largest = append(s.Largest, *e)
	if len(s.Largest) > 4*largestKept {
		s.keepLargest()
	}
}

// keepLargest leaves the changes that matter most, by what a month costs more
// or less as SkyPANEL rounds it, then by the list.
func (s *summary) keepLargest() {
	slices.SortStableFunc(s.Largest, func(a, b db.RunEffect) int {
		charged := b.EffectiveAfter.Sub(b.EffectiveBefore).Abs().Cmp(a.EffectiveAfter.Sub(a.EffectiveBefore).Abs())
		listed := b.ListAfter.Sub(b.ListBefore).Abs().Cmp(a.ListAfter.Sub(a.ListBefore).Abs())
		return cmp.Or(charged, listed, cmp.Compare(a.ServerID, b.ServerID))
	})
	s.Largest = s.Largest[:min(len(s.Largest), largestKept)]
}

func (s *summary) preview(fleet, limit int64) *db.RunPreview {
	s.keepLargest()
	s.Mark = db.NewRunID()
	s.Customers = int64(len(s.customers))
	s.Rows, s.Cost = s.customers.Total()
	all := s.customers.Over(decimal.NewFromInt(-1))
	s.ByCustomer = all[:min(len(all), largestKept)]
	s.Missing = s.missing
	s.Changes = s.Create + s.Change + s.Move + s.End
	s.Fleet, s.Limit = fleet, min(limit, max(fleet, s.Changes)) // no limit is one that nothing exceeds
	if s.Largest == nil {
		s.Largest = []db.RunEffect{}
	}
	return &s.RunPreview
}
