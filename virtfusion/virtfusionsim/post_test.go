package virtfusionsim_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// line is a panel whose webhooks report the renames of one server, to 1, 2, 3,
// …, and what of them arrives.
type line struct {
	t     *testing.T
	panel *virtfusionsim.Panel
	id    int64
	sent  int

	mu      sync.Mutex
	arrived []string
}

// onLines runs a test on a panel with a Hook and on one that sends over HTTP.
func onLines(t *testing.T, config virtfusionsim.Config, test func(l *line)) {
	t.Helper()
	t.Run("hook", func(t *testing.T) {
		t.Parallel()
		l, config := &line{t: t}, config
		config.Hook = func(d virtfusionsim.Delivery) { l.take(d.Header, d.Body) }
		l.begin(config)
		test(l)
	})
	t.Run("http", func(t *testing.T) {
		t.Parallel()
		l, config := &line{t: t}, config
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			l.take(r.Header, body)
		}))
		t.Cleanup(server.Close)
		config.WebhookURL = server.URL
		l.begin(config)
		test(l)
	})
}

func (l *line) begin(config virtfusionsim.Config) {
	l.t.Helper()
	l.panel = populated(config)
	l.id = must[virtfusionsim.Server](l.t)(l.panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, Silent: true})).ID
}

// take notes a delivery by its server's name, with a ' when it has a
// hookEventId of its own.
func (l *line) take(header http.Header, body []byte) {
	l.t.Helper()
	webhook, err := virtfusion.DecodeWebhook(body)
	if err != nil {
		l.t.Error(err)
	}
	server, err := virtfusion.DecodeServer(webhook.Data.Server)
	if err != nil {
		l.t.Error(err)
	}
	if header.Get(virtfusion.HeaderHookEvent) != webhook.HookEventID {
		l.t.Errorf("hook event %s in the header, %s in the body", header.Get(virtfusion.HeaderHookEvent), webhook.HookEventID)
	}
	label := *server.Name
	if webhook.HookEventID != "1000" {
		label += "'"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrived = append(l.arrived, label)
}

// send reports the next n renames and delivers what is due.
func (l *line) send(n int) {
	l.t.Helper()
	for range n {
		l.sent++
		must[virtfusionsim.Server](l.t)(l.panel.Rename(l.id, strconv.Itoa(l.sent), ""))
	}
	l.drain()
}

func (l *line) drain() {
	l.t.Helper()
	if err := l.panel.Drain(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// got returns what has arrived since the last look, in order.
func (l *line) got() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.arrived = nil }()
	return strings.Join(l.arrived, " ")
}

func (l *line) want(want string) {
	l.t.Helper()
	if got := l.got(); got != want {
		l.t.Errorf("arrived: %q, want %q", got, want)
	}
}

func TestScriptedFates(t *testing.T) {
	t.Parallel()
	type fates = []virtfusionsim.Fate
	again := func(repeats ...virtfusionsim.Repeat) virtfusionsim.Fate {
		return virtfusionsim.Fate{Repeats: repeats}
	}
	for name, test := range map[string]struct {
		script  fates
		arrived string // of five
		flushed string // in the end
		stats   virtfusionsim.Stats
	}{
		"none":           {nil, "1 2 3 4 5", "", virtfusionsim.Stats{}},
		"lost":           {fates{{}, {Lost: true}}, "1 3 4 5", "", virtfusionsim.Stats{Lost: 1}},
		"late":           {fates{{After: 2}}, "2 3 1 4 5", "", virtfusionsim.Stats{Late: 1}},
		"late for ever":  {fates{{After: virtfusionsim.UntilReleased}}, "2 3 4 5", "1", virtfusionsim.Stats{Late: 1, Held: 1}},
		"too late":       {fates{{}, {}, {After: 9}, {After: 9}}, "1 2 5", "3 4", virtfusionsim.Stats{Late: 2, Held: 2}},
		"both at once":   {fates{{After: 2}, {After: 1}}, "3 1 2 4 5", "", virtfusionsim.Stats{Late: 2}},
		"twice":          {fates{again(virtfusionsim.Repeat{})}, "1 1 2 3 4 5", "", virtfusionsim.Stats{Repeated: 1}},
		"twice, later":   {fates{again(virtfusionsim.Repeat{After: 3})}, "1 2 3 4 1 5", "", virtfusionsim.Stats{Repeated: 1}},
		"under another":  {fates{{}, again(virtfusionsim.Repeat{Renumbered: true}, virtfusionsim.Repeat{})}, "1 2 2' 2 3 4 5", "", virtfusionsim.Stats{Repeated: 2}},
		"lost for good":  {fates{{Lost: true, Repeats: []virtfusionsim.Repeat{{}}}}, "2 3 4 5", "", virtfusionsim.Stats{Lost: 1}},
		"late and twice": {fates{{After: 3, Repeats: []virtfusionsim.Repeat{{After: 1}}}}, "2 1 3 4 1 5", "", virtfusionsim.Stats{Late: 1, Repeated: 1}},
		"two shuffled":   {fates{{}, {Window: 2}}, "1 3 2 4 5", "", virtfusionsim.Stats{Reordered: 2}},
		"open window":    {fates{{}, {}, {}, {Window: 3}}, "1 2 3", "4 5", virtfusionsim.Stats{Held: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onLines(t, virtfusionsim.Config{}, func(l *line) {
				l.panel.Script(test.script...)
				l.send(5)
				l.want(test.arrived)
				got, want := l.panel.Stats(), test.stats
				want.Emitted = 5
				got.Accepted, got.LastStatus = 0, 0
				if diff := cmp.Diff(want, got); diff != "" {
					l.t.Errorf("Stats (-want +got):\n%s", diff)
				}
				if err := l.panel.Flush(l.t.Context()); err != nil {
					l.t.Fatal(err)
				}
				l.want(test.flushed)
				l.send(1)
				l.want("6")
			})
		})
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	onLines(t, virtfusionsim.Config{}, func(l *line) {
		l.panel.Script(virtfusionsim.Fate{After: 1})
		l.send(1)
		l.panel.Hold()
		l.send(3)
		l.want("")
		if held := l.panel.Held(); len(held) != 4 || held[0].Sequence != 1 || held[3].Sequence != 4 {
			l.t.Errorf("held: %d", len(held))
		}
		if n := l.panel.Release(); n != 4 {
			l.t.Errorf("Release = %d, want 4", n)
		}
		l.send(1)
		l.want("1 2 3 4 5")

		l.panel.Hold()
		l.send(2)
		if n := l.panel.ReleaseShuffled(); n != 2 {
			l.t.Errorf("ReleaseShuffled = %d, want 2", n)
		}
		l.drain()
		l.want("7 6")

		l.panel.Hold()
		l.send(2)
		if n := l.panel.Discard(); n != 2 || l.panel.Stats().Lost != 2 {
			l.t.Errorf("Discard = %d, %d lost, want 2", n, l.panel.Stats().Lost)
		}
		l.send(1)
		l.want("")
		if err := l.panel.Flush(l.t.Context()); err != nil {
			l.t.Fatal(err)
		}
		l.want("10")
	})
}

func TestDeliverAnyOrder(t *testing.T) {
	t.Parallel()
	onLines(t, virtfusionsim.Config{}, func(l *line) {
		l.panel.Hold()
		l.send(3)
		held := l.panel.Held()
		l.panel.Discard()
		l.panel.Deliver(held[1], held[2], held[1])
		l.drain()
		l.want("2 3 2")
	})
}

func TestRedeliver(t *testing.T) {
	t.Parallel()
	onLines(t, virtfusionsim.Config{Journal: true}, func(l *line) {
		l.panel.Script(virtfusionsim.Fate{After: 1}, virtfusionsim.Fate{}, virtfusionsim.Fate{Lost: true})
		l.send(4)
		l.want("2 1 4")
		l.panel.Hold() // bites new ones only
		for range 2 {
			if err := l.panel.Redeliver(l.t.Context()); err != nil {
				l.t.Fatal(err)
			}
			l.want("1 2 3 4")
		}
		if n := len(l.panel.Journal()); n != 4 {
			l.t.Errorf("%d in the journal, want 4", n)
		}
	})
	if err := populated(virtfusionsim.Config{}).Redeliver(t.Context()); !errors.Is(err, virtfusionsim.ErrNoJournal) {
		t.Errorf("without a journal: %v", err)
	}
}

func TestRenumberedRepeatIsTheSameWebhook(t *testing.T) {
	t.Parallel()
	panel, reported := hooked(t)
	id := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, Silent: true})).ID
	for range 2 { // ids as numbers, and as text
		panel.Script(virtfusionsim.Fate{Repeats: []virtfusionsim.Repeat{{Renumbered: true}}})
		must[virtfusionsim.Server](t)(panel.Build(id))
	}
	for i := 0; i < len(*reported); i += 2 {
		first, second := (*reported)[i], (*reported)[i+1]
		a, b := must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook(first.Body)), must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook(second.Body))
		if a.HookEventID != "3" || b.HookEventID == "3" || second.Repeat != 1 || first.Header.Get(virtfusion.HeaderHookEvent) != "3" {
			t.Errorf("hook events %s and %s", a.HookEventID, b.HookEventID)
		}
		if back := bytes.Replace(second.Body, []byte(b.HookEventID), []byte("3"), 1); !bytes.Equal(first.Body, back) {
			t.Errorf("the bodies differ:\n%s\n%s", first.Body, second.Body)
		}
	}
}

