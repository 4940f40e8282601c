package main_test

import (
	"testing"
	"time"

	"serversync/virtfusion/virtfusionsim"
)

// TestNothingIsTakenOnAWebhooksWordAlone: a server of which nothing but webhooks
// ever told is asked for first. Whoever can forge them spends nobody's credit.
func TestNothingIsTakenOnAWebhooksWordAlone(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	ids := w.bill(4)
	w.exec(`UPDATE serversync.servers SET pulled_at = NULL, observed_source = 'webhook' WHERE virtfusion_id <> $1`, ids[3]) // as if told, not asked
	w.exec(`UPDATE serversync.charges SET owner_id = $2 WHERE virtfusion_id = $1`, ids[1], accountChen)
	for _, forged := range []int64{ids[0], ids[3]} { // VirtFusion has neither; the last it has shown
		if err := w.panel.DestroySilently(forged); err != nil {
			t.Fatal(err)
		}
	}
	w.take()
	w.wantStates("cancelled cancelled taken taken")
	w.want("failed failed completed completed", `SELECT string_agg(status, ' ' ORDER BY server_id) FROM virtfusion_hourly_transactions`)
	w.want("does not know it, and never showed it", `SELECT right(reason, 37) FROM serversync.charges WHERE virtfusion_id = $1`, ids[0])
	w.want("the first hour is not charged", `SELECT left(reason, 29) FROM serversync.history WHERE kind = 'charge_cancelled' AND virtfusion_id = $1`, ids[1])
}

// TestAServerThatCannotBeAskedForWaits: nothing is taken, and it is tried again.
func TestAServerThatCannotBeAskedForWaits(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	w.bill(1)
	w.exec(`UPDATE serversync.servers SET pulled_at = NULL, observed_source = 'webhook'`)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultUnauthorized, Op: virtfusionsim.OpGet})
	w.take()
	w.wantStates("due")
	w.wantTokens(0)
	w.panel.SetAPIFaults()
	w.pass(2 * time.Minute)
	w.take()
	w.wantStates("taken")
}
