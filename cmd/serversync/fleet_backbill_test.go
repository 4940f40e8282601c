package main_test

import (
	"context"
	"testing"
	"time"

	"serversync/db"
	"serversync/ingest"
	"serversync/reconciler"
	"serversync/virtfusion"
)

// TestApprovalOfTheTimeBefore: what SkyPANEL charges at once for the time before the
// discovery is shown, and one who approved without it has not approved it.
func TestApprovalOfTheTimeBefore(t *testing.T) {
	t.Parallel()
	w, _, run := held(t)
	w.want("0", `SELECT count(*) FROM serversync.run_items WHERE run_id = $1 AND (forecast ->> 'backBilled')::numeric > 0`, run.ID)

	// Started again with BILLING_START=creation.
	c := w.config(func(context.Context) (*virtfusion.Client, error) { return w.client, nil })
	limit, err := ingest.ParseMaxChanges("2")
	if err != nil {
		t.Fatal(err)
	}
	c.MaxChanges, c.Books = limit, w.otherReconciler(reconciler.Policy{InitialCharge: reconciler.ChargeRecord, SettleDelay: modelSettleDelay, StartAtCreation: true})
	w.runs = ingest.NewRuns(c)
	again := w.approve(run.ID)
	w.wantAskedAgain(&again, "for 5 servers it would do something else")
	// The servers were made a day before; the first hour is recorded by us, the present one due in advance.
	if got := again.Preview.BackBilled.StringFixed(2); got != "2.65" { // 24 hours of four at 0.02 and one at 0.03, whose first is rounded up
		t.Errorf("the time before is said to cost %s", got)
	}
	var shown db.CustomerEffect
	for _, one := range again.Preview.ByCustomer {
		if one.UserID == userChen {
			shown = one
		}
	}
	if got := shown.BackBilled.StringFixed(2); got != "0.73" {
		t.Errorf("for Chen it is said to cost %s", got)
	}

	// Two days later nobody has approved it yet: it has grown.
	w.pass(48 * time.Hour)
	again = w.approve(run.ID)
	w.wantAskedAgain(&again, "SkyPANEL would charge 7.93 at once for the time before, approved were 2.65") // 48 hours of 0.11 more
	w.want("0", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	if done := w.approve(run.ID); done.State != db.RunSucceeded {
		t.Errorf("it is %s: %s", done.State, done.Note)
	}
}
