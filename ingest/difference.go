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
// is more; in all by a twentieth. What is charged at once for the time before grows
// with every hour that nobody approves: by more than a dollar and a twentieth, of one
// customer or in all, it is asked for again.
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
		Approved: was.Change(), Now: is.Change(), BackBilledApproved: s.customers.BackBilled(), BackBilledNow: now.BackBilled(),
		Servers: int64(len(s.others)), ServerIDs: append([]int64{}, s.others[:min(len(s.others), differencesKept)]...), ByCustomer: []db.CustomerDifference{},
	}
	users := maps.Clone(s.customers)
	maps.Copy(users, now)
	for userID := range users {
		shown, is := orNobody(s.customers[userID]), orNobody(now[userID])
		c := db.CustomerDifference{UserID: userID, Approved: shown.Change(), Now: is.Change(), BackBilledApproved: shown.BackBilled, BackBilledNow: is.BackBilled}
		if beyond(c.Approved, c.Now, decimal.Max(customerLeeway, c.Approved.Abs().Mul(leeway))) || grown(c.BackBilledApproved, c.BackBilledNow) {
			d.ByCustomer = append(d.ByCustomer, c)
		}
	}
	d.Customers = int64(len(d.ByCustomer))
	if d.Servers == 0 && d.Customers == 0 && !beyond(d.Approved, d.Now, d.Approved.Abs().Mul(leeway)) && !grown(d.BackBilledApproved, d.BackBilledNow) {
		return nil
	}
	slices.SortFunc(d.ByCustomer, func(a, b db.CustomerDifference) int {
		return cmp.Or(amount(&b).Cmp(amount(&a)), cmp.Compare(a.UserID, b.UserID))
	})
	d.ByCustomer = d.ByCustomer[:min(len(d.ByCustomer), differencesKept)]
	return &d
}

// orNobody stands for a customer to whose bill nothing is done.
func orNobody(c *db.CustomerEffect) *db.CustomerEffect {
	if c == nil {
		return new(db.CustomerEffect)
	}
	return c
}

// amount is by how much a customer's difference is one: a month, and at once.
func amount(c *db.CustomerDifference) decimal.Decimal {
	return c.Now.Sub(c.Approved).Abs().Add(c.BackBilledNow.Sub(c.BackBilledApproved).Abs())
}

// grown reports that more would be charged at once than was approved, by more than a
// little.
func grown(approved, now decimal.Decimal) bool {
	return now.Sub(approved).GreaterThan(decimal.Max(customerLeeway, approved.Mul(leeway)))
}

// beyond reports that two amounts differ by more than a leeway.
func beyond(a, b, leeway decimal.Decimal) bool { return a.Sub(b).Abs().GreaterThan(leeway) }

// differenceWords say how a preview differs from the approved one.
func differenceWords(d *db.PreviewDifference) string {
	var parts []string
	if !d.Now.Equal(d.Approved) {
		parts = append(parts, fmt.Sprintf("the month would change by %s as charged, approved were %s", signed(d.Now), signed(d.Approved)))
	}
	if grown(d.BackBilledApproved, d.BackBilledNow) {
		parts = append(parts, fmt.Sprintf("SkyPANEL would charge %s at once for the time before, approved were %s", d.BackBilledNow.StringFixed(2), d.BackBilledApproved.StringFixed(2)))
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
			users = append(users, customerWords(&c))
		}
		parts = append(parts, fmt.Sprintf("for %d customers it would cost another amount (%s%s)", d.Customers, strings.Join(users, "; "), more(d.Customers)))
	}
	return "it is not what was approved any more: " + strings.Join(parts, "; ") + ": look at it again"
}

// customerWords name the amounts that differ.
func customerWords(c *db.CustomerDifference) string {
	var amounts []string
	if !c.Now.Equal(c.Approved) {
		amounts = append(amounts, fmt.Sprintf("%s a month, approved %s", signed(c.Now), signed(c.Approved)))
	}
	if !c.BackBilledNow.Equal(c.BackBilledApproved) {
		amounts = append(amounts, fmt.Sprintf("%s at once, approved %s", c.BackBilledNow.StringFixed(2), c.BackBilledApproved.StringFixed(2)))
	}
	return fmt.Sprintf("user %d %s", c.UserID, strings.Join(amounts, ", and "))
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
