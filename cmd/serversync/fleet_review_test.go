package main_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"serversync/db"
)

// TestTheReviewLeavesOutOnlyWhatIsInStep: the review decides again only those
// servers that a join could not show to be in step. Whatever changes on
// SkyPANEL's side of a fleet, nobody who would be decided otherwise may be left
// out.
func TestTheReviewLeavesOutOnlyWhatIsInStep(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	w.create(6, accountBeatriz, packageSmall)
	w.create(3, accountChen, packageLarge)
	w.create(2, accountJoana, packageLarge) // known by extRelationId alone
	w.create(2, accountInes, packageSmall)  // inactive
	w.create(2, accountNobody, packageSmall)
	w.create(2, accountChen, packageCustom) // unpriced
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	// One of SkyPANEL's own, and one that is gone.
	w.exec(`UPDATE serversync.billing_rows SET made_by = 'skypanel' WHERE virtfusion_id = 1`)
	w.exec(`DELETE FROM serversync.billing_rows WHERE virtfusion_id = 1`)
	w.exec(`UPDATE virtfusion_hourly_billing SET reference_1 = NULL WHERE virtfusion_server_id = 1`)
	const gone = 6
	if err := w.panel.DestroySilently(gone); err != nil {
		t.Fatal(err)
	}
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if ids := w.candidates(); slices.Contains(ids, 1) || slices.Contains(ids, 2) || slices.Contains(ids, 7) || slices.Contains(ids, 6) {
		t.Fatalf("servers that are in step are decided again: %v", ids)
	}

	row := `virtfusion_hourly_billing SET %s WHERE virtfusion_server_id = %d`
	var changes []string
	for _, set := range []string{
		`billing_enabled = NOT billing_enabled`, `user_id = 3`, `server_uuid = NULL`, `server_uuid = 'DELETED_SERVER'`, `server_uuid = 'other'`,
		`monthly_price = 1`, `hourly_rate = 1`, `package_id = 99`, `package_name = 'x'`, `hours_in_month = 720`, `virtfusion_server_id = 999`,
	} {
		for _, id := range []int{1, 2, 6, 7, 10, 12, 16} {
			changes = append(changes, "UPDATE "+fmt.Sprintf(row, set, id))
		}
	}
	for _, id := range []int{1, 2, 6, 7, 10, 14} {
		changes = append(changes,
			fmt.Sprintf(`DELETE FROM virtfusion_hourly_billing WHERE virtfusion_server_id = %d`, id),
			fmt.Sprintf(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate)
				VALUES (2, 1, %d, 1, 'Small', 7.3, 0.01)`, id),
			fmt.Sprintf(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate)
				SELECT 2, 1, 555, uuid, 1, 'Small', 7.3, 0.01 FROM serversync.servers WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`UPDATE serversync.servers SET ask = 'what is so?' WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`UPDATE serversync.servers SET awaiting_run = 'x' WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`UPDATE serversync.servers SET owner_ext_relation_id = 3 WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`UPDATE serversync.servers SET self_service = 1 WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`UPDATE serversync.billing_rows SET enabled = NOT enabled WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`UPDATE serversync.billing_rows SET closed_reason = 'moved' WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`UPDATE serversync.billing_rows SET made_by = 'skypanel' WHERE virtfusion_id = %d`, id),
			fmt.Sprintf(`DELETE FROM serversync.billing_rows WHERE virtfusion_id = %d`, id))
		for _, wish := range []string{"billing_on", "billing_off", "ignore", "undone"} {
			changes = append(changes, fmt.Sprintf(`INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (%d, '%s') ON CONFLICT DO NOTHING`, id, wish))
		}
		changes = append(changes, fmt.Sprintf(`INSERT INTO serversync.overrides (virtfusion_id, kind, package_id) VALUES (%d, 'package', %d) ON CONFLICT DO NOTHING`, id, packageLarge))
	}
	for _, user := range []int{userBeatriz, userChen, userJoana, userInes} {
		changes = append(changes,
			fmt.Sprintf(`UPDATE users SET is_active = NOT is_active WHERE id = %d`, user),
			fmt.Sprintf(`UPDATE users SET is_active = NULL WHERE id = %d`, user),
			fmt.Sprintf(`UPDATE users SET virtfusion_id = NULL WHERE id = %d`, user),
			fmt.Sprintf(`UPDATE users SET virtfusion_id = %d WHERE id = %d`, accountNobody, user),
			fmt.Sprintf(`UPDATE users SET virtfusion_id = %d WHERE id = %d`, accountBeatriz, user))
	}
	for _, plan := range []int{packageSmall, packageLarge, packageCustom} {
		changes = append(changes,
			fmt.Sprintf(`UPDATE package_pricing SET price = price + 1 WHERE virtfusion_package_id = %d`, plan),
			fmt.Sprintf(`UPDATE package_pricing SET name = name || '!' WHERE virtfusion_package_id = %d`, plan),
			fmt.Sprintf(`DELETE FROM package_pricing WHERE virtfusion_package_id = %d`, plan),
			fmt.Sprintf(`INSERT INTO package_pricing (virtfusion_package_id, name, price, enabled) VALUES (%d, 'New', 500, true) ON CONFLICT DO NOTHING`, plan))
	}
	changes = append(changes,
		`INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, closed_reason, created_at, updated_at)
			SELECT id, 1, 'skypanel', 2, false, 1, 7.3, 'operator', now(), now() FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 1
			ON CONFLICT DO NOTHING`,
		`INSERT INTO virtfusion_cron_settings (hours_per_month) VALUES (720)`,
		`DELETE FROM settings WHERE key = 'virtfusion_self_service_hourly_credit'`,
		`INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'false') ON CONFLICT (key) DO UPDATE SET value = 'false'`)

	found := 0
	check := func(t rapid.TB, statements ...string) {
		tx, err := w.db.DB.BeginTx(w.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			if _, err := tx.ExecContext(w.Context(), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		candidates := w.candidates()
		var all []int64
		for id := int64(1); id <= 17; id++ {
			all = append(all, id)
		}
		effects, err := w.reconciler.Preview(w.Context(), all, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range effects {
			if e.ServerID == gone && e.Effect == db.EffectNone {
				continue // of a server that is gone only its billing counts
			}
			if e.Changes && w.value(`SELECT awaiting_run = '' FROM serversync.servers WHERE virtfusion_id = $1`, e.ServerID) == "true" {
				found++
				if !slices.Contains(candidates, e.ServerID) {
					t.Errorf("after %v server %d would change (%s, %s) and is left out", statements, e.ServerID, e.Effect, e.Why)
				}
			}
		}
	}
	undo := w.keep("virtfusion_hourly_billing", "virtfusion_hourly_transactions", "serversync.servers", "serversync.billing_rows", "serversync.overrides",
		"users", "package_pricing", "virtfusion_cron_settings", "settings")
	for _, one := range changes {
		check(t, one)
		undo()
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.SliceOfN(rapid.SampledFrom(changes), 2, 5).Draw(t, "changes")...)
		undo()
	})
	if found < len(changes) {
		t.Errorf("only %d servers would have been decided otherwise: the changes change too little", found)
	}
}

// candidates are the servers that a review decides again.
func (w *fleetWorld) candidates() []int64 {
	w.Helper()
	var all []int64
	for after := int64(0); ; {
		ids, last, err := db.ServersToReview(w.Context(), w.db, after)
		if err != nil {
			w.Fatal(err)
		}
		if last == 0 {
			return all
		}
		all, after = append(all, ids...), last
	}
}

// keep remembers tables; the function that it returns brings them back.
func (w *fleetWorld) keep(tables ...string) (undo func()) {
	w.Helper()
	for i, table := range tables {
		w.exec(fmt.Sprintf(`CREATE TABLE kept_%d AS TABLE %s`, i, table))
	}
	return func() {
		w.Helper()
		tx, err := w.db.DB.BeginTx(w.Context(), nil)
		if err != nil {
			w.Fatal(err)
		}
		statements := []string{`SET LOCAL session_replication_role = replica`} // no foreign keys meanwhile
		for i, table := range tables {
			statements = append(statements, `DELETE FROM `+table, fmt.Sprintf(`INSERT INTO %s OVERRIDING SYSTEM VALUE TABLE kept_%d`, table, i))
		}
		for _, s := range statements {
			if _, err := tx.ExecContext(w.Context(), s); err != nil {
				w.Fatalf("%s: %v", s, err)
			}
		}
		if err := tx.Commit(); err != nil {
			w.Fatal(err)
		}
	}
}
