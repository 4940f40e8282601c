package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// ErrNobody means that SkyPANEL knows no such API key, or no such session of a
// user who may come in.
var ErrNobody = errors.New("SkyPANEL knows nobody by this")

// APIKey is a key of SkyPANEL's, and whose it is.
type APIKey struct {
	ID     int64
	UserID int64 // SkyPANEL users.id
	Role   string
	Scopes []string
	// Valid: it is switched on and has not expired, and its user is active.
	Valid bool
	// LastUsed is when it last opened something, as far as is written down.
	LastUsed *time.Time
}

// ReadAPIKey reads the key of a user whose stored digest this is; [ErrNobody]
// when the user has none such. The digest is that of a secret, so that how long
// the comparison takes tells nothing of the secret.
func ReadAPIKey(ctx context.Context, idb bun.IDB, userID int64, digest string, now time.Time) (APIKey, error) {
	keys, err := queryAll(ctx, idb, func(rows *sql.Rows) (APIKey, error) {
		var k APIKey
		var scopes []byte
		if err := rows.Scan(&k.ID, &k.UserID, &k.Role, &scopes, &k.Valid, &k.LastUsed); err != nil {
			return k, err
		}
		return k, json.Unmarshal(scopes, &k.Scopes)
	}, `
		SELECT k.id, u.id, u.role, to_json(array_remove(coalesce(k.scopes, '{}'), NULL)),
			k.is_active IS TRUE AND u.is_active IS TRUE
				AND (k.expires_at IS NULL OR k.expires_at > $3::timestamptz AT TIME ZONE 'UTC') AS valid,
			k.last_used
		FROM public.api_keys k
		JOIN public.users u ON u.id = k.user_id
		WHERE k.user_id = $1 AND k.key = $2
		ORDER BY valid DESC, k.id LIMIT 1`, userID, digest, now)
	if err != nil {
		return APIKey{}, fmt.Errorf("look up an API key of user %d: %w", userID, err)
	}
	if len(keys) == 0 {
		return APIKey{}, fmt.Errorf("look up an API key of user %d: %w", userID, ErrNobody)
	}
	return keys[0], nil
}

// TouchAPIKey writes down that a key is used now, unless that was written after
// the given time, or another transaction has the row: it waits for nobody.
func TouchAPIKey(ctx context.Context, idb bun.IDB, id int64, now, since time.Time) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE public.api_keys SET last_used = $2::timestamptz AT TIME ZONE 'UTC'
		WHERE id = (
			SELECT id FROM public.api_keys
			WHERE id = $1 AND (last_used IS NULL OR last_used <= $3::timestamptz AT TIME ZONE 'UTC')
			FOR UPDATE SKIP LOCKED)`, id, now, since)
	if err != nil {
		return fmt.Errorf("write down that API key %d is used: %w", id, err)
	}
	return nil
}

// SessionUser is who is signed in to SkyPANEL.
type SessionUser struct {
	ID   int64 // SkyPANEL users.id
	Role string
}

// ReadSession reads whose session this is; [ErrNobody] when there is none, or
// it has expired, nobody is signed in, or the user is not active. SkyPANEL
// keeps the user's id as a number or as text.
func ReadSession(ctx context.Context, idb bun.IDB, sid string, now time.Time) (SessionUser, error) {
	users, err := queryAll(ctx, idb, func(rows *sql.Rows) (SessionUser, error) {
		var u SessionUser
		err := rows.Scan(&u.ID, &u.Role)
		return u, err
	}, `
		SELECT u.id, u.role
		FROM public.session s
		CROSS JOIN LATERAL (SELECT s.sess -> 'passport' ->> 'user' AS id) p
		JOIN public.users u ON u.id = CASE WHEN p.id ~ '^[1-9][0-9]{0,9}$' THEN p.id::bigint END
		WHERE s.sid = $1 AND s.expire > $2::timestamptz AT TIME ZONE 'UTC' AND u.is_active IS TRUE`, sid, now)
	if err != nil {
		return SessionUser{}, fmt.Errorf("look up a session: %w", err)
	}
	if len(users) == 0 {
		return SessionUser{}, fmt.Errorf("look up a session: %w", ErrNobody)
	}
	return users[0], nil
}
