package main_test

import (
	"slices"
	"testing"
	"time"

	"serversync/db/skypanelsim"
	"serversync/reconciler"
)

// TestModelFound are the histories, at their shortest, in which the model found
// the books wrong.
func TestModelFound(t *testing.T) {
	t.Parallel()
	for name, history := range map[string]func(m *model){
		"the hour that the order paid is not billed to the next owner": func(m *model) {
			m.orderLarge(userKofi)
			m.proceed(0, orderBooked)
			m.reconcileAll()
			m.pass(40 * time.Minute)
			m.must(m.panel.Move(1, accountBeatriz))
		},
		"SkyPANEL's own row comes when the server is gone": func(m *model) {
			m.orderLarge(userBeatriz)
			m.pass(10 * time.Minute)
			m.reconcileAll()
			m.must(m.panel.Destroy(1))
			m.reconcileAll()
			m.proceed(0, orderBooked)
		},
		"SkyPANEL's own row comes when the server is gone, and its job is first": func(m *model) {
			m.orderLarge(userBeatriz)
			m.pass(10 * time.Minute)
			m.reconcileAll()
			m.must(m.panel.Destroy(1))
			m.reconcileAll()
			m.proceed(0, orderBooked)
			m.tick(nil, skypanelsim.FailureSkips)
		},
		"SkyPANEL's own row comes when the server has moved": func(m *model) {
			m.orderLarge(userBeatriz)
			m.pass(10 * time.Minute)
			m.reconcileAll()
			m.must(m.panel.Move(1, accountChen))
			m.reconcileAll()
			m.proceed(0, orderBooked)
		},
		"a question about a server that is gone ends": func(m *model) {
			m.orderLarge(userChen)
			m.must(m.panel.Build(1)) // of the same age
			m.reconcileAll()
			m.pass(time.Second)
			m.must(m.panel.Destroy(1))
			m.reconcileAll()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newModel(t, t.Context(), newModelBed(t), modelOptions{precision: time.Minute, charge: reconciler.ChargeRecord})
			defer m.tell()
			defer m.abandon()
			history(m)
			m.end(t)
		})
	}
}

// end ends a history that nobody draws, and checks it.
func (m *model) end(t *testing.T) {
	t.Helper()
	m.finish()
	m.checkBooks()
	all := make([]int, m.stream.published())
	for i := range all {
		all[i] = i
	}
	m.repeatEverything(all)
}

// orderLarge has a customer order the large package.
func (m *model) orderLarge(customer int64) {
	m.Helper()
	buyer := slices.IndexFunc(m.world.Users, func(u skypanelsim.User) bool { return u.ID == customer })
	plan := slices.IndexFunc(m.world.Packages, func(p skypanelsim.Package) bool { return p.ID == packageLarge })
	m.order(m.world.Users[buyer], m.world.Packages[plan])
}
