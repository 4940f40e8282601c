package main_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// BenchmarkSweepInSync sweeps fleets that are in step. Its own cost is the time
// that is not spent waiting for VirtFusion; MiB is the most memory that was in
// use above what was before, the simulator's garbage included.
func BenchmarkSweepInSync(b *testing.B) {
	for _, size := range []int{1_000, 10_000, 100_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			w := newFleetWorld(b, fleetOptions{interval: 15 * time.Minute})
			w.populate(size)
			wire := w.meter()
			first := w.sweep() // warms the caches, and shows that the fleet is in step
			if first.State != db.RunSucceeded || first.Progress.Drift != 0 || len(first.Problems) > 0 {
				b.Fatalf("the fleet is not in step: %s, %+v", first.Note, first.Progress)
			}
			idle := heap()
			wire.reset(idle)
			var scan, review time.Duration
			b.ResetTimer()
			for b.Loop() {
				w.pass(time.Minute)
				started, waited := time.Now(), wire.waited.Load()
				run := w.sweep()
				review += wire.sinceLast()
				scan += time.Since(started) - time.Duration(wire.waited.Load()-waited)
				if run.State != db.RunSucceeded || run.Progress.Drift != 0 || run.Progress.Listed != int64(size) {
					b.Fatalf("the fleet is not in step: %s, %+v", run.Note, run.Progress)
				}
			}
			perServer := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) / float64(size) }
			b.ReportMetric(perServer(scan-review), "own-µs/server")
			b.ReportMetric(perServer(review), "books-µs/server")
			b.ReportMetric(float64(wire.peak.Load()-int64(idle))/(1<<20), "MiB")
		})
	}
}

// BenchmarkSweepNew sweeps fleets of which nothing is known, to the last
// billing row. Of the time, listed-% went by until all was listed and previewed,
// published-% until all was on the stream; the rest the reconciler needed.
func BenchmarkSweepNew(b *testing.B) {
	for _, size := range []int{1_000, 10_000, 100_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			var listed, published time.Duration
			for b.Loop() {
				b.StopTimer()
				w := newFleetWorld(b, fleetOptions{interval: 15 * time.Minute})
				w.createMany(size)
				w.meter()
				if _, err := events.EnsureStream(b.Context(), w.stream.JetStream, events.StreamOptions{MaxBytes: 1 << 30}); err != nil {
					b.Fatal(err)
				}
				w.pass(time.Second)
				id := w.start(false)
				phases := w.watch(id)
				b.StartTimer()
				started := time.Now()
				run := w.finish(id)
				if run.State != db.RunSucceeded {
					b.Fatalf("the sweep is %s: %s", run.State, run.Note)
				}
				b.StopTimer()
				at := phases()
				listed += at[db.PhaseApplying].Sub(started)
				published += at[db.PhaseFinishing].Sub(started)
				w.want(strconv.Itoa(size), `SELECT count(*) FROM virtfusion_hourly_billing`)
				b.StartTimer()
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "servers/s")
			b.ReportMetric(100*listed.Seconds()/b.Elapsed().Seconds(), "listed-%")
			b.ReportMetric(100*published.Seconds()/b.Elapsed().Seconds(), "published-%")
		})
	}
}

// watch notes when a run enters its phases; the function that it returns ends
// the watching.
func (w *fleetWorld) watch(id string) (phases func() map[string]time.Time) {
	at := make(map[string]time.Time)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			if run, err := db.ReadRun(w.Context(), w.db, id); err == nil && at[run.Phase].IsZero() {
				at[run.Phase] = time.Now()
			}
		}
	}()
	return func() map[string]time.Time {
		close(done)
		<-ended
		return at
	}
}

// createMany makes servers that no webhook tells of, of several customers.
func (w *fleetWorld) createMany(n int) {
	w.Helper()
	owners, plans := []int64{accountBeatriz, accountChen, accountKofi}, []int64{packageSmall, packageLarge}
	for i := range n {
		if _, err := w.panel.CreateServer(virtfusionsim.CreateArgs{
			OwnerID: owners[i%len(owners)], PackageID: plans[i%len(plans)], Name: fmt.Sprintf("srv%d", i), Built: true, Silent: true,
			Created: w.clock().Add(-24 * time.Hour),
		}); err != nil {
			w.Fatal(err)
		}
	}
}

