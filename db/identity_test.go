package db_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestReadAPIKey(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	user, other := customer(t, database, "anna"), customer(t, database, "boris")
	exec(t, database, `UPDATE users SET role = 'admin' WHERE id = ?`, user)
	exec(t, database, `INSERT INTO api_keys (id, user_id, name, key, prefix, scopes, expires_at, is_active, last_used) VALUES
		(1, ?0, 'a', 'plain', 'p', '{read:servers,write:servers}', NULL, true, '2026-02-28 22:00'),
		(2, ?0, 'a', 'ends', 'p', '{*,NULL}', '2026-02-28 22:30:15.123457', true, NULL),
		(3, ?0, 'a', 'ended', 'p', NULL, '2026-02-28 22:30:15.123456', true, NULL),
		(4, ?0, 'a', 'off', 'p', '{}', NULL, false, NULL),
		(5, ?0, 'a', 'twice', 'p', '{}', NULL, NULL, NULL), (6, ?0, 'a', 'twice', 'p', '{*}', NULL, true, NULL),
		(7, ?1, 'b', 'plain', 'p', '{read:user}', NULL, true, NULL)`, user, other)
	for digest, want := range map[string]string{
		"plain": "1 [read:servers write:servers] true 2026-02-28T22:00:00Z", "ends": "2 [*] true never", "ended": "3 [] false never", "off": "4 [] false never", "twice": "6 [*] true never",
	} {
		k, err := db.ReadAPIKey(t.Context(), database, user, digest, clock()) // 22:30:15.123456 in UTC
		if err != nil {
			t.Errorf("%s: %v", digest, err)
			continue
		}
		used := "never"
		if k.LastUsed != nil {
			used = k.LastUsed.UTC().Format(time.RFC3339)
		}
		if got := fmt.Sprint(k.ID, " ", k.Scopes, " ", k.Valid, " ", used); got != want || k.UserID != user || k.Role != "admin" {
			t.Errorf("%s: %s of user %d, %s; want %s", digest, got, k.UserID, k.Role, want)
		}
	}
	for _, nobodys := range []struct {
		user   int64
		digest string
	}{{other, "off"}, {user, "none"}, {user, ""}, {user, "PLAIN"}, {user + 99, "plain"}} {
		if _, err := db.ReadAPIKey(t.Context(), database, nobodys.user, nobodys.digest, clock()); !errors.Is(err, db.ErrNobody) {
			t.Errorf("%+v: %v", nobodys, err)
		}
	}
	exec(t, database, `UPDATE users SET is_active = NULL WHERE id = ?`, user)
	if k, err := db.ReadAPIKey(t.Context(), database, user, "plain", clock()); err != nil || k.Valid {
		t.Errorf("of a user who is not active: %+v, %v", k, err)
	}
}

func TestTouchAPIKey(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	user := customer(t, database, "anna")
	exec(t, database, `INSERT INTO api_keys (id, user_id, name, key, prefix) VALUES (1, ?0, 'a', 'x', 'p'), (2, ?0, 'a', 'y', 'p')`, user)
	touch := func(after time.Duration) string {
		t.Helper()
		now := clock().Add(after)
		if err := db.TouchAPIKey(t.Context(), database, 1, now, now.Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
		return table(t, database, `SELECT to_char(last_used, 'HH24:MI:SS') FROM api_keys ORDER BY id`)
	}
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, "22:30:15"}, {59 * time.Second, "22:30:15"}, {time.Minute, "22:31:15"}, {time.Second, "22:31:15"}} {
		if got := touch(step.after); got != step.want+"\nnull" {
			t.Errorf("after %s: %q, want %s", step.after, got, step.want)
		}
	}
	tx := begin(t, database)
	exec(t, tx, `SELECT FROM api_keys FOR UPDATE`)
	if got := touch(time.Hour); got != "22:31:15\nnull" { // it would wait for ever
		t.Errorf("while the row is somebody's: %q", got)
	}
}

