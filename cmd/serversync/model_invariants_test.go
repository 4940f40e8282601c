package main_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db"
	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

// checkBooks holds the books against VirtFusion and SkyPANEL as they are.
func (m *model) checkBooks() {
	m.Helper()
	inventory, rows := m.inventory(), m.rows()
	for _, s := range m.panel.Servers() {
		if !slices.ContainsFunc(inventory, func(known db.Server) bool { return known.VirtfusionID == s.ID }) {
			m.Fatalf("server %d is not in the inventory", s.ID)
		}
	}
	statuses := map[string]int{}
	for i := range inventory {
		s := &inventory[i]
		statuses[s.Status]++
		m.checkServer(s, ofServer(rows, s.VirtfusionID))
	}
	m.checkCounts(statuses, len(inventory))
	m.checkCharges(rows)
}

// checkCounts wants the counts of the statuses to add up: each server has one of
// the six, and none is still in a state that time ends.
func (m *model) checkCounts(statuses map[string]int, servers int) {
	m.Helper()
	if total := m.text(`SELECT count(*)::text FROM serversync.servers`); total != strconv.Itoa(servers) {
		m.Fatalf("%s servers in the inventory, and %d that VirtFusion ever had", total, servers)
	}
	if n := statuses["settling"]; n > 0 {
		m.Fatalf("%d servers are still settling", n)
	}
	sum := 0
	for _, n := range statuses {
		sum += n
	}
	if sum != servers {
		m.Fatalf("the counts by status add up to %d, not %d: %v", sum, servers, statuses)
	}
	f := &m.bed.figures
	f.conflicts.Add(int64(statuses["conflict"]))
	f.unlinked.Add(int64(statuses["unlinked"]))
	f.gone.Add(int64(statuses["gone"]))
}

// checkServer holds one server of the inventory, and its billing rows, against
// what the two systems say.
func (m *model) checkServer(s *db.Server, rows []*modelRow) {
	m.Helper()
	on := slices.DeleteFunc(slices.Clone(rows), func(r *modelRow) bool { return !r.Enabled })
	if (s.Billing == "on") != (len(on) > 0) || s.Billing == "on" && (s.BillingID == nil || !slices.ContainsFunc(on, func(r *modelRow) bool { return r.ID == *s.BillingID })) {
		m.Fatalf("server %d: the inventory says billing is %s, and %d rows are on%s", s.VirtfusionID, s.Billing, len(on), m.story(s.VirtfusionID))
	}
	if s.Ask != "" {
		m.Fatalf("server %d: VirtFusion is still to be asked%s", s.VirtfusionID, m.story(s.VirtfusionID))
	}
	truth, err := m.panel.Server(s.VirtfusionID)
	if err != nil {
		if s.Status != "gone" || len(on) > 0 {
			m.Fatalf("server %d is gone, but %s, with %d rows on%s", s.VirtfusionID, s.Status, len(on), m.story(s.VirtfusionID))
		}
		return
	}
	m.checkInventory(s, &truth)
	user, conflict := m.ownerOf(truth.OwnerID)
	if conflict || s.Status == "conflict" {
		lost := user == nil && slices.ContainsFunc(on, func(r *modelRow) bool { return !r.Ours })
		if s.Status != "conflict" || !conflict && !lost {
			m.Fatalf("server %d is %s (evidence disagrees: %v)%s", s.VirtfusionID, s.Status, conflict || lost, m.story(s.VirtfusionID))
		}
		return
	}
	if user == nil {
		if s.Status != "unlinked" || len(on) > 0 || s.UserID != nil {
			m.Fatalf("server %d is nobody's, but %s, with %d rows on%s", s.VirtfusionID, s.Status, len(on), m.story(s.VirtfusionID))
		}
		return
	}
	if s.UserID == nil || *s.UserID != user.ID {
		m.Fatalf("server %d is user %d's, the inventory says otherwise%s", s.VirtfusionID, user.ID, m.story(s.VirtfusionID))
	}
	m.checkBilling(s, &truth, user, rows, on)
}

