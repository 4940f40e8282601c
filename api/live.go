package api

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"

	"serversync/db"
	"serversync/events"
	"serversync/internal/httpserver"
)

const (
	// liveFlush is how often runs that have come further are read and shown:
	// however fast one goes, a viewer gets so many pictures of it.
	liveFlush = 250 * time.Millisecond
	// liveCheck is how often runs that are watched are read though nobody
	// announced anything: announcements may be lost.
	liveCheck = 5 * time.Second
	// livePing keeps connections open through proxies, and finds those that are
	// dead.
	livePing = 30 * time.Second
	// liveRecheck is how often it is looked whether a viewer may still see what
	// they see: a key may be switched off, a session end.
	liveRecheck = 10 * time.Second
	// liveWrite is how long one message may take to a viewer, liveBacklog how
	// many may wait for one: who is slower is dropped, and comes back to a
	// snapshot.
	liveWrite   = 10 * time.Second
	liveBacklog = 256
	// liveBytes is how much may wait for all viewers together, an equal part for
	// each. liveViewers is how many there may be in this process, liveOwn how
	// many of one customer.
	liveBytes   = 64 << 20
	liveViewers = 1024
	liveOwn     = 32
	// liveRuns is how many runs a snapshot has at most.
	liveRuns = 20
)

// watcher tells what happens, in this process and in others.
type watcher interface {
	Watch(hear func(events.Announcement)) (stop func(), err error)
}

// liveMessage is what a viewer gets: a snapshot first, then what happens. Totals
// are cumulative, so that a message that is lost loses nothing.
type liveMessage struct {
	Type   string               `json:"type"` // snapshot, run, run_ended, server
	RunID  string               `json:"runId,omitempty"`
	At     time.Time            `json:"at"`
	Run    *Run                 `json:"run,omitempty"`
	Runs   []Run                `json:"runs,omitzero"` // of a snapshot, newest first
	Server *events.ServerChange `json:"server,omitempty"`
}

// viewer is one connection.
type viewer struct {
	who  identity
	all  bool // everything, not only the user's own
	send chan []byte
	// waiting is how many bytes are in send.
	waiting atomic.Int64
	// drop lets the viewer go; dropped is closed then.
	drop    context.CancelFunc
	dropped <-chan struct{}
}

// sees reports whether what concerns a user is for this viewer.
func (v *viewer) sees(userID *int64) bool {
	return v.all || userID != nil && *userID == v.who.userID
}

// liveHub relays what happens to all viewers of this process.
type liveHub struct {
	api *API

	mu      sync.Mutex
	viewers map[*viewer]struct{}
	dirty   map[string]struct{} // runs to read
	running map[string]struct{} // runs that were shown and had not ended
	closed  bool
}

func newLiveHub(a *API) *liveHub {
	return &liveHub{api: a, viewers: make(map[*viewer]struct{}), dirty: make(map[string]struct{}), running: make(map[string]struct{})}
}

// run relays until ctx ends, and then lets all viewers go.
func (h *liveHub) run(ctx context.Context, w watcher) error {
	stop, err := w.Watch(h.hear)
	if err != nil {
		return err
	}
	defer h.close()
	defer stop()
	flush, check := time.NewTicker(liveFlush), time.NewTicker(liveCheck)
	defer flush.Stop()
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-flush.C:
			h.flush(ctx)
		case <-check.C:
			h.mu.Lock()
			for id := range h.running {
				h.dirty[id] = struct{}{}
			}
			h.mu.Unlock()
		}
	}
}

// hear takes an announcement. It waits for nobody.
func (h *liveHub) hear(a events.Announcement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.viewers) == 0 {
		return
	}
	switch a.Type {
	case events.LiveRun:
		h.dirty[a.RunID] = struct{}{}
	case events.LiveServer:
		m := liveMessage{Type: "server", RunID: a.RunID, At: h.api.now().UTC(), Server: a.Server}
		h.tell(a.UserID, &m, func(*viewer) *liveMessage {
			own, server := m, *a.Server
			server.What = "" // the operators' words may name others
			own.Server = &server
			return &own
		})
	}
}

