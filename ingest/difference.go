package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"

	"serversync/db"
)

// How much an approved run may differ from what was approved, in the change of a
// month as SkyPANEL rounds it: of one customer by a dollar or a twentieth, whichever
// is more; in all by a twentieth.
var (
	customerLeeway = decimal.NewFromInt(1)
	leeway         = decimal.New(5, -2)
)

const (
	// differencesKept of each sort are named; the words name fewer.
	differencesKept = 20
	differencesTold = 5
)

// seen is what a person has approved, of the servers that are looked at again.
type seen struct {
	customers db.CustomerEffects
	others    []int64 // servers that would by now do something else
	// partly: it was being applied. Where nothing happens any more it has happened.
	partly bool
}

func newSeen() *seen { return &seen{customers: make(db.CustomerEffects)} }

// compare takes in one server: what it would do now, and what was shown of it; nil:
// nothing was.
func (s *seen) compare(now, shown *db.RunEffect) {
	if s.partly && now.Effect == db.EffectNone {
		return
	}
	if shown != nil && (!shown.Unasked || now.Effect != db.EffectNone) { // that it may be there after all was said
		s.customers.Add(shown)
	}
	if another(now, shown) {
		s.others = append(s.others, now.ServerID)
	}
}

// another reports that an effect is of another kind than the one that was shown.
// That nothing happens any more counts by its amount alone.
func another(now, shown *db.RunEffect) bool {
	if now.Effect == db.EffectNone {
		return false
	}
	return shown == nil || now.Effect != shown.Effect || now.Billing != shown.Billing || now.Collected && !shown.Collected ||
		now.BackBilled.IsPositive() && !shown.BackBilled.IsPositive() ||
		(now.UserID == nil) != (shown.UserID == nil) || now.UserID != nil && *now.UserID != *shown.UserID
}

// difference is how what would be done now differs from what was seen; nil: by
// little, or not at all.
func (s *seen) difference(now db.CustomerEffects) *db.PreviewDifference {
	_, was := s.customers.Total()
	_, is := now.Total()
	d := db.PreviewDifference{
		Approved: was.Change(), Now: is.Change(), Servers: int64(len(s.others)), ServerIDs: append([]int64{}, s.others[:min(len(s.others), differencesKept)]...),
		ByCustomer: []db.CustomerDifference{},
	}
	users := maps.Clone(s.customers)
	maps.Copy(users, now)
	for userID := range users {
		c := db.CustomerDifference{UserID: userID, Approved: change(s.customers[userID]), Now: change(now[userID])}
		if beyond(c.Approved, c.Now, decimal.Max(customerLeeway, c.Approved.Abs().Mul(leeway))) {
			d.ByCustomer = append(d.ByCustomer, c)
		}
	}
	d.Customers = int64(len(d.ByCustomer))
	if d.Servers == 0 && d.Customers == 0 && !beyond(d.Approved, d.Now, d.Approved.Abs().Mul(leeway)) {
		return nil
	}
	slices.SortFunc(d.ByCustomer, func(a, b db.CustomerDifference) int {
		return cmp.Or(b.Now.Sub(b.Approved).Abs().Cmp(a.Now.Sub(a.Approved).Abs()), cmp.Compare(a.UserID, b.UserID))
	})
	d.ByCustomer = d.ByCustomer[:min(len(d.ByCustomer), differencesKept)]
	return &d
}

func change(c *db.CustomerEffect) decimal.Decimal {
	if c == nil {
		return decimal.Zero
	}
	return c.Change()
}

// beyond reports that two amounts differ by more than a leeway.
func beyond(a, b, leeway decimal.Decimal) bool { return a.Sub(b).Abs().GreaterThan(leeway) }

// differenceWords say how a preview differs from the approved one.
func differenceWords(d *db.PreviewDifference) string {
	var parts []string
	if !d.Now.Equal(d.Approved) {
		parts = append(parts, fmt.Sprintf("the month would change by %s as charged, approved were %s", signed(d.Now), signed(d.Approved)))
	}
	if d.Servers > 0 {
		ids := make([]string, 0, differencesTold)
		for _, id := range d.ServerIDs[:min(len(d.ServerIDs), differencesTold)] {
			ids = append(ids, strconv.FormatInt(id, 10))
		}
		parts = append(parts, fmt.Sprintf("for %d servers it would do something else (%s%s)", d.Servers, strings.Join(ids, ", "), more(d.Servers)))
	}
	if d.Customers > 0 {
		users := make([]string, 0, differencesTold)
		for _, c := range d.ByCustomer[:min(len(d.ByCustomer), differencesTold)] {
			users = append(users, fmt.Sprintf("user %d %s, approved %s", c.UserID, signed(c.Now), signed(c.Approved)))
		}
		parts = append(parts, fmt.Sprintf("for %d customers the month would change by another amount (%s%s)", d.Customers, strings.Join(users, "; "), more(d.Customers)))
	}
	return "it is not what was approved any more: " + strings.Join(parts, "; ") + ": look at it again"
}

// more ends a list that names the first of n.
func more(n int64) string {
	if n > differencesTold {
		return ", …"
	}
	return ""
}

// signed is an amount of dollars that says what becomes more.
func signed(d decimal.Decimal) string {
	if d.IsPositive() {
		return "+" + d.StringFixed(2)
	}
	return d.StringFixed(2)
}
