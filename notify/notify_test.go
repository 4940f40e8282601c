package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/rs/zerolog"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

// system is a database in which a server's evidence disagrees, and a clock that
// stands still.
type system struct {
	t   *testing.T
	db  *bun.DB
	now time.Time
	log *strings.Builder
}

func setup(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, db: dbtest.New(t), now: time.Now().UTC().Truncate(time.Second), log: new(strings.Builder)}
	s.exec(`
		INSERT INTO users (id, email, username, password, full_name, role, is_active) VALUES
			(1, 'r', 'root', '!', 'Root', 'admin', true), (2, 's', 'sam', '!', 'Sam', 'admin', false), (3, 'c', 'carl', '!', 'Carl', 'client', true)`)
	return s
}

func (s *system) exec(statement string, args ...any) {
	s.t.Helper()
	if _, err := s.db.ExecContext(s.t.Context(), statement, args...); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

func (s *system) want(want, query string) {
	s.t.Helper()
	var got string
	if err := s.db.QueryRowContext(s.t.Context(), query).Scan(&got); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	if got != want {
		s.t.Errorf("%s\ngot  %s\nwant %s", query, got, want)
	}
}

func (s *system) notifier(c Config) *Notifier {
	c.DB, c.Now, c.Log = s.db, func() time.Time { return s.now }, zerolog.New(s.log)
	return New(c)
}

// conflict puts a server into the inventory whose evidence disagrees.
func (s *system) conflict(id int, note string) {
	s.t.Helper()
	s.exec(`
		INSERT INTO serversync.servers (virtfusion_id, status, note, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at) VALUES (?0, 'conflict', ?1, now(), '', '', now(), now())
			ON CONFLICT (virtfusion_id) DO UPDATE SET status = 'conflict';
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason, after) VALUES (now(), ?0, 'decided', '', '{"status": "conflict"}')`, id, note)
}

// look finds and tells once.
func (s *system) look(n *Notifier) {
	s.t.Helper()
	if err := n.collect(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	for _, c := range n.channels {
		if err := n.tell(s.t.Context(), c); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestNoticesAreCollectedOnce of each kind.
func TestNoticesAreCollectedOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	n := s.notifier(Config{More: func(context.Context) ([]db.Notice, error) {
		return []db.Notice{{Subject: "dead_letter:x", Kind: "dead_letter", Severity: db.AuditWarning, Title: "An event could not be reconciled", Message: "why", At: s.now}}, nil
	}})
	s.look(n)
	s.want("1", `SELECT count(*) FROM serversync.notices`) // the dead letter alone
	s.conflict(7, "two users claim it")
	s.exec(`
		INSERT INTO serversync.findings (rule, server_id, user_id, severity, evidence, first_seen_at, last_seen_at) VALUES
			('gone_server_billed', 8, 3, 'critical', 'row 1 is on', '2026-03-01T12:00Z', now()), ('no_price', 9, 3, 'warning', '', now(), now());
		INSERT INTO serversync.runs (id, kind, state, dry_run, note, started_at, ended_at, beat_at, problems) VALUES
			('old', 'sweep', 'failed', false, '', '2026-03-01T10:00Z', '2026-03-01T10:01Z', now(), '[]'),
			('good', 'sweep', 'succeeded', false, '', '2026-03-01T11:00Z', '2026-03-01T11:01Z', now(), '[]'),
			('bad', 'sweep', 'incomplete', false, 'it broke off', '2026-03-01T12:00Z', '2026-03-01T12:01Z', now(), '[{"code": "x", "message": "page 3 is missing"}]'),
			('try', 'sweep', 'needs_approval', true, '', '2026-03-01T12:00Z', NULL, now(), '[]'),
			('big', 'sync', 'needs_approval', false, 'too much', '2026-03-01T12:00Z', NULL, now(), '[]')`)
	const all = `SELECT string_agg(concat_ws('|', kind, severity, title, message, server_id, run_id), E'\n' ORDER BY kind, id) FROM serversync.notices`
	const want = `approval|warning|A sync waits for approval|too much|big
conflict|warning|Server 7: the evidence disagrees|two users claim it|7
dead_letter|warning|An event could not be reconciled|why
finding|critical|The watchdog: gone_server_billed|row 1 is on|8
sweep|warning|Sweeps do not see everything: the last one is incomplete|it broke off: page 3 is missing|bad`
	s.look(n)
	s.want(want, all)
	s.exec(`INSERT INTO serversync.runs (id, kind, state, started_at, ended_at, beat_at) VALUES ('worse', 'sweep', 'failed', '2026-03-01T12:15Z', '2026-03-01T12:16Z', now())`)
	s.look(n)
	s.want(want, all) // until one succeeds
	s.exec(`INSERT INTO serversync.runs (id, kind, state, started_at, ended_at, beat_at) VALUES
		('fine', 'sweep', 'succeeded', '2026-03-01T12:30Z', '2026-03-01T12:31Z', now()), ('again', 'sweep', 'failed', '2026-03-01T12:45Z', '2026-03-01T12:46Z', now())`)
	s.look(n)
	s.want("2", `SELECT count(*) FROM serversync.notices WHERE kind = 'sweep'`)
	// A conflict that ended and is back, and a finding.
	s.exec(`UPDATE serversync.findings SET first_seen_at = first_seen_at + interval '1 day'`)
	s.conflict(7, "")
	s.look(n)
	s.want("4", `SELECT count(*) FROM serversync.notices WHERE kind IN ('conflict', 'finding')`)
}

// receiver is a webhook's other end, which checks every signature.
type receiver struct {
	mu       sync.Mutex
	ids      []string
	bodies   []string
	status   int
	received func() // when set, before the answer
}

func (r *receiver) serve(s *system) (address string) {
	t := s.t
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err == nil {
			err = verifier.VerifyIgnoringTimestamp(body, request.Header) // that is of the test's clock
		}
		if err != nil || request.Method != http.MethodPost || request.Header.Get("Content-Type") != "application/json" || request.Header.Get("webhook-timestamp") != strconv.FormatInt(s.now.Unix(), 10) {
			t.Errorf("%s with %v: %v", request.Method, request.Header, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids, r.bodies = append(r.ids, request.Header.Get("webhook-id")), append(r.bodies, string(body))
		if r.received != nil {
			r.received()
		}
		if r.status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(r.status)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func (s *system) webhook(address string) *Webhook {
	s.t.Helper()
	w, err := NewWebhook(address, testSecret)
	if err != nil {
		s.t.Fatal(err)
	}
	return w
}

// TestWebhook: signed, together, once, and again with the same id after a failure.
func TestWebhook(t *testing.T) {
	t.Parallel()
	s := setup(t)
	r := &receiver{status: http.StatusNoContent}
	n := s.notifier(Config{Webhook: s.webhook(r.serve(s))})
	s.look(n)
	s.conflict(7, "why")
	s.conflict(8, "")
	s.look(n)
	s.look(n)
	if len(r.ids) != 1 || !strings.HasPrefix(r.ids[0], "msg_") {
		t.Fatalf("%v", r.ids)
	}
	var got payload
	if err := json.Unmarshal([]byte(r.bodies[0]), &got); err != nil || got.Type != "serversync.notices" || !got.Timestamp.Equal(s.now) || len(got.Data.Notices) != 2 {
		t.Fatalf("%v: %s", err, r.bodies[0])
	}
	if first := got.Data.Notices[0]; first.Kind != "conflict" || *first.ServerID != 7 || first.Message != "why" || first.RunID != nil || !strings.HasPrefix(first.Subject, "conflict:7:") {
		t.Errorf("%+v", first)
	}

	// Not more often than every few minutes.
	s.conflict(9, "")
	s.now = s.now.Add(tellEvery - time.Second)
	s.look(n)
	if len(r.ids) != 1 {
		t.Errorf("a second message within %s", tellEvery)
	}
	s.now = s.now.Add(2 * time.Second)

	// A redirect is a failure like others; nobody follows it.
	for attempt, status := range []int{http.StatusFound, http.StatusInternalServerError, http.StatusOK} {
		r.status = status
		s.look(n)
		s.look(n) // it is not tried again at once
		if len(r.ids) != 2+attempt || r.ids[1+attempt] != r.ids[1] || r.ids[1] == r.ids[0] || r.bodies[1+attempt] != r.bodies[1] {
			t.Fatalf("attempt %d: %v", attempt+1, r.ids)
		}
		s.now = s.now.Add(pauseAfter(attempt + 1))
	}
	s.now = s.now.Add(time.Hour)
	s.look(n)
	if len(r.ids) != 4 || strings.Contains(r.bodies[3], `"serverId":7`) {
		t.Errorf("%v", r.bodies)
	}
	if strings.Contains(s.log.String(), "http://") || !strings.Contains(s.log.String(), "redirects are not followed") {
		t.Errorf("log: %s", s.log)
	}
}

// TestDeathBetweenSendingAndRecording: the message is sent again, under the same
// id, so that the receiver can tell.
func TestDeathBetweenSendingAndRecording(t *testing.T) {
	t.Parallel()
	s := setup(t)
	r := &receiver{status: http.StatusOK}
	r.received = func() { s.exec(`ALTER TABLE serversync.notice_messages RENAME TO away`) }
	address := r.serve(s)
	s.conflict(7, "why")
	dying := s.notifier(Config{Webhook: s.webhook(address)})
	if err := dying.collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := dying.tell(t.Context(), dying.channels[0]); err == nil {
		t.Error("nothing was recorded, and nobody says so")
	}
	r.received = nil
	s.exec(`ALTER TABLE serversync.away RENAME TO notice_messages`)
	other := s.notifier(Config{Webhook: s.webhook(address)})
	s.look(other)
	if len(r.ids) != 1 {
		t.Fatalf("sent again while its sender may live: %v", r.ids)
	}
	s.now = s.now.Add(lease)
	s.look(other)
	if len(r.ids) != 2 || r.ids[0] != r.ids[1] || r.bodies[0] != r.bodies[1] {
		t.Fatalf("%v", r.ids)
	}
	s.now = s.now.Add(time.Hour)
	s.look(other)
	if len(r.ids) != 2 {
		t.Errorf("%v", r.ids)
	}
}

// TestOneOfManyTells: each message has one sender.
func TestOneOfManyTells(t *testing.T) {
	t.Parallel()
	s := setup(t)
	r := &receiver{status: http.StatusOK}
	address := r.serve(s)
	var all []*Notifier
	for range 4 {
		all = append(all, s.notifier(Config{Webhook: s.webhook(address), SkyPANEL: true}))
	}
	for round := range 10 {
		s.conflict(100+round, "")
		s.now = s.now.Add(time.Hour)
		var wg sync.WaitGroup
		for _, n := range all {
			wg.Go(func() { s.look(n) })
		}
		wg.Wait()
	}
	if len(r.ids) != 10 {
		t.Errorf("%d messages, want 10", len(r.ids))
	}
	s.want("10", `SELECT count(*) FROM notifications`)
}

// TestSkyPANEL: active administrators are told, in the same transaction.
func TestSkyPANEL(t *testing.T) {
	t.Parallel()
	s := setup(t)
	n := s.notifier(Config{SkyPANEL: true})
	s.conflict(7, "named \x1b[2J\u202e\"web\"")
	s.exec(`ALTER TABLE notifications RENAME TO away`)
	s.look(n)
	s.want("1|t", `SELECT attempts || '|' || (error LIKE '%notifications is missing%')::text::char(1) FROM serversync.notice_messages`)
	s.exec(`ALTER TABLE away RENAME TO notifications`)
	s.now = s.now.Add(firstPause)
	s.look(n)
	s.now = s.now.Add(time.Hour)
	s.look(n)
	s.want("1|serversync: Server 7: the evidence disagrees|[warning] Server 7: the evidence disagrees\nnamed [2J\"web\"|warning", `SELECT string_agg(concat_ws('|', user_id, title, message, type), E'\n') FROM notifications`)
}

// mailbox is a mail server.
type mailbox struct {
	mu       sync.Mutex
	messages []string
	to       []string
	user     string
	refuse   bool
}

type mailSession struct{ box *mailbox }

func (b *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &mailSession{b}, nil }
func (*mailSession) Reset()                                    {}
func (*mailSession) Logout() error                             { return nil }
func (*mailSession) Mail(string, *smtp.MailOptions) error      { return nil }
func (*mailSession) AuthMechanisms() []string                  { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != "p@ss" {
			return errors.New("wrong password")
		}
		s.box.user = user
		return nil
	}), nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.to = append(s.box.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.messages = append(s.box.messages, string(body))
	if s.box.refuse {
		return &smtp.SMTPError{Code: 451, Message: "later"}
	}
	return nil
}

func (b *mailbox) serve(t *testing.T) (address string) {
	t.Helper()
	srv := smtp.NewServer(b)
	srv.AllowInsecureAuth, srv.Domain = true, "mail.test"
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it outlives no test
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(listener) }()
	t.Cleanup(func() { _ = srv.Close() })
	return listener.Addr().String()
}

// TestEmail: everybody listed gets one message, and after a failure the same.
func TestEmail(t *testing.T) {
	t.Parallel()
	s := setup(t)
	box := &mailbox{refuse: true}
	address := box.serve(t)
	email, err := NewEmail("smtp://ada:p%40ss@"+address+"?tls=none", "Serversync <sync@company.test>", "ops@company.test, Anna <anna@company.test>")
	if err != nil {
		t.Fatal(err)
	}
	n := s.notifier(Config{Email: email})
	s.conflict(7, "first\r\nBcc: evil@company.test")
	s.conflict(8, "second")
	s.look(n)
	box.refuse = false
	s.now = s.now.Add(firstPause)
	s.look(n)
	s.now = s.now.Add(time.Hour)
	s.look(n)
	if len(box.messages) != 2 || box.user != "ada" {
		t.Fatalf("%d messages from %q; log %s", len(box.messages), box.user, s.log)
	}
	if got := strings.Join(box.to, " "); got != "ops@company.test anna@company.test ops@company.test anna@company.test" {
		t.Errorf("to %s", got)
	}
	id := func(message string) string {
		_, rest, _ := strings.Cut(message, "Message-ID: ")
		id, _, _ := strings.Cut(rest, "\r\n")
		return id
	}
	if first := id(box.messages[0]); !strings.HasPrefix(first, "<msg_") || !strings.HasSuffix(first, "@company.test>") || first != id(box.messages[1]) {
		t.Errorf("ids %q and %q", first, id(box.messages[1]))
	}
	for _, part := range []string{"Subject: serversync: Server 7: the evidence disagrees, and 1 more\r\n", "From: \"Serversync\" <sync@company.test>\r\n", "[warning] Server 8: the evidence disagrees\r\nsecond", "first Bcc: evil@company.test"} {
		if !strings.Contains(box.messages[1], part) {
			t.Errorf("no %q in\n%s", part, box.messages[1])
		}
	}

	// A server without TLS gets nothing unless that is said.
	if email, err = NewEmail("smtp://"+address, "", "ops@company.test"); err != nil {
		t.Fatal(err)
	}
	s.conflict(9, "")
	s.look(s.notifier(Config{Email: email}))
	if len(box.messages) != 2 || !strings.Contains(s.log.String(), "STARTTLS") {
		t.Errorf("%d messages; log %s", len(box.messages), s.log)
	}
}

// TestRunEnds with its context, and tells by one channel while another is down.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	s := setup(t)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	s.conflict(7, "")
	if _, err := db.CollectNotices(t.Context(), s.db, s.now); err != nil {
		t.Fatal(err)
	}
	n := s.notifier(Config{Webhook: s.webhook(down.URL), SkyPANEL: true})
	n.log = zerolog.Nop() // several write
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for told := 0; told == 0; {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("nobody is told")
		}
		if err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM notifications`).Scan(&told); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{{"", testSecret}, {"ftp://a", testSecret}, {"http://u:p@a", testSecret}, {"https://", testSecret}, {"https://a", ""}, {"https://a", "whsec_c2hvcnQ="}, {"https://a", "not base64 at all, however long it is"}} {
		if _, err := NewWebhook(c[0], c[1]); err == nil || !strings.Contains(err.Error(), "NOTIFY_WEBHOOK_") || strings.Contains(err.Error(), "p@a") {
			t.Errorf("%q, %q: %v", c[0], c[1], err)
		}
	}
	for _, c := range [][3]string{{"", "", "a@b.test"}, {"http://a", "", "a@b.test"}, {"smtp://a?tls=maybe", "", "a@b.test"}, {"smtp://a", "", ""}, {"smtp://a", "x", "a@b.test"}, {"smtp://u:pa ss@a:b", "", "a@b.test"}} {
		if _, err := NewEmail(c[0], c[1], c[2]); err == nil || strings.Contains(err.Error(), "pa ss") {
			t.Errorf("%q: %v", c, err)
		}
	}
	for attempts, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 1000: time.Hour} {
		if got := pauseAfter(attempts); got != want {
			t.Errorf("after %d attempts: %s, want %s", attempts, got, want)
		}
	}
}
