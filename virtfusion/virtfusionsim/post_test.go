package virtfusionsim_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// arrivals notes what arrives: "3" is the third webhook, "3+1" its first repeat.
type arrivals struct {
	mu  sync.Mutex
	all []string
}

func (a *arrivals) add(label string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, label)
}

// take returns what has arrived since the last look.
func (a *arrivals) take() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := strings.Join(a.all, " ")
	a.all = nil
	return taken
}

func label(d virtfusionsim.Delivery) string {
	if d.Repeat == 0 {
		return fmt.Sprint(d.Sequence)
	}
	return fmt.Sprintf("%d+%d", d.Sequence, d.Repeat)
}

// posting returns a panel with a server whose renames are its webhooks, in both
// modes, and what arrives.
func posting(t *testing.T, config virtfusionsim.Config, test func(t *testing.T, rename func(times int), panel *virtfusionsim.Panel, arrived *arrivals)) {
	t.Helper()
	run := func(t *testing.T, config virtfusionsim.Config, arrived *arrivals) {
		t.Helper()
		panel := populated(config)
		id := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, Silent: true})).ID
		rename := func(times int) {
			for range times {
				must[virtfusionsim.Server](t)(panel.Rename(id, "n", "n.example.net"))
			}
			if err := panel.Drain(t.Context()); err != nil {
				t.Error(err)
			}
		}
		test(t, rename, panel, arrived)
	}
	t.Run("hook", func(t *testing.T) {
		t.Parallel()
		arrived, config := &arrivals{}, config
		config.Hook = func(d virtfusionsim.Delivery) { arrived.add(label(d)) }
		run(t, config, arrived)
	})
	t.Run("http", func(t *testing.T) {
		t.Parallel()
		arrived, config := &arrivals{}, config
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived.add(r.Header.Get("Label")) }))
		t.Cleanup(server.Close)
		config.WebhookURL, config.Transport = server.URL, labelling{}
		run(t, config, arrived)
	})
}
