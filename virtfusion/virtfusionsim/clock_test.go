package virtfusionsim_test

import (
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// TestSkew: everything that the panel dates is off, so the client's
// observations and the webhooks agree.
func TestSkew(t *testing.T) {
	t.Parallel()
	var last virtfusionsim.Delivery
	panel := populated(virtfusionsim.Config{Clock: epoch, Skew: time.Hour, Hook: func(d virtfusionsim.Delivery) { last = d }})
	server := httptest.NewServer(panel.Handler())
	t.Cleanup(server.Close)
	client := must[*virtfusion.Client](t)(virtfusion.New(virtfusion.Config{
		BaseURL: server.URL, Token: virtfusionsim.DefaultToken, Budget: virtfusion.NewBudget(math.Inf(1)), MaxRetries: -1, Clock: epoch,
	}))
	id := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1})).ID
	for _, skew := range []time.Duration{time.Hour, 0, -time.Hour} {
		panel.SetSkew(skew)
		must[virtfusionsim.Server](t)(panel.Build(id))
		want := epoch().Add(skew)
		got := must[virtfusion.Observation](t)(client.GetServer(t.Context(), id))
		webhook := must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook(last.Body))
		if !got.Server.Updated.Equal(want) || !webhook.Created.Equal(want) {
			t.Errorf("skew %v: updated %v, webhook %v, want %v", skew, got.Server.Updated, webhook.Created, want)
		}
		if got.ObservedAt.Sub(want).Abs() > time.Second {
			t.Errorf("skew %v: observed at %v, want about %v", skew, got.ObservedAt, want)
		}
		if !got.Server.Created.Equal(epoch().Add(time.Hour)) {
			t.Errorf("skew %v: created %v, which was dated before", skew, got.Server.Created)
		}
	}
}

func TestCoarsePrecisionMakesTies(t *testing.T) {
	t.Parallel()
	now := epoch()
	var reported []time.Time
	panel := populated(virtfusionsim.Config{
		Clock: func() time.Time { return now }, Precision: time.Minute,
		Hook: func(d virtfusionsim.Delivery) { reported = append(reported, d.Created) },
	})
	server := must[virtfusionsim.Server](t)
	created := server(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1}))
	now = now.Add(10 * time.Second)
	built := server(panel.Build(created.ID))
	now = now.Add(time.Minute)
	suspended := server(panel.Suspend(created.ID))
	if !built.Updated.Equal(created.Updated) || suspended.Updated.Sub(built.Updated) != time.Minute {
		t.Errorf("updated: %v, %v, %v", created.Updated, built.Updated, suspended.Updated)
	}
	if reported[1].Sub(reported[0]) != 10*time.Second {
		t.Errorf("the webhooks were reported at %v", reported)
	}
}

func TestOlderPanels(t *testing.T) {
	t.Parallel()
	var last virtfusionsim.Delivery
	panel := populated(virtfusionsim.Config{OmitUpdated: true, OmitPackageID: true, Hook: func(d virtfusionsim.Delivery) { last = d }})
	server := httptest.NewServer(panel.Handler())
	t.Cleanup(server.Close)
	client := dial(t, server.URL, virtfusionsim.DefaultToken)
	id := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, PackageID: 2})).ID
	webhook := must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook(last.Body))
	full := must[virtfusion.Page](t)(client.ListServers(t.Context(), 1, 20, true))
	simple := must[virtfusion.Page](t)(client.ListServers(t.Context(), 1, 20, false))
	for form, got := range map[string]virtfusion.Server{
		"webhook": must[virtfusion.Server](t)(virtfusion.DecodeServer(webhook.Data.Server)),
		"get":     must[virtfusion.Observation](t)(client.GetServer(t.Context(), id)).Server,
		"full":    full.Servers[0],
		"simple":  simple.Servers[0],
	} {
		if got.ID != id || got.Updated != nil || got.PackageID != nil || got.Created == nil {
			t.Errorf("%s: %+v", form, got)
		}
	}
	if *webhook.Data.Args.PackageID != 2 {
		t.Errorf("the creation's package: %v", webhook.Data.Args.PackageID)
	}
}
