package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/api"
	"serversync/db"
	"serversync/events"
	"serversync/events/eventstest"
	"serversync/internal/httpserver"
)

// liveSystem is the API with a broker over which things are announced.
type liveSystem struct {
	*system

	live *events.Live
	end  context.CancelFunc
	done chan error
}

func setupLive(t testing.TB) *liveSystem {
	t.Helper()
	s := &liveSystem{system: setup(t), live: events.NewLive(eventstest.New(t).Conn, zerolog.Nop()), done: make(chan error, 1)}
	s.people(t)
	server, err := httpserver.New(httpserver.Config{Registry: prometheus.NewRegistry(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	relay, err := api.New(api.Config{
		DB: s.db, Books: s.books, Now: s.now, Log: zerolog.Nop(), AdminToken: testToken, SessionSecret: testSecret, Live: s.live, LiveRecheck: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	relay.Register(server.Echo())
	web := httptest.NewServer(server.Handler())
	t.Cleanup(web.Close)
	s.url = web.URL
	ctx, cancel := context.WithCancel(t.Context())
	s.end = cancel
	go func() { s.done <- relay.RunLive(ctx) }()
	return s
}

// liveMessage is what a viewer reads.
type liveMessage struct {
	Type   string
	RunID  string `json:"runId"`
	Run    *struct{ ID, State, Note, RequestedBy string }
	Runs   []struct{ ID, State, Note string }
	Server *struct {
		ID   int64
		What string
	}
}

func (s *liveSystem) connect(t testing.TB, path, credential string) *websocket.Conn {
	t.Helper()
	conn, answer, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + credential}}}) //nolint:bodyclose // the library closes it, and there is none after an upgrade
	if err != nil {
		t.Fatalf("connect to %s: %v, %+v", path, err, answer)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// next reads messages until one of a type comes.
func next(t testing.TB, conn *websocket.Conn, kind string) liveMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("wait for %s: %v", kind, err)
		}
		var m liveMessage
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		if m.Type == kind {
			return m
		}
	}
}

func (s *liveSystem) run(t *testing.T, id, kind string, user *int64) *db.Run {
	t.Helper()
	r := &db.Run{
		ID: id, Kind: kind, State: db.RunRunning, Phase: db.PhaseListing, UserID: user, RequestedBy: "admin token",
		StartedAt: s.now(), BeatAt: s.now(), Worker: "w", Note: "operators' words",
	}
	if _, _, err := db.StartRun(t.Context(), s.db, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLiveShowsEveryoneTheirOwn(t *testing.T) {
	t.Parallel()
	s := setupLive(t)
	key := s.addKey(t, anna, 1, "{read:servers}", "")
	admin, own := s.connect(t, "/api/admin/live", testToken), s.connect(t, "/api/user/servers/sync/live", key)
	if m := next(t, admin, "snapshot"); len(m.Runs) != 0 {
		t.Errorf("the snapshot was %+v", m)
	}
	next(t, own, "snapshot")

	// Somebody else's run and server, and then one's own: the first is never shown.
	boris64, anna64 := int64(boris), int64(anna)
	s.run(t, "boris", db.RunSync, &boris64)
	mine := s.run(t, "anna", db.RunSync, &anna64)
	for _, a := range []events.Announcement{
		{Type: events.LiveRun, RunID: "boris"},
		{Type: events.LiveServer, UserID: &boris64, Server: &events.ServerChange{ID: 2, What: "for operators"}},
		{Type: events.LiveServer, UserID: &anna64, Server: &events.ServerChange{ID: 1, What: "for operators"}},
		{Type: events.LiveRun, RunID: "anna"},
	} {
		s.live.Announce(a)
	}
	if m := next(t, own, "server"); m.Server.ID != 1 || m.Server.What != "" {
		t.Errorf("a user saw %+v", m.Server)
	}
	if m := next(t, own, "run"); m.RunID != "anna" || strings.Contains(m.Run.Note, "operators") || m.Run.RequestedBy == "admin token" {
		t.Errorf("a user saw %+v", m.Run)
	}
	if m := next(t, admin, "server"); m.Server.ID != 2 || m.Server.What != "for operators" {
		t.Errorf("the admin saw %+v", m.Server)
	}

	// The end is shown though nobody announces it.
	mine.State, mine.Phase, mine.EndedAt = db.RunSucceeded, db.PhaseEnded, new(s.now())
	if err := db.SaveRun(t.Context(), s.db, mine, s.now()); err != nil {
		t.Fatal(err)
	}
	if m := next(t, own, "run_ended"); m.RunID != "anna" || m.Run.State != db.RunSucceeded {
		t.Errorf("the end was %+v", m)
	}
	// Whoever comes back gets it in the snapshot, and nobody else's.
	again := s.connect(t, "/api/user/servers/sync/live?run=boris", key)
	if m := next(t, again, "snapshot"); len(m.Runs) != 1 || m.Runs[0].ID != "anna" {
		t.Errorf("the snapshot was %+v", m)
	}

	// The end of the process lets everybody go.
	s.end()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	for {
		if _, _, err := own.Read(t.Context()); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("the end was %v", err)
			}
			break
		}
	}
}

