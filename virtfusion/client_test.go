package virtfusion_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/rs/zerolog"

	"serversync/virtfusion"
)

const token = "the-secret-api-token"

// pauses is a timer that records what it was asked to wait, and fires at once.
type pauses struct {
	mu    sync.Mutex
	taken []time.Duration
}

func (p *pauses) timer() backoff.Timer { return &instant{pauses: p, fired: make(chan time.Time, 1)} }

func (p *pauses) all() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]time.Duration(nil), p.taken...)
}

type instant struct {
	pauses *pauses
	fired  chan time.Time
}

func (i *instant) Start(wait time.Duration) {
	i.pauses.mu.Lock()
	defer i.pauses.mu.Unlock()
	i.pauses.taken = append(i.pauses.taken, wait)
	i.fired <- time.Time{}
}

func (i *instant) Stop()               {}
func (i *instant) C() <-chan time.Time { return i.fired }

// answers serves prepared answers in order, the last one for ever.
type answers struct {
	mu       sync.Mutex
	handlers []http.HandlerFunc
	requests int
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	next := a.handlers[min(a.requests, len(a.handlers)-1)]
	a.requests++
	a.mu.Unlock()
	next(w, r)
}

func (a *answers) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests
}

func says(status int, contentType, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func says200(body string) http.HandlerFunc { return says(http.StatusOK, "application/json", body) }

const message = `{"message":"Said so.","errors":[]}`

func jsonError(status int, header ...string) http.HandlerFunc {
	return says(status, "application/json", message, header...)
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

type rig struct {
	client  *virtfusion.Client
	answers *answers
	pauses  *pauses
	log     *bytes.Buffer
}

// setup returns a client of a server that gives the answers.
func setup(t *testing.T, change func(*virtfusion.Config), handlers ...http.HandlerFunc) rig {
	t.Helper()
	r := rig{answers: &answers{handlers: handlers}, pauses: &pauses{}, log: &bytes.Buffer{}}
	server := httptest.NewServer(r.answers)
	t.Cleanup(server.Close)
	logger := zerolog.New(r.log)
	config := virtfusion.Config{
		BaseURL: server.URL,
		Token:   token,
		Budget:  unlimited(),
		BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Second) },
		Timer:   r.pauses.timer,
		Logger:  &logger,
	}
	if change != nil {
		change(&config)
	}
	client, err := virtfusion.New(config)
	if err != nil {
		t.Fatal(err)
	}
	r.client = client
	return r
}