func TestReadSession(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	passive := customer(t, database, "boris")
	exec(t, database, `UPDATE users SET is_active = false WHERE id = ?`, passive)
	for sid, sess := range map[string]string{
		"number": `{"passport":{"user":%d}}`, "text": `{"passport":{"user":"%d"}}`, "more": `{"cookie":{"path":"/"},"passport":{"user":%d},"passports":{"user":2}}`,
	} {
		exec(t, database, `INSERT INTO session (sid, sess, expire) VALUES (?, ?, '2026-02-28 22:30:15.123457')`, sid, fmt.Sprintf(sess, anna))
		u, err := db.ReadSession(t.Context(), database, sid, clock())
		if err != nil || u.ID != anna || u.Role != "client" {
			t.Errorf("%s: %+v, %v", sid, u, err)
		}
		if _, err := db.ReadSession(t.Context(), database, sid, clock().Add(time.Microsecond)); !errors.Is(err, db.ErrNobody) {
			t.Errorf("%s, expired: %v", sid, err)
		}
	}
	for i, sess := range []string{
		fmt.Sprintf(`{"passport":{"user":%d}}`, passive), fmt.Sprintf(`{"passport":{"user":"0%d"}}`, anna), fmt.Sprintf(`{"passport":{"user":%d.0}}`, anna),
		fmt.Sprintf(`{"passport":{"user":" %d"}}`, anna), fmt.Sprintf(`{"passport":{"user":"%d\n"}}`, anna), fmt.Sprintf(`{"passport":{"user":[%d]}}`, anna), fmt.Sprintf(`{"passport":{"user":{"id":%d}}}`, anna), fmt.Sprintf(`{"user":%d}`, anna),
		`{"passport":{"user":99}}`, `{"passport":{"user":9999999999}}`, `{"passport":{"user":99999999999999999999}}`, `{"passport":{"user":-1}}`, `{"passport":{"user":null}}`, `{"passport":{}}`,
		`{"passport":null}`, `{"passport":"x"}`, `{"passport":[1]}`, `{}`, `[]`, `null`, `"x"`,
	} {
		sid := fmt.Sprint("none", i)
		exec(t, database, `INSERT INTO session (sid, sess, expire) VALUES (?, ?, '2030-01-01')`, sid, sess)
		if u, err := db.ReadSession(t.Context(), database, sid, clock()); !errors.Is(err, db.ErrNobody) {
			t.Errorf("%s: %+v, %v", sess, u, err)
		}
	}
	if _, err := db.ReadSession(t.Context(), database, "away", clock()); !errors.Is(err, db.ErrNobody) {
		t.Errorf("no session: %v", err)
	}
	if _, err := db.ReadSession(t.Context(), database, "a\x00b", clock()); err == nil || errors.Is(err, db.ErrNobody) || strings.Contains(err.Error(), "a\x00b") {
		t.Errorf("an id that PostgreSQL cannot hold: %v", err)
	}
}

// Who calls is found by keys, not by reading tables whole.
func TestCallersAreFoundByIndex(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO users (email, username, password, full_name) SELECT n, n, '!', n FROM generate_series(1, 20000) n;
		INSERT INTO session (sid, sess, expire) SELECT 's' || n, json_build_object('passport', json_build_object('user', n)), '2030-01-01' FROM generate_series(1, 20000) n;
		ANALYZE users, session`)
	tx := begin(t, database)
	before := table(t, tx, seqScans)
	if u, err := db.ReadSession(t.Context(), tx, "s777", clock()); err != nil || u.ID != 777 {
		t.Fatalf("%+v, %v", u, err)
	}
	if after := table(t, tx, seqScans); after != before {
		t.Errorf("a session was found by reading tables whole: %s, before %s", after, before)
	}
}

const seqScans = `SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_xact_user_tables WHERE relname IN ('users', 'session')`
