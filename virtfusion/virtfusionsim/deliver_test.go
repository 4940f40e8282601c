package virtfusionsim_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// receiver takes webhooks and answers each with the next status.
type receiver struct {
	mu       sync.Mutex
	statuses []int // the last one for ever
	events   []string
	got      chan struct{}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	webhook, decodeErr := virtfusion.DecodeWebhook(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	status := r.statuses[min(len(r.events), len(r.statuses)-1)]
	if err != nil || decodeErr != nil {
		status = http.StatusBadRequest
	}
	r.events = append(r.events, webhook.Event)
	w.WriteHeader(status)
	r.got <- struct{}{}
}

func (r *receiver) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func receiving(t *testing.T, statuses ...int) (*virtfusionsim.Panel, *receiver) {
	t.Helper()
	r := &receiver{statuses: statuses, got: make(chan struct{}, 1000)}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return populated(virtfusionsim.Config{WebhookURL: server.URL}), r
}

func TestDrainDeliversInOrderAndNeverAgain(t *testing.T) {
	t.Parallel()
	panel, r := receiving(t, 202, 503, 202)
	server := must[virtfusionsim.Server](t)
	id := server(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1})).ID
	server(panel.Build(id))
	server(panel.Destroy(id))
	if n := len(panel.Deliveries()); n != 3 {
		t.Errorf("%d deliveries wait, want 3", n)
	}
	for range 2 {
		if err := panel.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.all(); !slices.Equal(got, []string{"server.create", "server.build", "server.destroy"}) {
		t.Errorf("delivered %v", got)
	}
	want := virtfusionsim.Stats{Emitted: 3, Accepted: 2, Refused: 1, LastStatus: 202}
	if got := panel.Stats(); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	panel := populated(virtfusionsim.Config{WebhookURL: gone.URL})
	must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1}))
	if err := panel.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := panel.Stats(); got.Failed != 1 || got.Queued != 0 || got.LastError == "" {
		t.Errorf("Stats = %+v, want one failure", got)
	}
}

func TestRunDeliversUntilItsEndAndWhatIsLeft(t *testing.T) {
	t.Parallel()
	panel, r := receiving(t, 202)
	ctx, cancel := context.WithCancel(t.Context())
	var running errgroup.Group
	running.Go(func() error { return panel.Run(ctx) })
	must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1}))
	<-r.got
	cancel()
	must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1}))
	if err := running.Wait(); err != nil {
		t.Fatal(err)
	}
	// The second may have come after Run's last look.
	if err := panel.Drain(t.Context()); err != nil || len(r.all()) != 2 {
		t.Errorf("delivered %v: %v", r.all(), err)
	}
}

func TestRunDrainsWhenItStartsTooLate(t *testing.T) {
	t.Parallel()
	panel, r := receiving(t, 202)
	for range 5 {
		must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := panel.Drain(ctx); err == nil || !strings.Contains(err.Error(), "5 webhooks") {
		t.Errorf("Drain after the end = %v, want five left", err)
	}
	if err := panel.Run(ctx); err != nil || len(r.all()) != 5 {
		t.Errorf("Run = %v, delivered %d, want all five", err, len(r.all()))
	}
}

func TestPanelIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	panel, r := receiving(t, 202)
	api := httptest.NewServer(panel.Handler())
	t.Cleanup(api.Close)
	client := dial(t, api.URL, virtfusionsim.DefaultToken)
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			for range 20 {
				server, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, PackageID: 1})
				if err != nil {
					return err
				}
				if _, err := client.GetServer(t.Context(), server.ID); err != nil {
					return err
				}
				if _, err := panel.Move(server.ID, 2); err != nil {
					return err
				}
				if err := panel.Drain(t.Context()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := panel.Stats(); got.Accepted != 320 || len(r.all()) != 320 || got.Queued != 0 {
		t.Errorf("Stats = %+v, want 320 accepted", got)
	}
}
