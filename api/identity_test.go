package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"serversync/api"
)

const statusPath = "/api/user/servers/sync/status"

func TestGuessesAreBounded(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	const path = "/api/admin/servers/7/timeline"
	right := s.addKey(t, root, 1, "{*}", "")
	for i := range 60 {
		guess := []http.Header{withKey("guess"), withKey(secretOf(root, 100+i)), headers("X-API-Key", "guess")}[i%3]
		if a := s.send(t, http.MethodGet, path, guess, ""); a.status != http.StatusUnauthorized {
			t.Fatalf("guess %d = %d", i, a.status)
		}
	}
	for name, header := range map[string]http.Header{
		"a guess": withKey("guess"), "the token": withKey(testToken), "a right key": withKey(right), "the same": headers("X-API-Key", right),
	} {
		a := s.send(t, http.MethodGet, path, header, "")
		if outcome(a) != "429 too_many_attempts" || a.header.Get("Retry-After") == "" || a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("after too many guesses %s = %d %s", name, a.status, a.raw)
		}
	}
	s.wait(time.Minute)
	if a := s.send(t, http.MethodGet, path, withKey(right), ""); outcome(a) != letIn {
		t.Errorf("a minute later = %d %s", a.status, a.raw)
	}
}

// Who is signed in must not suffer from somebody behind the same address who
// guesses, or floods.
func TestSessionsAreNotLockedOut(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	signed := headers("Cookie", s.signIn(t, "annaSession", passport("41"), noon().Add(time.Hour)))
	for range 61 {
		s.ask(t, http.MethodGet, statusPath, "Bearer guess")
		s.ask(t, http.MethodGet, statusPath, "")
	}
	for _, header := range []http.Header{withKey(testToken), headers(), headers("Cookie", cookieOf("annaSession", "guess"))} {
		if a := s.send(t, http.MethodGet, statusPath, header, ""); outcome(a) != "429 too_many_attempts" {
			t.Fatalf("the address is not exhausted: %d %s", a.status, a.raw)
		}
	}
	if a := s.send(t, http.MethodGet, statusPath, signed, ""); outcome(a) != letIn {
		t.Errorf("a session from an exhausted address = %d %s", a.status, a.raw)
	}
}

// What proves that nobody guesses locks nobody out: requests without anything,
// with an old cookie in the browser, with a key that expired in a script.
func TestOnlyGuessesLockOut(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	for name, header := range map[string]http.Header{
		"nothing":       headers(),
		"an old cookie": headers("Cookie", s.signIn(t, "old", passport("41"), noon())),
		"another's":     headers("Cookie", cookieOf("x", "another secret")),
		"an old key":    withKey(s.addKey(t, anna, 1, "{*}", "expires_at = '2026-01-01'")),
	} {
		var last answer
		for range 61 {
			last = s.send(t, http.MethodGet, statusPath, header, "")
		}
		if outcome(last) != "429 too_many_attempts" {
			t.Errorf("the last of many with %s = %d", name, last.status)
		}
		if a := s.admin(t, http.MethodGet, "/api/admin/overview"); a.status != http.StatusOK {
			t.Errorf("after many with %s, the token = %d %s", name, a.status, a.raw)
		}
		s.wait(time.Hour)
	}
}

// A key that was switched off, and a session that was ended, open nothing after
// at most five seconds; until then the database is not asked.
func TestSwitchedOffMeansDeadWithinSeconds(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	key := withKey(s.addKey(t, anna, 1, "{*}", ""))
	signed := headers("Cookie", s.signIn(t, "annaSession", passport("41"), noon().Add(time.Hour)))
	look := func(header http.Header) string {
		t.Helper()
		return outcome(s.send(t, http.MethodGet, statusPath, header, ""))
	}
	if look(key) != letIn || look(signed) != letIn {
		t.Fatal("they are not let in")
	}
	s.wait(4999 * time.Millisecond)
	s.exec(t, `UPDATE api_keys SET is_active = false; DELETE FROM session`)
	if look(key) != letIn || look(signed) != letIn {
		t.Error("the database was asked again within five seconds")
	}
	s.wait(time.Millisecond)
	if got, other := look(key), look(signed); got != unknown || other != unknown {
		t.Errorf("five seconds after they were looked up: the key %q, the session %q", got, other)
	}
	s.exec(t, `UPDATE api_keys SET is_active = true`)
	if look(key) != letIn {
		t.Error("a key that was switched on again is not let in at once")
	}
	s.exec(t, `UPDATE users SET is_active = false`)
	s.wait(5 * time.Second)
	if look(key) != unknown {
		t.Error("an inactive user's key is let in")
	}
}