// populate makes a fleet that is in the books already.
func (w *fleetWorld) populate(n int) {
	w.Helper()
	w.createMany(n)
	for page := 1; ; page++ {
		list, err := w.client.ListServers(w.Context(), page, virtfusion.MaxPerPage, true)
		if err != nil {
			w.Fatal(err)
		}
		servers := make([]db.Server, len(list.Servers))
		for i := range list.Servers {
			s := &list.Servers[i]
			servers[i] = db.Server{
				VirtfusionID: s.ID, UUID: *s.UUID, OwnerID: *s.OwnerID, OwnerExtRelationID: s.Owner.ExtRelationID,
				Name: *s.Name, State: *s.State, CommissionStatus: s.CommissionStatus, PackageID: s.PackageID,
				MemoryMB: s.MemoryMB, StorageGB: s.StorageGB, TrafficGB: s.TrafficGB, CPUCores: s.CPUCores, IPAddresses: s.IPAddresses,
				HypervisorID: s.HypervisorID, HypervisorName: *s.HypervisorName, HypervisorGroupID: s.HypervisorGroupID,
				CreatedAt: s.Created, UpdatedAt: s.Updated, BuiltAt: s.Built,
				Status: "external", Billing: "on", Confirmed: true, ObservedAt: w.clock(), ObservedSource: "sweep", ObservedEventID: "x",
				FirstSeenAt: w.clock(), LastSeenAt: w.clock(),
			}
		}
		if err := db.UpsertServers(w.Context(), w.db, servers); err != nil {
			w.Fatal(err)
		}
		if !list.HasNext {
			break
		}
	}
	for _, statement := range []string{
		`UPDATE serversync.servers s SET user_id = u.id FROM users u WHERE u.virtfusion_id = s.owner_id`,
		`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name,
			monthly_price, hourly_rate, hours_in_month, billing_enabled, server_created_at, last_billed_at, reference_1)
		 SELECT s.user_id, s.virtfusion_id, s.virtfusion_id, s.uuid, s.package_id, p.name, p.price / 100.0, round(p.price / 73000.0, 6), 730, true,
			s.created_at, s.created_at + interval '1 day', 'external_server_' || s.virtfusion_id
		 FROM serversync.servers s JOIN package_pricing p ON p.virtfusion_package_id = s.package_id`,
		`INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, last_billed_at, created_at, updated_at)
		 SELECT id, virtfusion_server_id, 'serversync', user_id, true, package_id, monthly_price, last_billed_at, '2026-01-01', '2026-01-01' FROM virtfusion_hourly_billing`,
		`UPDATE serversync.servers s SET billing_id = b.id, note = 'made outside SkyPANEL, billed ' || round(b.monthly_price, 2) || ' a month' ||
			CASE WHEN round(b.monthly_price / 7.3) * 7.3 <> b.monthly_price THEN ', ' || round(round(b.monthly_price / 7.3) * 7.3, 2) || ' as charged' ELSE '' END,
			settle_until = s.created_at + interval '2 minutes'
		 FROM virtfusion_hourly_billing b WHERE b.virtfusion_server_id = s.virtfusion_id`,
		`VACUUM ANALYZE`,
	} {
		w.exec(statement)
	}
}

// wireMeter measures what a sweep waits for VirtFusion, and the memory in use.
type wireMeter struct {
	next   http.RoundTripper
	waited atomic.Int64 // nanoseconds
	last   atomic.Int64 // when the last answer was read, Unix nanoseconds
	calls  atomic.Int64
	peak   atomic.Int64 // bytes
}

// meter puts a meter between the world's client and its VirtFusion.
func (w *fleetWorld) meter() *wireMeter {
	m := &wireMeter{next: inProcess{w.panel.Handler()}}
	var err error
	w.client, err = virtfusion.New(virtfusion.Config{
		BaseURL: "http://cp.example", Token: virtfusionsim.DefaultToken, Budget: virtfusion.NewBudget(1e9), Clock: w.clock, Transport: m,
	})
	if err != nil {
		w.Fatal(err)
	}
	return m
}

func (m *wireMeter) reset(idle uint64) {
	m.waited.Store(0)
	m.peak.Store(int64(idle))
}

// sinceLast is the time since the last answer: what a sweep does after its
// listing.
func (m *wireMeter) sinceLast() time.Duration {
	return time.Since(time.Unix(0, m.last.Load()))
}

// RoundTrip implements [http.RoundTripper].
func (m *wireMeter) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.calls.Add(1)%20 == 0 {
		m.peak.Store(max(m.peak.Load(), int64(inUse())))
	}
	started := time.Now()
	answer, err := m.next.RoundTrip(r)
	m.waited.Add(int64(time.Since(started)))
	if answer != nil {
		answer.Body = &meteredBody{answer.Body, m}
	}
	return answer, err
}

// meteredBody counts the reading of an answer as waiting.
type meteredBody struct {
	io.ReadCloser
	meter *wireMeter
}

func (b *meteredBody) Read(p []byte) (int, error) {
	started := time.Now()
	n, err := b.ReadCloser.Read(p)
	now := time.Now()
	b.meter.waited.Add(int64(now.Sub(started)))
	b.meter.last.Store(now.UnixNano())
	return n, err
}

// heap is the memory in use after everything that can be freed was.
func heap() uint64 {
	debug.FreeOSMemory()
	return inUse()
}

func inUse() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