func TestFailures(t *testing.T) {
	t.Parallel()
	const html = "<html>Welcome</html>"
	for name, test := range map[string]struct {
		answer   http.HandlerFunc
		want     error
		requests int // of a read
		hint     string
	}{
		"401 json":             {jsonError(401), virtfusion.ErrUnauthorized, 1, "set VIRTFUSION_API_TOKEN"},
		"401 text":             {says(401, "text/plain", "Unauthorized"), virtfusion.ErrUnauthorized, 1, "Unauthorized"},
		"401 html":             {says(401, "text/html", html), virtfusion.ErrUnauthorized, 1, "create one"},
		"403":                  {jsonError(403), virtfusion.ErrForbidden, 1, "permission"},
		"404":                  {jsonError(404), virtfusion.ErrNotFound, 1, "Said so."},
		"404 of a web server":  {says(404, "text/html", html), virtfusion.ErrMalformed, 1, "VIRTFUSION_API_URL"},
		"404 of a proxy":       {says(404, "text/plain", "404 page not found"), virtfusion.ErrMalformed, 1, "VIRTFUSION_API_URL"},
		"422":                  {jsonError(422), virtfusion.ErrInvalid, 1, "Said so."},
		"429":                  {jsonError(429), virtfusion.ErrRateLimited, 5, "VIRTFUSION_RPS"},
		"500":                  {jsonError(500), virtfusion.ErrUnavailable, 5, "check that VirtFusion is up"},
		"502 html":             {says(502, "text/html", html), virtfusion.ErrUnavailable, 5, "bad gateway"},
		"no answer":            {hangUp, virtfusion.ErrUnavailable, 5, "no answer"},
		"redirect":             {says(302, "text/html", "", "Location", "https://login.example.com/?token=x"), virtfusion.ErrMalformed, 1, "https://login.example.com"},
		"html":                 {says(200, "text/html; charset=UTF-8", html), virtfusion.ErrMalformed, 1, "instead of JSON"},
		"html called json":     {says200(html), virtfusion.ErrMalformed, 1, "not a JSON object"},
		"broken json":          {says200(`{"data":`), virtfusion.ErrMalformed, 1, "cannot be read"},
		"array":                {says200(`[]`), virtfusion.ErrMalformed, 1, "not a JSON object"},
		"no data":              {says200(`{}`), virtfusion.ErrMalformed, 1, "no object in data"},
		"another server":       {says200(`{"data":{"id":13}}`), virtfusion.ErrMalformed, 1, "described server 13"},
		"a server without id":  {says200(`{"data":{}}`), virtfusion.ErrMalformed, 1, "described server 0"},
		"token in the message": {says(400, "application/json", `{"message":"bad `+token+` and `+base64.StdEncoding.EncodeToString([]byte(token))+`"}`), virtfusion.ErrInvalid, 1, "bad [token] and [token]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, nil, test.answer)
			_, err := r.client.GetServer(t.Context(), 12)
			if !errors.Is(err, test.want) {
				t.Fatalf("error = %v, want %v", err, test.want)
			}
			var failed *virtfusion.Error
			if !errors.As(err, &failed) || failed.Op != "GET /servers/12" {
				t.Errorf("error = %#v, want an *Error of GET /servers/12", err)
			}
			if !strings.Contains(err.Error(), test.hint) {
				t.Errorf("error %q does not say %q", err, test.hint)
			}
			if n := r.answers.count(); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
			for _, text := range []string{err.Error(), r.log.String()} {
				if strings.Contains(text, token) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(token))) {
					t.Errorf("the token is in %q", text)
				}
			}
		})
	}
}

func TestReadsAreRepeatedUntilTheyPass(t *testing.T) {
	t.Parallel()
	r := setup(t, nil, hangUp, jsonError(503), jsonError(429, "Retry-After", "7"), says200(`{"data":{"id":12}}`))
	got, err := r.client.GetServer(t.Context(), 12)
	if err != nil || got.Server.ID != 12 {
		t.Fatalf("GetServer = %+v, %v", got, err)
	}
	want := []time.Duration{time.Second, time.Second, 7 * time.Second}
	if waited := r.pauses.all(); len(waited) != 3 || waited[0] != want[0] || waited[1] != want[1] || waited[2] != want[2] {
		t.Errorf("waited %v, want %v", waited, want)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const date = "Wed, 15 Jan 2025 15:00:00 GMT"
	for name, test := range map[string]struct {
		header []string
		pauses []time.Duration
		after  time.Duration
	}{
		"seconds":          {[]string{"Retry-After", "30"}, []time.Duration{30 * time.Second}, 30 * time.Second},
		"less than ours":   {[]string{"Retry-After", "0"}, []time.Duration{time.Second}, 0},
		"date":             {[]string{"Date", date, "Retry-After", "Wed, 15 Jan 2025 15:00:20 GMT"}, []time.Duration{20 * time.Second}, 20 * time.Second},
		"date in the past": {[]string{"Date", date, "Retry-After", "Wed, 15 Jan 2025 14:00:20 GMT"}, []time.Duration{time.Second}, 0},
		"nonsense":         {[]string{"Retry-After", "soon"}, []time.Duration{time.Second}, 0},
		"negative":         {[]string{"Retry-After", "-5"}, []time.Duration{time.Second}, 0},
		"too long":         {[]string{"Retry-After", "3600"}, nil, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, func(c *virtfusion.Config) { c.MaxRetries = 1 }, jsonError(429, test.header...))
			_, err := r.client.Packages(t.Context())
			var failed *virtfusion.Error
			if !errors.As(err, &failed) || failed.Kind != virtfusion.KindRateLimited || failed.RetryAfter != test.after {
				t.Errorf("error = %#v, want rate limited for %v", err, test.after)
			}
			if waited := r.pauses.all(); len(waited) != len(test.pauses) || (len(waited) == 1 && waited[0] != test.pauses[0]) {
				t.Errorf("waited %v, want %v", waited, test.pauses)
			}
		})
	}
}