func TestTheLastUseOfAKey(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	key := withKey(s.addKey(t, anna, 1, "{read:servers}", ""))
	use := func(after time.Duration) string {
		t.Helper()
		s.wait(after)
		if a := s.send(t, http.MethodGet, statusPath, key, ""); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.raw)
		}
		var last string
		if err := s.db.NewRaw(`SELECT coalesce(to_char(last_used, 'HH24:MI:SS'), 'never') FROM api_keys`).Scan(t.Context(), &last); err != nil {
			t.Fatal(err)
		}
		return last
	}
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, "12:00:00"}, {30 * time.Second, "12:00:00"}, {24 * time.Second, "12:00:00"}, {6 * time.Second, "12:01:00"}, {time.Hour, "13:01:00"}} {
		if got := use(step.after); got != step.want {
			t.Errorf("%s later: last used at %s, want %s", step.after, got, step.want)
		}
	}

	// Neither a row that somebody holds nor one that cannot be written keeps
	// anybody out.
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT FROM api_keys FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	if got := use(time.Hour); got != "13:01:00" {
		t.Errorf("while somebody holds the row: %s", got)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
		CREATE TRIGGER refuse BEFORE UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION refuse()`)
	if got := use(time.Hour); got != "13:01:00" || !strings.Contains(s.log.String(), "last use is not written down") {
		t.Errorf("while the row cannot be written: %s, log %s", got, s.log.String())
	}
}

// While SkyPANEL's tables cannot be read nobody is told to have guessed, and the
// admin token works.
func TestWhoCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	key := withKey(s.addKey(t, anna, 1, "{*}", ""))
	signed := headers("Cookie", s.signIn(t, "annaSession", passport("41"), noon().Add(time.Hour)))
	s.exec(t, `ALTER TABLE api_keys RENAME TO away; ALTER TABLE session RENAME TO away_too`)
	for range 70 {
		if a := s.send(t, http.MethodGet, statusPath, key, ""); a.status != http.StatusServiceUnavailable || a.body.Error.Code != "database_unavailable" {
			t.Fatalf("by key: %d %s", a.status, a.raw)
		}
	}
	if a := s.send(t, http.MethodGet, statusPath, signed, ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("by session: %d %s", a.status, a.raw)
	}
	if a := s.admin(t, http.MethodGet, "/api/admin/overview"); a.status != http.StatusOK {
		t.Errorf("by token: %d %s", a.status, a.raw)
	}
}

// Without SkyPANEL's secret no cookie is accepted, nor one signed with nothing.
func TestWithoutASecretThereAreNoCookies(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.signIn(t, "annaSession", passport("41"), noon().Add(time.Hour))
	a, err := api.New(api.Config{DB: s.db, AdminToken: testToken, Now: noon, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, a)
	for _, secret := range []string{"", testSecret} {
		status, _ := fetch(t, http.MethodGet, url+statusPath, headers("Cookie", cookieOf("annaSession", secret), "Sec-Fetch-Site", "same-origin"))
		if status != http.StatusUnauthorized {
			t.Errorf("a cookie signed with %q = %d", secret, status)
		}
	}
}

func TestAnEmptyTokenLetsNobodyIn(t *testing.T) {
	t.Parallel()
	if _, err := api.New(api.Config{Now: noon, Log: zerolog.Nop()}); err == nil {
		t.Error("an API without an admin token was made")
	}
}