// checkBilling holds the rows of a server that belongs to somebody against what
// they should be: one is on where the server is to be billed, and none of ours
// where it is not.
func (m *model) checkBilling(s *db.Server, truth *virtfusionsim.Server, user *skypanelsim.User, rows, on []*modelRow) {
	m.Helper()
	native := slices.ContainsFunc(rows, func(r *modelRow) bool {
		return !r.Ours && r.UserID == user.ID && (r.Enabled || r.Closed != "moved")
	})
	if native != (s.Status == "native") && !m.sky.traced[s.VirtfusionID] {
		m.Fatalf("server %d has a row of SkyPANEL's: %v, but is %s%s", s.VirtfusionID, native, s.Status, m.story(s.VirtfusionID))
	}
	for _, r := range on {
		if r.UserID != user.ID {
			m.Fatalf("server %d is user %d's, and row %d bills user %d%s", s.VirtfusionID, user.ID, r.ID, r.UserID, m.story(s.VirtfusionID))
		}
	}
	price, priced := m.priceOf(truth.PackageID)
	billable := !user.Inactive && priced && m.hourly && truth.SelfService == 0
	switch {
	case len(on) > 1:
		m.Fatalf("server %d is billed by %d rows%s", s.VirtfusionID, len(on), m.story(s.VirtfusionID))
	case len(on) == 1 && on[0].Ours && !billable:
		m.Fatalf("server %d is not to be billed, and is%s", s.VirtfusionID, m.story(s.VirtfusionID))
	case len(on) == 0 && billable && !m.leftOff(s, rows):
		m.Fatalf("server %d is to be billed, and is not%s", s.VirtfusionID, m.story(s.VirtfusionID))
	}
	switch {
	case len(on) == 0:
	case !on[0].Ours:
		m.bed.figures.native.Add(1)
	default:
		m.bed.figures.billed.Add(1)
		rate := price.DivRound(decimal.NewFromInt(m.hours), 6)
		if r := on[0]; !r.Price.Equal(price) || !r.Rate.Equal(rate) || r.Hours != m.hours || r.PackageID != truth.PackageID {
			m.Fatalf("server %d is billed at %s (%s × %d h, package %d), its package %d costs %s (%s × %d h)%s", s.VirtfusionID,
				r.Price, r.Rate, r.Hours, r.PackageID, truth.PackageID, price, rate, m.hours, m.story(s.VirtfusionID))
		}
	}
}

// leftOff reports that SkyPANEL's word keeps a server's billing off until an
// operator's: its job switched a row off, or it sold the server and lost the
// row. It is said so, which is all that is ours to do.
func (m *model) leftOff(s *db.Server, rows []*modelRow) bool {
	if s.BillingReason != "disabled_by_skypanel" {
		return false
	}
	m.bed.figures.disabled.Add(1)
	return m.sky.traced[s.VirtfusionID] && len(rows) == 0 ||
		slices.ContainsFunc(rows, func(r *modelRow) bool { return m.sky.switchedOff[r.ID] })
}

// ownerOf finds the SkyPANEL user of a VirtFusion account, as the contract says.
func (m *model) ownerOf(account int64) (user *skypanelsim.User, conflict bool) {
	var linked []*skypanelsim.User
	var related *skypanelsim.User
	at := slices.IndexFunc(m.world.Accounts, func(a skypanelsim.Account) bool { return a.ID == account })
	for i := range m.world.Users {
		u := &m.world.Users[i]
		if u.VirtFusionID == account {
			linked = append(linked, u)
		}
		if u.ID == m.world.Accounts[at].ExtRelationID {
			related = u
		}
	}
	switch {
	case len(linked) > 1, len(linked) == 1 && related != nil && related != linked[0]:
		return nil, true
	case len(linked) == 1:
		return linked[0], false
	case related != nil && related.VirtFusionID != 0:
		return nil, true
	default:
		return related, false
	}
}

// priceOf is a package's price in dollars a month.
func (m *model) priceOf(id int64) (price decimal.Decimal, priced bool) {
	for _, p := range m.world.Packages {
		if p.ID == id && p.PricingID != 0 {
			return decimal.New(p.Price, -2), true
		}
	}
	return decimal.Zero, false
}