func TestNoRetriesWhenNoneAreWanted(t *testing.T) {
	t.Parallel()
	r := setup(t, func(c *virtfusion.Config) { c.MaxRetries = -1 }, jsonError(500))
	if err := r.client.Connect(t.Context()); !errors.Is(err, virtfusion.ErrUnavailable) || r.answers.count() != 1 {
		t.Errorf("Connect = %v after %d requests", err, r.answers.count())
	}
}

func TestConnect(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"success":          {says200(`{"success":true}`), nil},
		"no type":          {says(200, "", `{}`), nil},
		"odd body":         {says200(`"ok"`), nil},
		"no content":       {says(204, "", ""), nil},
		"empty page":       {says(200, "text/html", ""), nil},
		"html":             {says(200, "text/html; charset=UTF-8", "<html>Login</html>"), virtfusion.ErrMalformed},
		"html called json": {says200("<html>Login</html>"), virtfusion.ErrMalformed},
		"html, no type":    {says(200, "", "<html>Login</html>"), virtfusion.ErrMalformed},
		"json called html": {says(200, "text/html", `{"success":true}`), virtfusion.ErrMalformed},
		"truncated":        {says200(`{"succ`), virtfusion.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, nil, test.answer)
			err := r.client.Connect(t.Context())
			if !errors.Is(err, test.want) {
				t.Fatalf("Connect = %v, want %v", err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), "VIRTFUSION_API_URL") {
				t.Errorf("%q has no remedy", err)
			}
			if n := r.answers.count(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestCreditIsSentOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"done":             {says(201, "application/json", `{"data":{"id":"9"}}`), nil},
		"done, no body":    {says(204, "", ""), nil},
		"done, odd body":   {says200(`"ok"`), nil},
		"done, empty page": {says(200, "text/html", " \n"), nil},
		"no answer":        {hangUp, virtfusion.ErrOutcomeUnknown},
		"500":              {jsonError(500), virtfusion.ErrOutcomeUnknown},
		"504":              {says(504, "text/html", "<html>"), virtfusion.ErrOutcomeUnknown},
		"somebody else":    {says(200, "text/html", "<html>"), virtfusion.ErrOutcomeUnknown},
		"html called json": {says200("<html>"), virtfusion.ErrOutcomeUnknown},
		"html, no type":    {says(201, "", "<html>"), virtfusion.ErrOutcomeUnknown},
		"truncated":        {says(201, "application/json", `{"data":{"i`), virtfusion.ErrOutcomeUnknown},
		"json called html": {says(200, "text/html", `{"data":{"id":9}}`), virtfusion.ErrOutcomeUnknown},
		"refused":          {jsonError(422), virtfusion.ErrInvalid},
		"unknown user":     {jsonError(404), virtfusion.ErrNotFound},
		"too many":         {jsonError(429, "Retry-After", "1"), virtfusion.ErrRateLimited},
		"token refused":    {jsonError(401), virtfusion.ErrUnauthorized},
		"redirected":       {says(301, "text/html", "", "Location", "https://cp.example.com/"), virtfusion.ErrMalformed},
		"wrong address":    {says(404, "text/html", "<html>"), virtfusion.ErrMalformed},
		"request timeout":  {jsonError(408), virtfusion.ErrOutcomeUnknown},
		"cloudflare's 520": {says(520, "text/html", "<html>"), virtfusion.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, nil, test.answer)
			_, err := r.client.AddCredit(t.Context(), 1001, virtfusion.Credit{Tokens: 1})
			if !errors.Is(err, test.want) {
				t.Errorf("AddCredit = %v, want %v", err, test.want)
			}
			if _, err := r.client.RemoveCredit(t.Context(), 1001, virtfusion.Credit{Tokens: 1}); !errors.Is(err, test.want) {
				t.Errorf("RemoveCredit = %v, want %v", err, test.want)
			}
			if n := r.answers.count(); n != 2 {
				t.Errorf("%d requests for two calls", n)
			}
		})
	}
}

