package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// ErrNoNotifications means that SkyPANEL has no table `notifications`, or that our
// role may not add to it.
var ErrNoNotifications = errors.New("SkyPANEL's table notifications is missing, or may not be added to: GRANT SELECT, INSERT ON public.notifications and USAGE ON its sequence to our role, or switch NOTIFY_USERS and NOTIFY_ADMINS off")

// Notification is a row of SkyPANEL's notifications, which its pages show to one
// user.
type Notification struct {
	UserID  int64 // SkyPANEL users.id
	Title   string
	Message string
	Type    string // 'info', 'warning', 'error', 'success'
}

// CanNotify sees whether notifications can be added; [ErrNoNotifications].
func CanNotify(ctx context.Context, idb bun.IDB) error {
	allowed, err := queryAll(ctx, idb, func(rows *sql.Rows) (bool, error) {
		var ok bool
		err := rows.Scan(&ok)
		return ok, err
	}, `
		SELECT coalesce(has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'SELECT')
			AND coalesce(has_sequence_privilege(pg_get_serial_sequence('public.notifications', 'id'), 'USAGE'), true), false)
		FROM pg_class c WHERE c.oid = to_regclass('public.notifications')`)
	if err != nil {
		return fmt.Errorf("look for SkyPANEL's notifications: %w", err)
	}
	if len(allowed) == 0 || !allowed[0] {
		return ErrNoNotifications
	}
	return nil
}

// notifyPatience is how long a lock on SkyPANEL's notifications may keep a
// transaction waiting.
const notifyPatience = "1s"

// Notify adds rows to SkyPANEL's notifications within a transaction, which it does
// not spoil: where it fails, nothing is added and the transaction goes on. Users
// whom SkyPANEL does not have any more get none. [ErrNoNotifications] among the
// errors.
func Notify(ctx context.Context, tx bun.Tx, all []Notification, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	users, titles, messages, types := make([]int64, len(all)), make([]string, len(all)), make([]string, len(all)), make([]string, len(all))
	for i, n := range all {
		users[i], titles[i], messages[i], types[i] = n.UserID, n.Title, n.Message, n.Type
	}
	err := tx.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error { // a savepoint
		if err := CanNotify(ctx, tx); err != nil {
			return err
		}
		if _, err := nativeOf(tx).ExecContext(ctx, `SET LOCAL lock_timeout = '`+notifyPatience+`'`); err != nil {
			return err
		}
		if _, err := nativeOf(tx).ExecContext(ctx, `
			INSERT INTO public.notifications (user_id, title, message, type, read, created_at)
			SELECT v.user_id, v.title, v.message, v.type, false, $5::timestamp
			FROM unnest($1::int[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS v (user_id, title, message, type, n)
			WHERE EXISTS (SELECT FROM public.users u WHERE u.id = v.user_id) ORDER BY v.n`, users, titles, messages, types, now.UTC()); err != nil {
			return err
		}
		_, err := nativeOf(tx).ExecContext(ctx, `SET LOCAL lock_timeout TO DEFAULT`)
		return err
	})
	return wrap(err, "add to SkyPANEL's notifications")
}
