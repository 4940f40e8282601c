package main_test

import (
	"context"
	"errors"
	"time"

	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

// orderEnd is how an order through SkyPANEL goes on after VirtFusion made the
// server.
type orderEnd int

const (
	orderBooked orderEnd = iota // SkyPANEL inserts its row, and takes the first hour
	orderLost                   // it fails to fetch the server: no row, no trace
	orderTraced                 // it takes the first hour, and the row's insert fails
)

// errAbandoned ends an order that SkyPANEL never got on with.
var errAbandoned = errors.New("SkyPANEL could not fetch the server")

// modelOrder is an order between VirtFusion's answer and SkyPANEL's insert.
type modelOrder struct {
	server int64
	// created is when VirtFusion made it, by the earlier of its clock and ours.
	created time.Time
	end     chan orderEnd
	done    chan error
	row     int64
}

// order begins an order and returns once VirtFusion made the server.
func (m *model) order(customer skypanelsim.User, plan skypanelsim.Package) {
	m.Helper()
	o := &modelOrder{end: make(chan orderEnd, 1), done: make(chan error, 1)}
	created := make(chan struct{})
	ctx, database := m.ctx, m.db
	create := func(_ context.Context, owner, packageID int64) (skypanelsim.Server, error) {
		s, err := m.panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: owner, PackageID: packageID})
		o.server, o.created = s.ID, s.Created
		if now := m.clock(); now.Before(o.created) {
			o.created = now
		}
		return skypanelsim.Server{ID: s.ID, UUID: s.UUID, Created: s.Created}, err
	}
	end := orderBooked
	pause := func(context.Context) error {
		close(created)
		if end = <-o.end; end != orderBooked {
			return errAbandoned
		}
		return nil
	}
	go func() {
		receipt, err := skypanelsim.Order(ctx, database, customer, plan, create, pause)
		if errors.Is(err, errAbandoned) {
			err = nil
		}
		if err == nil && end != orderLost {
			_, err = skypanelsim.PayUpfront(ctx, database, receipt)
		}
		o.row = receipt.BillingID
		o.done <- errors.Join(err, receipt.InsertErr)
	}()
	select {
	case <-created:
	case err := <-o.done:
		m.Fatalf("order %s for %s: %v", plan.Name, customer.Username, err)
	}
	m.ever = append(m.ever, o.server)
	m.orders = append(m.orders, o)
	m.bed.figures.orders.Add(1)
	m.note("%s orders %s: server %d", customer.Username, plan.Name, o.server)
}

// proceed lets SkyPANEL get on with an order. Until the server has settled there
// is no row of ours that its own could double.
func (m *model) proceed(at int, end orderEnd) {
	m.Helper()
	o := m.orders[at]
	settled := o.created.Add(modelSettleDelay)
	if early := m.text(`SELECT count(*)::text FROM serversync.billing_rows r JOIN serversync.servers s USING (virtfusion_id)
		WHERE virtfusion_id = $1 AND made_by = 'serversync' AND r.created_at < least(s.settle_until, $2)`, o.server, settled); early != "0" {
		m.Fatalf("server %d was not given time to settle%s", o.server, m.story(o.server))
	}
	m.orders = append(m.orders[:at:at], m.orders[at+1:]...)
	o.end <- end
	if err := <-o.done; err != nil {
		m.Fatalf("order of server %d: %v", o.server, err)
	}
	m.note("the order of server %d ends: %s, row %d", o.server, [...]string{"booked", "lost", "paid without a row"}[end], o.row)
	switch {
	case o.row != 0:
		m.sky.native[o.row], m.sky.madeAt[o.row] = m.steps, m.clock()
	case end != orderLost:
		m.sky.traced[o.server] = true
	}
}

// abandon ends what is left of the orders when a history is over.
func (m *model) abandon() {
	for _, o := range m.orders {
		o.end <- orderLost
		if err := <-o.done; err != nil {
			m.Logf("order of server %d: %v", o.server, err)
		}
	}
	m.orders = nil
}
