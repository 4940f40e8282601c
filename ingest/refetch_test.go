package ingest_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"serversync/events"
	"serversync/ingest"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// refetching is a simulated VirtFusion with two servers, and a refetcher that
// asks it.
type refetching struct {
	panel     *virtfusionsim.Panel
	recorder  *recorder
	refetcher *ingest.Refetcher
	// requested is when the panel's clock stood at the request.
	requested time.Time
	clients   int
	clientErr error
}

func setupRefetch(t *testing.T) *refetching {
	t.Helper()
	r := &refetching{recorder: new(recorder), requested: testNow().Add(-time.Hour)}
	r.panel = virtfusionsim.New(virtfusionsim.Config{Clock: func() time.Time { return r.requested }})
	r.panel.AddUser(virtfusionsim.User{ID: 70, ExtRelationID: 7, Name: "Seven"})
	r.panel.AddPackage(virtfusionsim.Package{ID: 3, Name: "Small", MemoryMB: 1024})
	for _, name := range []string{"web1", "web2"} {
		if _, err := r.panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 70, PackageID: 3, Name: name, Built: true}); err != nil {
			t.Fatal(err)
		}
	}
	web := httptest.NewServer(r.panel.Handler())
	t.Cleanup(web.Close)
	client, err := virtfusion.New(virtfusion.Config{
		BaseURL: web.URL, Token: virtfusionsim.DefaultToken, MaxRetries: -1, Clock: func() time.Time { return r.requested },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.refetcher = ingest.NewRefetcher(func(context.Context) (*virtfusion.Client, error) {
		r.clients++
		return client, r.clientErr
	}, r.recorder, testNow)
	return r
}

func TestRefetchPublishesWhatVirtFusionSays(t *testing.T) {
	t.Parallel()
	r := setupRefetch(t)
	if err := r.refetcher.Refetch(t.Context(), []int64{1, 99, 2}); err != nil {
		t.Fatal(err)
	}
	published := r.recorder.events()
	if len(published) != 3 || r.clients != 1 {
		t.Fatalf("%d events, %d clients", len(published), r.clients)
	}
	for i, e := range published {
		if e.Source != events.SourceRefetch || !e.ReceivedAt.Equal(testNow()) || !e.ObservedAt.Equal(r.requested) || e.Failed || e.Name != "" || e.RunID != "" {
			t.Errorf("event %d: %+v", i, e)
		}
		if err := e.Seal(); err != nil {
			t.Error(err)
		}
	}
	e := published[0]
	if s := e.Server; e.Kind != events.KindObserved || s.ID != 1 || *s.Name != "web1" || s.Owner.ID != 70 || *s.Owner.ExtRelationID != 7 || !s.Owner.Whole ||
		*s.PackageID != 3 || s.UpdatedAt == nil || s.UUID == nil {
		t.Errorf("server 1 is %+v", s)
	}
	gone := published[1]
	if gone.Kind != events.KindDestroyed || gone.Server.ID != 99 || gone.Server.UUID != nil || gone.Server.Owner != nil {
		t.Errorf("server 99 is %+v", gone)
	}
	if published[2].Server.ID != 2 {
		t.Errorf("server 2 is %+v", published[2])
	}
}

// Only VirtFusion's own clear words become an observation.
func TestRefetchPublishesNothingDoubtful(t *testing.T) {
	t.Parallel()
	for _, kind := range virtfusionsim.Faults() {
		switch {
		case !slices.Contains(kind.Operations(), virtfusionsim.OpGet):
			continue
		case strings.Contains(string(kind), "hanging"): // ends with the request's own deadline
			continue
		}
		lies := map[virtfusionsim.Fault]bool{ // what nobody could tell from the truth
			virtfusionsim.FaultNotFound: true, virtfusionsim.FaultStale: true, virtfusionsim.FaultWrongOwner: true, virtfusionsim.FaultHugeName: true,
		}
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := setupRefetch(t)
			r.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: kind, ServerID: 1})
			err := r.refetcher.Refetch(t.Context(), []int64{1, 2})
			published := r.recorder.events()
			if lies[kind] {
				if err != nil || len(published) != 2 {
					t.Errorf("%d events, %v", len(published), err)
				}
				if len(published) > 0 && published[0].Server.Name != nil && len(*published[0].Server.Name) > 4096 {
					t.Errorf("a name of %d bytes is to be stored", len(*published[0].Server.Name))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "server 1") {
				t.Errorf("the error does not name the server: %v", err)
			}
			if len(published) != 1 || published[0].Server.ID != 2 { // the other is asked about all the same
				t.Errorf("published %+v", published)
			}
		})
	}
}

func TestRefetchFails(t *testing.T) {
	t.Parallel()
	t.Run("no client", func(t *testing.T) {
		t.Parallel()
		r := setupRefetch(t)
		r.clientErr = errors.New("no token is set")
		if err := r.refetcher.Refetch(t.Context(), []int64{1}); !errors.Is(err, r.clientErr) {
			t.Error(err)
		}
		if n := r.panel.APIStats(virtfusionsim.OpGet).Calls; n != 0 {
			t.Errorf("%d calls", n)
		}
	})
	t.Run("the broker is away", func(t *testing.T) {
		t.Parallel()
		r := setupRefetch(t)
		r.recorder.err = errors.New("away")
		if err := r.refetcher.Refetch(t.Context(), []int64{1, 2}); !errors.Is(err, r.recorder.err) || strings.Count(err.Error(), "away") != 2 {
			t.Error(err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		r := setupRefetch(t)
		ctx, cancel := context.WithCancel(t.Context())
		r.recorder.before = func(context.Context) { cancel() }
		if err := r.refetcher.Refetch(ctx, []int64{1, 2}); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if n := len(r.recorder.events()); n != 1 {
			t.Errorf("%d events after the end", n)
		}
	})
	t.Run("nothing to ask", func(t *testing.T) {
		t.Parallel()
		r := setupRefetch(t)
		if err := r.refetcher.Refetch(t.Context(), nil); err != nil || len(r.recorder.events()) != 0 {
			t.Error(err)
		}
	})
}

// Asked twice, two answers: the time of the request tells them apart.
func TestRefetchTwice(t *testing.T) {
	t.Parallel()
	r := setupRefetch(t)
	for range 2 {
		if err := r.refetcher.Refetch(t.Context(), []int64{1}); err != nil {
			t.Fatal(err)
		}
		r.requested = r.requested.Add(time.Millisecond)
	}
	published := r.recorder.events()
	for i := range published {
		if err := published[i].Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if published[0].ID == published[1].ID {
		t.Error("the second answer would pass for a repetition of the first")
	}
}
