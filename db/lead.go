package db

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/uptrace/bun"
)

// leadLock is the advisory lock of whoever sweeps: "sweep" in ASCII.
const leadLock = 0x7377656570

// Lead is the right to sweep: an advisory lock on a connection of its own.
// PostgreSQL ends it with the connection, so that it never outlives its holder.
type Lead struct{ conn bun.Conn }

// TryLead takes the lead; nil: somebody else has it. It holds a connection of
// the pool until [Lead.Release].
func TryLead(ctx context.Context, database *bun.DB) (*Lead, error) {
	conn, err := database.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to take the lead: %w", err)
	}
	var got bool
	if err := conn.NewRaw(`SELECT pg_try_advisory_lock(?)`, int64(leadLock)).Scan(ctx, &got); err != nil || !got {
		_ = conn.Close()
		return nil, wrap(err, "take the lead") // nil, nil: it is taken
	}
	return &Lead{conn: conn}, nil
}

// Check asks whether the lead is still held; an error means that it may be lost.
func (l *Lead) Check(ctx context.Context) error {
	var held bool
	err := l.conn.NewRaw(`SELECT EXISTS (SELECT FROM pg_locks
		WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
			AND ((classid::bigint << 32) | objid::bigint) = ?)`, int64(leadLock)).Scan(ctx, &held)
	if err == nil && !held {
		err = ErrLostRun
	}
	return wrap(err, "check the lead")
}

// Release gives the lead back. The connection is closed in any case.
func (l *Lead) Release(ctx context.Context) error {
	_, err := l.conn.ExecContext(ctx, `SELECT pg_advisory_unlock_all()`)
	if err != nil { // it must not go back to the pool with the lock
		_ = l.conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	if closeErr := l.conn.Close(); err == nil {
		err = closeErr
	}
	return wrap(err, "give back the lead")
}

// Leading reports whether any process has the lead.
func Leading(ctx context.Context, idb bun.IDB) (bool, error) {
	var led bool
	err := idb.NewRaw(`SELECT EXISTS (SELECT FROM pg_locks
		WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND ((classid::bigint << 32) | objid::bigint) = ?)`, int64(leadLock)).Scan(ctx, &led)
	return led, wrap(err, "look who sweeps")
}