func TestCreditThatNeverLeft(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	r := setup(t, func(c *virtfusion.Config) { c.BaseURL = gone.URL }, jsonError(500))
	_, err := r.client.AddCredit(t.Context(), 1, virtfusion.Credit{Tokens: 1})
	if !errors.Is(err, virtfusion.ErrUnavailable) || errors.Is(err, virtfusion.ErrOutcomeUnknown) {
		t.Errorf("AddCredit = %v, want unavailable: nothing was sent", err)
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := setup(t, nil, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	_, err := r.client.GetServer(ctx, 12)
	var failed *virtfusion.Error
	if !errors.Is(err, context.Canceled) || errors.As(err, &failed) {
		t.Errorf("GetServer = %v, want the context's error alone", err)
	}
	if n := r.answers.count(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestContextEndsWhileCreditMoves(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := setup(t, nil, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	_, err := r.client.AddCredit(ctx, 1, virtfusion.Credit{Tokens: 1})
	if !errors.Is(err, virtfusion.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("AddCredit = %v, want an unknown outcome, canceled", err)
	}
}

func TestEveryAttemptTakesFromTheBudget(t *testing.T) {
	t.Parallel()
	budget := unlimited()
	r := setup(t, func(c *virtfusion.Config) { c.Budget = budget }, jsonError(500))
	if _, err := r.client.GetServer(t.Context(), 12); !errors.Is(err, virtfusion.ErrUnavailable) {
		t.Errorf("GetServer = %v", err)
	}
	if granted, made := budget.Stats().Requests, r.answers.count(); granted != 5 || made != 5 {
		t.Errorf("%d granted, %d requests, want 5", granted, made)
	}
	r = setup(t, func(c *virtfusion.Config) { c.Budget = virtfusion.NewBudget(1.0 / 3600) }, jsonError(500))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := r.client.GetServer(ctx, 12); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("GetServer = %v, want the deadline: the second turn comes after it", err)
	}
	if n := r.answers.count(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(says200(`{}`))
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	r := setup(t, func(c *virtfusion.Config) { c.BaseURL = server.URL }, says200(`{}`))
	err := r.client.Connect(t.Context())
	if !errors.Is(err, virtfusion.ErrUnavailable) || !strings.Contains(err.Error(), "VIRTFUSION_TLS_VERIFY") {
		t.Errorf("Connect = %v, want a remedy for the certificate", err)
	}
	if waited := r.pauses.all(); len(waited) != 0 {
		t.Errorf("tried again: %v", waited)
	}
	r = setup(t, func(c *virtfusion.Config) { c.BaseURL, c.SkipTLSVerify = server.URL, true }, says200(`{}`))
	if err := r.client.Connect(t.Context()); err != nil {
		t.Errorf("Connect without verification = %v", err)
	}
}

func TestRequestIsWhatVirtFusionExpects(t *testing.T) {
	t.Parallel()
	var got *http.Request
	r := setup(t, func(c *virtfusion.Config) { c.BaseURL += "/api/v1//"; c.UserAgent = "tester/1" }, func(w http.ResponseWriter, r *http.Request) {
		got = r
		says200(`{"data":[]}`)(w, r)
	})
	if _, err := r.client.ListServers(t.Context(), 2, 50, true); err != nil {
		t.Fatal(err)
	}
	if uri := got.URL.RequestURI(); uri != "/api/v1/servers?page=2&results=50&type=full" {
		t.Errorf("asked for %s", uri)
	}
	for name, want := range map[string]string{"Authorization": "Bearer " + token, "Accept": "application/json", "User-Agent": "tester/1"} {
		if value := got.Header.Get(name); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
}

func TestArgumentsThatCannotBe(t *testing.T) {
	t.Parallel()
	r := setup(t, nil, says200(`{"data":{}}`))
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"server 0":  func() error { _, err := r.client.GetServer(ctx, 0); return err },
		"user -1":   func() error { _, err := r.client.ServersOfUser(ctx, -1); return err },
		"ext 0":     func() error { _, err := r.client.UserByExtRelation(ctx, 0); return err },
		"package 0": func() error { _, err := r.client.Package(ctx, 0); return err },
		"page 0":    func() error { _, err := r.client.ListServers(ctx, 0, 20, false); return err },
		"201 rows":  func() error { _, err := r.client.ListServers(ctx, 1, 201, false); return err },
		"no tokens": func() error { _, err := r.client.AddCredit(ctx, 1, virtfusion.Credit{}); return err },
	} {
		if err := call(); !errors.Is(err, virtfusion.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if n := r.answers.count(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

func TestRowsThatAreNoServersCount(t *testing.T) {
	t.Parallel()
	r := setup(t, nil, says200(`{"data":[{"id":1},"x",{"id":-2},null],"total":"4"}`))
	page, err := r.client.ListServers(t.Context(), 1, 20, false)
	if err != nil || len(page.Servers) != 4 || page.Servers[0].ID != 1 || page.Servers[1].ID != 0 || page.Total != 4 {
		t.Errorf("ListServers = %+v, %v", page, err)
	}
	for _, body := range []string{`{}`, `{"data":null}`, `{"data":"x"}`, `{"data":[],"data":null}`} {
		r := setup(t, nil, says200(body))
		if _, err := r.client.ListServers(t.Context(), 1, 20, false); !errors.Is(err, virtfusion.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed and no empty fleet", body, err)
		}
	}
}

func TestObservedAt(t *testing.T) {
	t.Parallel()
	start := time.Date(2025, 1, 15, 15, 0, 0, 300e6, time.UTC)
	for name, test := range map[string]struct {
		date string
		want time.Time
	}{
		"same clock":        {"Wed, 15 Jan 2025 15:00:01 GMT", start},
		"within resolution": {"Wed, 15 Jan 2025 14:59:59 GMT", start},
		"theirs ahead":      {"Wed, 15 Jan 2025 15:01:00 GMT", start.Add(59700 * time.Millisecond)},
		"theirs behind":     {"Wed, 15 Jan 2025 14:00:00 GMT", start.Add(-time.Hour - 300*time.Millisecond)},
		"nonsense":          {"yesterday", start},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := start
			var mu sync.Mutex
			clock := func() time.Time { // each look at it takes a second
				mu.Lock()
				defer mu.Unlock()
				defer func() { now = now.Add(time.Second) }()
				return now
			}
			change := func(c *virtfusion.Config) { c.Clock = clock }
			r := setup(t, change, jsonError(404, "Date", test.date))
			_, err := r.client.GetServer(t.Context(), 12)
			var failed *virtfusion.Error
			if !errors.As(err, &failed) || !failed.ObservedAt.Equal(test.want) {
				t.Errorf("ObservedAt = %v, want %v", failed.ObservedAt, test.want)
			}
		})
	}
}

func TestNewNamesWhatToSet(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config virtfusion.Config
		hint   string
	}{
		"no address":       {virtfusion.Config{Token: token}, "VIRTFUSION_API_URL"},
		"no scheme":        {virtfusion.Config{BaseURL: "cp.example.com", Token: token}, "https://"},
		"password":         {virtfusion.Config{BaseURL: "https://root:hunter2@cp.example.com", Token: token}, "password"},
		"query":            {virtfusion.Config{BaseURL: "https://cp.example.com?x=1", Token: token}, "query"},
		"unreadable":       {virtfusion.Config{BaseURL: "https://root:hunter2@[", Token: token}, "cannot be read"},
		"no token":         {virtfusion.Config{BaseURL: "https://cp.example.com"}, "VIRTFUSION_API_TOKEN"},
		"token with break": {virtfusion.Config{BaseURL: "https://cp.example.com", Token: token + "\n"}, "VIRTFUSION_API_TOKEN"},
		"closed budget":    {virtfusion.Config{BaseURL: "https://cp.example.com", Token: token, Budget: virtfusion.NewBudget(0)}, "VIRTFUSION_RPS"},
	} {
		_, err := virtfusion.New(test.config)
		if err == nil || !strings.Contains(err.Error(), test.hint) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v, want a hint at %q and no secret", name, err, test.hint)
		}
	}
}