// flush reads the runs that have come further, and shows them.
func (h *liveHub) flush(ctx context.Context) {
	h.mu.Lock()
	ids := make([]string, 0, len(h.dirty))
	for id := range h.dirty {
		ids = append(ids, id)
	}
	clear(h.dirty)
	h.mu.Unlock()
	for _, id := range ids {
		run, err := h.api.readRun(ctx, id)
		if err != nil {
			h.api.log.Debug().Err(err).Str("run", id).Msg("a run cannot be shown live")
			continue
		}
		h.mu.Lock()
		h.showRun(run)
		h.mu.Unlock()
	}
}

// showRun tells how far a run is. h.mu is held.
func (h *liveHub) showRun(run *Run) {
	m := liveMessage{Type: "run", RunID: run.ID, At: h.api.now().UTC(), Run: run}
	if run.State == db.RunRunning {
		h.running[run.ID] = struct{}{}
	} else {
		m.Type = "run_ended"
		delete(h.running, run.ID)
	}
	h.tell(run.UserID, &m, func(v *viewer) *liveMessage {
		own := m
		own.Run = forUser(run, v.who.name)
		return &own
	})
}

// tell sends to everybody whom it concerns: m to those who see everything, else
// what forUser makes of it. Who is too slow is dropped. h.mu is held.
func (h *liveHub) tell(userID *int64, m *liveMessage, forUser func(*viewer) *liveMessage) {
	var all []byte
	for v := range h.viewers {
		switch {
		case !v.sees(userID):
		case !v.all:
			h.send(v, h.encode(forUser(v)))
		default:
			if all == nil {
				all = h.encode(m)
			}
			h.send(v, all)
		}
	}
}

func (h *liveHub) send(v *viewer, data []byte) {
	if waiting := v.waiting.Add(int64(len(data))); waiting <= liveBytes/int64(max(1, len(h.viewers))) {
		select {
		case v.send <- data:
			return
		default:
		}
	}
	delete(h.viewers, v)
	v.drop()
}

func (h *liveHub) encode(m *liveMessage) []byte {
	data, err := json.Marshal(m)
	if err != nil { // a programming error: the types are ours
		h.api.log.Error().Err(err).Msg("a live message cannot be encoded; report this line")
		return []byte(`{"type":"error"}`)
	}
	return data
}

// full says that another view of somebody has no room here; nil: it has.
func (h *liveHub) full(who *identity, all bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	own := 0
	for v := range h.viewers {
		if !v.all && v.who.userID == who.userID {
			own++
		}
	}
	var err *httpserver.StatusError
	switch {
	case !all && own >= liveOwn:
		err = refuse(http.StatusTooManyRequests, "too_many_views", "you have as many live views open as you may: close some")
	case len(h.viewers) >= liveViewers:
		err = refuse(http.StatusServiceUnavailable, "too_many_views", "as many live views are open as this process may have: ask again, or look at the run itself")
	default:
		return nil
	}
	err.RetryAfter = time.Minute
	return err
}

// join adds a viewer; false: this process is ending.
func (h *liveHub) join(v *viewer) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.viewers[v] = struct{}{}
	return true
}

func (h *liveHub) leave(v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.viewers, v)
}

func (h *liveHub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for v := range h.viewers {
		v.drop()
	}
	clear(h.viewers)
}

// watching remembers the runs of a snapshot, so that their ends are shown though
// nobody announces them.
func (h *liveHub) watching(runs []Run) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range runs {
		if runs[i].State == db.RunRunning {
			h.running[runs[i].ID] = struct{}{}
		}
	}
}

// ownLive answers GET /api/user/servers/sync/live.
func (a *API) ownLive(c echo.Context) error { return a.live(c, false) }

// adminLive answers GET /api/admin/live.
func (a *API) adminLive(c echo.Context) error { return a.live(c, true) }