func TestDeliveryFaultsAreFixedByTheirSeed(t *testing.T) {
	t.Parallel()
	const sent = 200
	live := func(t *testing.T, seed uint64, faults virtfusionsim.DeliveryFaults) (string, virtfusionsim.Stats) {
		t.Helper()
		l := &line{t: t}
		l.begin(virtfusionsim.Config{Seed: seed, Hook: func(d virtfusionsim.Delivery) { l.take(d.Header, d.Body) }})
		l.panel.SetDeliveryFaults(faults)
		l.send(sent)
		stats := l.panel.Stats()
		l.panel.Release()
		return l.got(), stats
	}
	faults := virtfusionsim.DeliveryFaults{Lose: 0.1, Repeat: 0.2, Delay: 0.2, Reorder: 0.05, MaxDelay: 5, Window: 3}
	first, stats := live(t, 1, faults)
	if again, _ := live(t, 1, faults); again != first {
		t.Error("the same seed gave other faults")
	}
	if other, _ := live(t, 2, faults); other == first {
		t.Error("another seed gave the same faults")
	}
	for what, n := range map[string]int{"lost": stats.Lost, "late": stats.Late, "repeated": stats.Repeated, "reordered": stats.Reordered} {
		if n < 8 || n > 80 {
			t.Errorf("%d of 200 were %s", n, what)
		}
	}
	arrived := strings.Fields(first)
	if want := stats.Emitted - stats.Lost + stats.Repeated; len(arrived) != want {
		t.Errorf("%d arrived, want %d", len(arrived), want)
	}
	slices.Sort(arrived)
	if distinct := slices.Compact(slices.DeleteFunc(arrived, func(label string) bool { return strings.HasSuffix(label, "'") })); len(distinct) != sent-stats.Lost {
		t.Errorf("%d of 200 arrived, %d were lost", len(distinct), stats.Lost)
	}

	lost, _ := live(t, 1, virtfusionsim.DeliveryFaults{Lose: 0.1})
	if _, more := live(t, 1, faults); sent-len(strings.Fields(lost)) != more.Lost {
		t.Error("other chances changed which ones are lost")
	}
	all, none := live(t, 1, virtfusionsim.DeliveryFaults{Lose: 1})
	if all != "" || none.Lost != sent {
		t.Errorf("%d were lost, want all", none.Lost)
	}
	in, _ := live(t, 1, virtfusionsim.DeliveryFaults{})
	if out, stats := live(t, 1, virtfusionsim.DeliveryFaults{Reorder: 1}); stats.Reordered != sent || len(out) != len(in) || out == in {
		t.Errorf("%d were reordered, want all", stats.Reordered)
	}
}

