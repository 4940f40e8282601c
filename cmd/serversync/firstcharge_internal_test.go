package main

import (
	"bytes"
	"strings"
	"testing"

	"serversync/api"
	"serversync/db"
	"serversync/db/dbtest"
	"serversync/reconciler"
)

func TestFirstChargesCanBeDeducted(t *testing.T) {
	t.Parallel()
	c, err := read(t, settings(), "--billing-initial-charge=deduct")
	if err != nil || c.policy.InitialCharge != reconciler.ChargeDeduct {
		t.Errorf("%q, %v", c.policy.InitialCharge, err)
	}
}

// TestPreviewSaysWhoIsCharged: what is collected is not said to be nobody's.
func TestPreviewSaysWhoIsCharged(t *testing.T) {
	t.Parallel()
	var p page
	tellPreview(&p, &api.Run{Preview: &api.Preview{Create: 2, FirstCharges: 2, FirstChargeAmount: "0.08", Collected: true, ListMonthly: "2.00", EffectiveMonthly: "2.00"}})
	var out strings.Builder
	if err := p.print(&out); err != nil {
		t.Fatal(err)
	}
	if said := out.String(); !strings.Contains(said, "at once   2 first charges of 0.08 in all are taken from the customers' credit in VirtFusion\n") || strings.Contains(said, "nobody collects") {
		t.Errorf("%s", said)
	}
}

// TestDoctorTellsOfFirstCharges: of those that wait for a person, and of what
// keeps others from being taken.
func TestDoctorTellsOfFirstCharges(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	database, err := db.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	doctor := func(statement string) string {
		t.Helper()
		if _, err := database.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		run(t.Context(), []string{"serversync", "doctor", "--database-url", dsn, "--url", "http://127.0.0.1:1", "--webhook-tokens", "x"}, &out, &out)
		return strings.Join(strings.Fields(out.String()), " ")
	}
	if said := doctor(`SELECT 1`); strings.Contains(said, "first charges") {
		t.Errorf("of none: %s", said)
	}
	for _, c := range []struct{ statement, says string }{
		{`INSERT INTO serversync.charges (transaction_id, billing_id, virtfusion_id, user_id, owner_id, tokens, reference, created_at, due_at) VALUES (1, 1, 1, 1, 1, 1, 'r', now(), now())`, "ok first charges 1 wait to be taken, 0 are being taken"},
		{`ALTER TABLE transactions RENAME TO away`, "FAIL first charges 1 wait, and could not be entered in SkyPANEL's ledger"},
		{`UPDATE serversync.charges SET state = 'unclear'`, "FAIL first charges of 1 nobody knows whether their credit was taken"},
	} {
		if said := doctor(c.statement); !strings.Contains(said, c.says) {
			t.Errorf("doctor does not say %q:\n%s", c.says, said)
		}
	}
}