// live opens a WebSocket: first a snapshot, then what happens. With ?run= the
// snapshot has that run too, though it has ended: whoever reconnects misses
// nothing of it.
func (a *API) live(c echo.Context, all bool) error {
	if a.hub == nil {
		return fault(ErrNotReady)
	}
	if !opensWebSocket(c.Request()) {
		return refuse(http.StatusUpgradeRequired, "websocket_needed", "this is a WebSocket: connect with ws:// or wss://")
	}
	who := caller(c)
	if err := a.hub.full(&who, all); err != nil {
		return err
	}
	conn, err := websocket.Accept(c.Response(), c.Request(), &websocket.AcceptOptions{
		InsecureSkipVerify: true, // of the origin, which was checked with the caller's identity
	})
	if err != nil {
		return nil // it has answered the request itself
	}
	dropped, drop := context.WithCancel(c.Request().Context())
	defer drop()
	v := &viewer{who: who, all: all, send: make(chan []byte, liveBacklog), drop: drop, dropped: dropped.Done()}
	ctx := conn.CloseRead(c.Request().Context()) // ends when the viewer leaves
	if !a.hub.join(v) {                          // first: what happens while the snapshot is read is in it, or comes after it
		return conn.Close(websocket.StatusGoingAway, "the service is stopping")
	}
	defer a.hub.leave(v)
	snapshot, err := a.snapshot(ctx, v, c.QueryParam("run"))
	if err != nil {
		a.log.Warn().Err(err).Msg("a live view could not be opened")
		return conn.Close(websocket.StatusInternalError, "try again")
	}
	a.relay(ctx, conn, v, snapshot, func() bool { return a.stillMay(c, all) })
	return nil
}

// opensWebSocket reports that a request opens a WebSocket.
func opensWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get(echo.HeaderUpgrade), "websocket") &&
		strings.Contains(strings.ToLower(r.Header.Get(echo.HeaderConnection)), "upgrade") && r.Header.Get("Sec-WebSocket-Key") != ""
}

// stillMay asks anew who a viewer is, by what the connection was opened with.
func (a *API) stillMay(c echo.Context, all bool) bool {
	require := a.auth.requireUser
	if all {
		require = a.auth.requireAdmin
	}
	err := require(func(echo.Context) error { return nil })(c)
	refused, known := errors.AsType[*httpserver.StatusError](err)
	return err == nil || !known || refused.Status >= http.StatusInternalServerError // nobody can say, for now
}

// relay writes to a viewer until it leaves, is dropped, may not see it any
// longer, or the process ends.
func (a *API) relay(ctx context.Context, conn *websocket.Conn, v *viewer, snapshot []byte, may func() bool) {
	defer func() { _ = conn.CloseNow() }()
	write := func(data []byte) bool {
		bounded, cancel := context.WithTimeout(ctx, liveWrite)
		defer cancel()
		return conn.Write(bounded, websocket.MessageText, data) == nil
	}
	if !write(snapshot) {
		return
	}
	ping := time.NewTicker(livePing)
	recheck := time.NewTicker(a.liveRecheck)
	defer ping.Stop()
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.dropped:
			_ = conn.Close(websocket.StatusGoingAway, "connect again")
			return
		case data := <-v.send:
			v.waiting.Add(-int64(len(data)))
			if !write(data) {
				return
			}
		case <-recheck.C:
			if !may() {
				_ = conn.Close(websocket.StatusPolicyViolation, "sign in again")
				return
			}
		case <-ping.C:
			bounded, cancel := context.WithTimeout(ctx, liveWrite)
			err := conn.Ping(bounded)
			cancel()
			if err != nil {
				return
			}
		}
	}
}

// snapshot is the first message to a viewer.
func (a *API) snapshot(ctx context.Context, v *viewer, runID string) ([]byte, error) {
	query := db.RunsQuery{Limit: liveRuns}
	if !v.all {
		query.UserID = &v.who.userID
	}
	found, err := db.Runs(ctx, a.db, query)
	if err != nil {
		return nil, err
	}
	if runID != "" {
		if found, err = a.alsoRun(ctx, v, found, runID); err != nil {
			return nil, err
		}
	}
	runs, err := a.toRuns(ctx, found)
	if err != nil {
		return nil, err
	}
	a.hub.watching(runs)
	if !v.all {
		for i := range runs {
			runs[i] = *forUser(&runs[i], v.who.name)
		}
	}
	return a.hub.encode(&liveMessage{Type: "snapshot", At: a.now().UTC(), Runs: runs}), nil
}

// alsoRun adds a run that somebody wants to see, if it is theirs to see.
func (a *API) alsoRun(ctx context.Context, v *viewer, found []db.Run, id string) ([]db.Run, error) {
	for i := range found {
		if found[i].ID == id {
			return found, nil
		}
	}
	run, err := db.ReadRun(ctx, a.db, id)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && !v.sees(run.UserID):
		return found, nil
	case err != nil:
		return nil, err
	}
	return append(found, run), nil
}

// RunLive relays what happens to those who watch, until ctx ends.
func (a *API) RunLive(ctx context.Context) error {
	if a.hub == nil {
		return nil
	}
	return a.hub.run(ctx, a.watcher)
}