// TestFaultsAreSafeForConcurrentUse is for the race detector.
func TestFaultsAreSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	panel, client := serving(t)
	var group errgroup.Group
	for worker := range 4 {
		group.Go(func() error {
			for n := range 20 {
				panel.SetDeliveryFaults(virtfusionsim.DeliveryFaults{Repeat: 0.5, Delay: 0.5, Reorder: 0.5})
				panel.SetAPIFaults(
					virtfusionsim.APIFault{Kind: virtfusionsim.FaultStale, Chance: 0.3},
					virtfusionsim.APIFault{Kind: virtfusionsim.FaultWrongOwner, Chance: 0.3},
					virtfusionsim.APIFault{Kind: virtfusionsim.FaultEndlessServers, Chance: 0.3},
				)
				panel.SetSkew(time.Duration(n) * time.Second)
				if _, err := panel.Rename(int64(1+worker%3), strconv.Itoa(n), ""); err != nil {
					return err
				}
				if _, err := client.ListServers(t.Context(), 1, 2, true); err != nil {
					return err
				}
				if err := panel.Redeliver(t.Context()); err != nil {
					return err
				}
				_ = panel.Held()
			}
			return panel.Flush(t.Context())
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if stats := panel.Stats(); stats.Held != 0 || stats.Emitted != 3+80 {
		t.Errorf("Stats = %+v", stats)
	}
}
