package virtfusion_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"

	"serversync/virtfusion"
)

func TestRequestsAreCountedByTheirResults(t *testing.T) {
	t.Parallel()
	statuses := []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusOK, http.StatusUnauthorized}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		status := statuses[0]
		statuses = statuses[1:]
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"message":"x"}`))
	}))
	t.Cleanup(server.Close)
	registry := prometheus.NewRegistry()
	client, err := virtfusion.New(virtfusion.Config{
		BaseURL: server.URL, Token: "t", Metrics: virtfusion.NewMetrics(registry), BackOff: func() backoff.BackOff { return &backoff.ZeroBackOff{} }, Budget: virtfusion.NewBudget(1000),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Connect(t.Context()); err != nil { // 429, 500, then an answer
		t.Fatal(err)
	}
	if err := client.Connect(t.Context()); err == nil {
		t.Fatal("a refused token is no error")
	}
	got := make(map[string]float64)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "serversync_virtfusion_requests_total":
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			case "serversync_virtfusion_budget_wait_seconds":
				got[m.GetLabel()[0].GetValue()] = float64(m.GetHistogram().GetSampleCount())
			case "serversync_virtfusion_clock_offset_seconds":
				got["offset"] = m.GetGauge().GetValue()
			}
		}
	}
	for result, want := range map[string]float64{"rate_limited": 1, "unavailable": 1, "ok": 1, "unauthorized": 1, "given_up": 0, "not_found": 0, "urgent": 4} {
		if got[result] != want {
			t.Errorf("%s: %v, want %v", result, got[result], want)
		}
	}
	if got["offset"] < 3590 || got["offset"] > 3610 {
		t.Errorf("the clocks are %v s apart, want an hour", got["offset"])
	}
}