// checkInventory wants the inventory to say what VirtFusion says.
func (m *model) checkInventory(s *db.Server, v *virtfusionsim.Server) {
	m.Helper()
	number := func(p *int64) int64 {
		if p == nil {
			return 0
		}
		return *p
	}
	moment := func(t *time.Time) string {
		if t == nil || t.IsZero() {
			return "never"
		}
		return t.UTC().Truncate(time.Second).String()
	}
	addresses := slices.Clone(v.IPv4)
	if v.IPv6 != "" {
		addresses = append(addresses, v.IPv6+"/64")
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"uuid", s.UUID, v.UUID},
		{"owner", s.OwnerID, v.OwnerID},
		{"name", s.Name, v.Name},
		{"hostname", cmp.Or(s.Hostname, v.Hostname), v.Hostname}, // null says nothing
		{"state", s.State, v.State},
		{"commission", number(s.CommissionStatus), v.CommissionStatus},
		{"suspended", s.Suspended, v.Suspended},
		{"protected", s.Protected, v.Protected},
		{"build failed", s.BuildFailed, v.BuildFailed},
		{"self service", s.SelfService, v.SelfService},
		{"package", number(s.PackageID), v.PackageID},
		{"memory", number(s.MemoryMB), v.MemoryMB},
		{"storage", number(s.StorageGB), v.StorageGB},
		{"traffic", number(s.TrafficGB), v.TrafficGB},
		{"cores", number(s.CPUCores), v.CPUCores},
		{"hypervisor", number(s.HypervisorID), v.HypervisorID},
		{"addresses", fmt.Sprint(s.IPAddresses), fmt.Sprint(addresses)},
		{"created", moment(s.CreatedAt), moment(&v.Created)},
		{"updated", moment(s.UpdatedAt), moment(&v.Updated)},
		{"built", moment(s.BuiltAt), moment(&v.Built)},
	} {
		if f.got != f.want {
			m.Fatalf("server %d: %s is %v in the inventory, %v in VirtFusion%s", s.VirtfusionID, f.name, f.got, f.want, m.story(s.VirtfusionID))
		}
	}
}

// checkCharges wants no time charged twice, except while evidence disagrees and a
// person must look, and where nobody but SkyPANEL could have prevented it:
//
//   - Its own row came after ours was charged: ours is withdrawn then, and the
//     refund of what was charged by then is asked for.
//   - Its own row came after the server had been billed to another owner: its job
//     then charges from the order on, whoever had the server meanwhile.
//
// And no row of ours has a charge for time before the row was made.
func (m *model) checkCharges(rows map[int64]*modelRow) {
	m.Helper()
	charges, err := skypanelsim.Charges(m.ctx, m.db)
	if err != nil {
		m.Fatal(err)
	}
	for _, c := range charges {
		if r := rows[c.BillingID]; r.Ours && c.Start.Before(r.Made.UTC()) {
			m.Fatalf("row %d was made at %s and has a charge from %s on%s", r.ID, r.Made.UTC(), c.Start, m.story(c.ServerID))
		}
	}
	for _, o := range skypanelsim.Overlaps(charges) {
		first, second := rows[o.First.BillingID], rows[o.Second.BillingID]
		if m.excused(first, second, &o.First) || m.excused(second, first, &o.Second) || m.known[o.First.ServerID].status == "conflict" {
			continue
		}
		m.Fatalf("%s%s", &o, m.story(o.First.ServerID))
	}
	for _, r := range rows {
		if r.Refund {
			m.bed.figures.refunds.Add(1)
		}
	}
}

// excused reports that two rows of one server, one of ours and one of
// SkyPANEL's, may have charges for the same time; charge is that of ours.
func (m *model) excused(ours, native *modelRow, charge *skypanelsim.Charge) bool {
	if !ours.Ours || native.Ours {
		return false
	}
	if ours.Refund && charge.Start.Before(ours.RefundAt.UTC()) {
		return true // it may bill again since: the server moved away and came back
	}
	return native.UserID != ours.UserID && m.sky.madeAt[native.ID].After(ours.Made.UTC())
}
