package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/api"
	"serversync/db"
	"serversync/db/dbtest"
	"serversync/events"
	"serversync/internal/httpserver"
	"serversync/internal/openapitest"
	"serversync/schemas"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const (
	testToken  = "an admin token of the test"
	testSecret = "a session secret of the test"
	testOrigin = "https://panel.example.com" // of PUBLIC_ORIGINS
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// logBuffer is a log that a test may read while others write.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// recorder stands for the reconciler: it keeps what it is asked, and does as
// it is told.
type recorder struct {
	redecided [][]int64
	voids     int
	redecide  func(ids []int64) (int, error) // when set
	resolved  []string
	resolve   func(id int64) (db.FirstCharge, error) // when set
}

func (r *recorder) Redecide(_ context.Context, ids []int64) (int, error) {
	r.redecided = append(r.redecided, slices.Clone(ids))
	if r.redecide != nil {
		return r.redecide(ids)
	}
	return len(ids), nil
}

func (r *recorder) VoidOrphanedCharges(context.Context) (int, error) {
	r.voids++
	return r.voids, nil
}

func (r *recorder) ResolveCharge(_ context.Context, id int64, taken bool, creditID, by string) (db.FirstCharge, error) {
	r.resolved = append(r.resolved, fmt.Sprintf("%d %t %q by %s", id, taken, creditID, by))
	if r.resolve != nil {
		return r.resolve(id)
	}
	return db.FirstCharge{ID: id, State: db.ChargeFailed, ServerID: 7, UserID: 41, Tokens: 1, CreditID: creditID, CreatedAt: noon(), DueAt: noon()}, nil
}

// system is the API behind the real HTTP server.
type system struct {
	url    string
	db     *bun.DB
	api    *api.API
	server *httpserver.Server
	books  *recorder
	syncs  *syncs
	log    *logBuffer
	doc    *openapi3.T
	// elapsed since noon, in nanoseconds.
	elapsed atomic.Int64
	letters *letters
	behind  func() (time.Duration, error)
	// checks, queue and dead stand for what the API asks of others.
	checks      func() []api.Finding
	queue, dead func() (int64, error)
	// seen are the answers that came, as "GET /path 200".
	seen map[string]bool
}

// syncs stands for who works on users' syncs: it makes the run, and does as it
// is told.
type syncs struct {
	db    *bun.DB
	begun func(r *db.Run) // when set
	err   error           // when set
}

func (s *syncs) StartSync(ctx context.Context, userID int64, dryRun bool, by string) (string, bool, error) {
	if s.err != nil {
		return "", false, s.err
	}
	r := &db.Run{
		ID: "sync-of-" + strconv.FormatInt(userID, 10), Kind: db.RunSync, State: db.RunRunning, Phase: db.PhaseAsking, DryRun: dryRun,
		UserID: &userID, RequestedBy: by, StartedAt: noon(), BeatAt: noon(),
	}
	id, joined, err := db.StartRun(ctx, s.db, r)
	if err == nil && s.begun != nil {
		s.begun(r)
	}
	return id, joined, err
}

// quiet announces nothing.
type quiet struct{}

// Watch implements what the API watches.
func (quiet) Watch(func(events.Announcement)) (stop func(), err error) { return func() {}, nil }

func setup(t testing.TB) *system {
	t.Helper()
	s := &system{db: dbtest.New(t), books: &recorder{}, log: &logBuffer{}, doc: openapitest.Load(t, schemas.FS()), seen: map[string]bool{}}
	s.syncs, s.letters = &syncs{db: s.db}, &letters{}
	s.behind = func() (time.Duration, error) { return 1500 * time.Millisecond, nil }
	s.queue, s.dead = func() (int64, error) { return 12, nil }, func() (int64, error) { return 0, nil }
	s.checks = func() []api.Finding {
		return []api.Finding{{Check: "tea", OK: true, Detail: "hot"}, {Check: "milk", Detail: "sour", Remedy: "buy some"}}
	}
	log := zerolog.New(s.log)
	var err error
	if s.server, err = httpserver.New(httpserver.Config{Registry: prometheus.NewRegistry(), Log: log}); err != nil {
		t.Fatal(err)
	}
	s.api, err = api.New(api.Config{
		DB: s.db, Books: s.books, Syncs: s.syncs, Replays: s.syncs, Bulks: s.syncs, SyncWait: 400 * time.Millisecond, Now: s.now, Log: log,
		Live:       quiet{},
		AdminToken: testToken, SessionSecret: testSecret, PublicOrigins: []api.Origin{testOrigin},
		Queue:       func(context.Context) (int64, error) { return s.queue() },
		DeadLetters: func(context.Context) (int64, error) { return s.dead() },
		Behind:      func(context.Context) (time.Duration, error) { return s.behind() },
		Letters:     s.letters,
		Checks:      func(context.Context) []api.Finding { return s.checks() },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.api.Register(s.server.Echo())
	srv := httptest.NewServer(s.server.Handler())
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *system) now() time.Time { return noon().Add(time.Duration(s.elapsed.Load())) }

// wait lets time pass.
func (s *system) wait(d time.Duration) { s.elapsed.Add(int64(d)) }

func (s *system) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := s.db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    string
	body   struct {
		Success bool
		Message string
		Data    json.RawMessage
		Error   struct{ Code, Message string }
	}
}

// ask sends a request; an empty authorization sends none.
func (s *system) ask(t *testing.T, method, path, authorization string) answer {
	t.Helper()
	header := http.Header{}
	if authorization != "" {
		header.Set("Authorization", authorization)
	}
	return s.send(t, method, path, header, "")
}

// send sends a request with a header, and a body of JSON unless that is empty.
func (s *system) send(t *testing.T, method, path string, header http.Header, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header.Clone()
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	if kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";"); a.status < 300 && (kind == "text/csv" || kind == "image/svg+xml") {
		a.body.Success = true
	} else if err := json.Unmarshal(raw, &a.body); err != nil {
		t.Fatalf("%s %s = %d, not JSON: %s", method, path, a.status, raw)
	}
	if a.body.Success != (a.status < 300) || a.header.Get("X-Request-ID") == "" {
		t.Errorf("%s %s = %d with success %v, header %v", method, path, a.status, a.body.Success, a.header)
	}
	if described := s.describedPath(path); described != "" {
		openapitest.Check(t, s.doc, method, described, response, raw)
		s.seen[method+" "+described+" "+strconv.Itoa(a.status)] = true
	}
	return a
}

// admin sends a request with the admin token.
func (s *system) admin(t *testing.T, method, path string) answer {
	t.Helper()
	return s.ask(t, method, path, "Bearer "+testToken)
}

// describedPath is a path as the OpenAPI document writes it: of several that
// fit, the one with the fewest parameters. Empty: it is not described.
func (s *system) describedPath(path string) (described string) {
	path, _, _ = strings.Cut(path, "?")
	parts := strings.Split(path, "/")
	for template := range s.doc.Paths.Map() {
		fits := slices.EqualFunc(strings.Split(template, "/"), parts, func(t, p string) bool { return t == p || strings.HasPrefix(t, "{") })
		if fits && (described == "" || strings.Count(template, "{") < strings.Count(described, "{")) {
			described = template
		}
	}
	return described
}

// data reads an answer's data.
func data[T any](t *testing.T, a answer) T {
	t.Helper()
	return dataOf[T](t, a, http.StatusOK)
}

// dataOf reads the data of an answer that has the status.
func dataOf[T any](t *testing.T, a answer, status int) T {
	t.Helper()
	var v T
	if a.status != status {
		t.Fatalf("%d, want %d: %s", a.status, status, a.raw)
	}
	if err := json.Unmarshal(a.body.Data, &v); err != nil {
		t.Fatalf("%v: %s", err, a.raw)
	}
	return v
}