// TestLiveEndsWithTheCredentials: whoever may not see it any longer does not.
func TestLiveEndsWithTheCredentials(t *testing.T) {
	t.Parallel()
	s := setupLive(t)
	key := s.addKey(t, anna, 1, "{read:servers}", "")
	conn := s.connect(t, "/api/user/servers/sync/live", key)
	next(t, conn, "snapshot")
	s.exec(t, `UPDATE api_keys SET is_active = false`)
	s.wait(time.Minute) // who was found is remembered for some seconds
	for {
		if _, _, err := conn.Read(t.Context()); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("the end was %v", err)
			}
			return
		}
	}
}

func TestLiveWaitsForNobody(t *testing.T) {
	t.Parallel()
	s := setupLive(t)
	slow, quick := s.connect(t, "/api/admin/live", testToken), s.connect(t, "/api/admin/live", testToken)
	next(t, quick, "snapshot")
	long := strings.Repeat("x", 64<<10)
	slow.SetReadLimit(-1)
	quick.SetReadLimit(-1)
	read := make(chan struct{}, 600)
	go func() { // it reads all the time, and gets everything
		defer close(read)
		for range 600 {
			if _, _, err := quick.Read(t.Context()); err != nil {
				t.Errorf("the quick one was let go: %v", err)
				return
			}
			read <- struct{}{}
		}
	}()
	for i := range 600 {
		if i >= 100 { // never so many on their way that it could not keep up
			<-read
		}
		s.live.Announce(events.Announcement{Type: events.LiveServer, Server: &events.ServerChange{ID: int64(i), What: long}})
	}
	for range read { // until it has read the last one
	}
	for n := 0; ; n++ {
		if _, _, err := slow.Read(t.Context()); err != nil {
			break // dropped
		}
		if n > 600 {
			t.Fatal("the slow one was waited for")
		}
	}
}

func TestManyViewersSeeTheSame(t *testing.T) {
	t.Parallel()
	s := setupLive(t)
	conns := make([]*websocket.Conn, 100)
	for i := range conns {
		conns[i] = s.connect(t, "/api/admin/live", testToken)
		next(t, conns[i], "snapshot")
	}
	s.live.Announce(events.Announcement{Type: events.LiveServer, Server: &events.ServerChange{ID: 9}})
	for _, c := range conns {
		if m := next(t, c, "server"); m.Server.ID != 9 {
			t.Fatalf("a viewer saw %+v", m)
		}
	}
}

// BenchmarkLiveViewers opens a thousand connections: KiB/viewer is what each
// costs, both ends together, since the viewers are in the same process.
func BenchmarkLiveViewers(b *testing.B) {
	const viewers = 1000
	s := setupLive(b)
	next(b, s.connect(b, "/api/admin/live", testToken), "snapshot")
	inUse := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse+m.StackInuse) / 1024
	}
	for b.Loop() {
		before := inUse()
		conns := make([]*websocket.Conn, viewers)
		for i := range conns {
			conns[i] = s.connect(b, "/api/admin/live", testToken)
			next(b, conns[i], "snapshot")
		}
		b.ReportMetric((inUse()-before)/viewers, "KiB/viewer")
		for _, c := range conns {
			_ = c.CloseNow()
		}
	}
}

func TestLiveRefusals(t *testing.T) {
	t.Parallel()
	s := setupLive(t)
	if got := s.ask(t, http.MethodGet, "/api/admin/live", "Bearer "+testToken); got.status != http.StatusUpgradeRequired {
		t.Errorf("without an upgrade: %d %s", got.status, got.raw)
	}
	_, answer, err := websocket.Dial(t.Context(), s.url+"/api/admin/live", nil) //nolint:bodyclose // the library closes it, and there is none after an upgrade
	if err == nil || answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("without credentials: %v", err)
	}
}

// One customer cannot take all the room there is for live views.
func TestLiveViewsOfOneCustomerAreBounded(t *testing.T) {
	t.Parallel()
	s := setupLive(t)
	const path = "/api/user/servers/sync/live"
	annas, borises := s.addKey(t, anna, 1, "{*}", ""), s.addKey(t, boris, 2, "{*}", "")
	for range 32 {
		next(t, s.connect(t, path, annas), "snapshot")
	}
	_, answer, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + annas}}}) //nolint:bodyclose // the library closes it
	if err == nil || answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Retry-After") == "" {
		t.Errorf("one view more: %+v, %v", answer, err)
	}
	next(t, s.connect(t, path, borises), "snapshot")
	next(t, s.connect(t, "/api/admin/live", testToken), "snapshot")
}
