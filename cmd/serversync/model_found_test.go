package main_test

import (
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
			m.order(m.customer(userKofi), m.plan(packageLarge))
			m.proceed(0, orderBooked)
			m.reconcileAll()
			m.pass(40 * time.Minute)
			m.must(m.panel.Move(1, accountBeatriz))
		},
		"SkyPANEL's own row comes when the server is gone": func(m *model) {
			m.order(m.customer(userBeatriz), m.plan(packageLarge))
			m.pass(10 * time.Minute)
			m.reconcileAll()
			m.must(m.panel.Destroy(1))
			m.reconcileAll()
			m.proceed(0, orderBooked)
		},
		"SkyPANEL's own row comes when the server is gone, and its job is first": func(m *model) {
			m.order(m.customer(userBeatriz), m.plan(packageLarge))
			m.pass(10 * time.Minute)
			m.reconcileAll()
			m.must(m.panel.Destroy(1))
			m.reconcileAll()
			m.proceed(0, orderBooked)
			m.tick(nil, skypanelsim.FailureSkips)
		},
		"SkyPANEL's own row comes when the server has moved": func(m *model) {
			m.order(m.customer(userBeatriz), m.plan(packageLarge))
			m.pass(10 * time.Minute)
			m.reconcileAll()
			m.must(m.panel.Move(1, accountChen))
			m.reconcileAll()
			m.proceed(0, orderBooked)
		},
		"a question about a server that is gone ends": func(m *model) {
			m.order(m.customer(userChen), m.plan(packageLarge))
			m.must(m.panel.Build(1)) // of the same age
			m.reconcileAll()
			m.pass(time.Second)
			m.must(m.panel.Destroy(1))
			m.reconcileAll()
		},
		"two customers with one account are always named alike": func(m *model) {
			m.order(m.customer(userBeatriz), m.plan(packageSmall))
			m.world.Users[5].VirtFusionID = accountBeatriz
			m.exec(`UPDATE users SET virtfusion_id = $1 WHERE id = $2`, accountBeatriz, userLiv)
			for range 10 {
				m.reconcileAll()
				m.pass(modelBooksEvery)
				m.reviewBooks()
			}
			if lines := m.text(`SELECT count(*)::text FROM serversync.history WHERE kind = 'decided'`); lines != "1" {
				m.Fatalf("the conflict was told %s times", lines)
			}
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

func (m *model) customer(id int64) skypanelsim.User {
	for _, u := range m.world.Users {
		if u.ID == id {
			return u
		}
	}
	m.Fatalf("no customer %d", id)
	return skypanelsim.User{}
}

func (m *model) plan(id int64) skypanelsim.Package {
	for _, p := range m.world.Packages {
		if p.ID == id {
			return p
		}
	}
	m.Fatalf("no package %d", id)
	return skypanelsim.Package{}
}
