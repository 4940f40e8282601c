package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
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

// tell has a webhook tell of a server, whether it is true or not.
func (w *till) tell(s events.Server) {
	w.Helper()
	e := events.Event{Kind: events.KindUpdated, Source: events.SourceWebhook, Name: "server.updated", ObservedAt: w.clock(), ReceivedAt: w.clock(), Server: s}
	if _, err := w.stream.Publisher.Publish(w.Context(), &e); err != nil {
		w.Fatal(err)
	}
	w.until(e.ID, `SELECT observed_event_id FROM serversync.servers WHERE virtfusion_id = $1`, s.ID)
}

// TestNothingIsTakenOfWhomAWebhookNames: that VirtFusion has shown a server says
// nothing of an owner whom only a webhook names.
func TestNothingIsTakenOfWhomAWebhookNames(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} { // what was told counts by its time, or by its "updated" alone
		w := newTill(t)
		id := w.create(1, accountNobody, packageLarge)[0]
		run := w.sweep()
		w.wantState(&run, db.RunSucceeded)
		w.want("unlinked", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, id)
		at := w.clock()
		if late {
			w.micros.Store(at.Add(-time.Minute).UnixMicro())
		} else {
			w.pass(time.Minute)
		}
		w.tell(events.Server{ID: id, PackageID: new(int64(packageLarge)), UpdatedAt: new(at.Add(time.Hour)), Owner: &events.Owner{ID: accountChen}})
		w.micros.Store(at.Add(time.Hour).UnixMicro())
		w.wantStates("due")
		w.take()
		w.wantStates("cancelled")
		w.wantTokens(0)
	}
}

// answering has VirtFusion answer with a server as it is written.
type answering string

// RoundTrip implements [http.RoundTripper].
func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/servers/") {
		return http.DefaultTransport.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(a))), Request: r,
	}, nil
}

// TestAnAnswerThatDoesNotSayEnough: nothing is taken of a customer whom VirtFusion
// does not name, nor for a server that by its answer it bills itself, of which the
// books do not know yet.
func TestAnAnswerThatDoesNotSayEnough(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ answer, state string }{
		{`{"data": {"id": %d, "ownerId": 7}}`, "taken"},
		{`{"data": {"id": %d}}`, "due"},
		{`{"data": {"id": 9%d, "ownerId": 7}}`, "due"},
		{`{"data": {"id": %d, "ownerId": 7, "selfService": 1}}`, "due"},
	} {
		w := newTill(t)
		id := w.bill(1)[0]
		w.exec(`UPDATE serversync.servers SET pulled_at = NULL, observed_source = 'webhook'`) // as if told, not asked
		w.answer(fmt.Sprintf(c.answer, id))
		w.take()
		if got := w.states(); got != c.state {
			t.Errorf("%s: the charge is %s, want %s", c.answer, got, c.state)
		}
	}
}

// answer has VirtFusion answer so whoever takes credit asks for a server.
func (w *till) answer(answer string) {
	w.Helper()
	client, err := virtfusion.New(virtfusion.Config{
		BaseURL: w.url, Token: virtfusionsim.DefaultToken, MaxRetries: -1, Budget: virtfusion.NewBudget(1e9), Clock: w.clock, Transport: answering(answer),
	})
	if err != nil {
		w.Fatal(err)
	}
	w.charges.Client = func(context.Context) (*virtfusion.Client, error) { return client, nil }
}
