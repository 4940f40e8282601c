package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// Notice is something that administrators are told of, once.
type Notice struct {
	// Subject is what it is about: two with the same are one.
	Subject  string
	Kind     string
	Severity AuditSeverity
	Title    string
	Message  string
	ServerID *int64 // VirtFusion's; nil: no single server
	RunID    string // empty: no run
	At       time.Time
}

// NoticeMessage is some notices on their way by a channel. Its id stays the same
// however often it is sent.
type NoticeMessage struct {
	ID       string
	MadeAt   time.Time
	Attempts int // this one too
	Notices  []Notice
}

const (
	// maxNotice bounds a notice's text, in characters.
	maxNotice = 1000
	// noticesAtOnce is how many notices a message holds; the others are in the next.
	noticesAtOnce = 100
	// noticeKept is how long a notice may wait for a channel: one that is switched
	// on later does not tell of what is long over.
	noticeKept = 24 * time.Hour
	// messageKept is how long a message is tried.
	messageKept = 3 * 24 * time.Hour
)

// CollectNotices finds what administrators are to be told of and were not yet:
// conflicts, critical findings of the watchdog, runs that wait for approval, and
// sweeps that went wrong (once until one succeeds again). It returns how many are
// new.
func CollectNotices(ctx context.Context, idb bun.IDB, now time.Time) (int64, error) {
	result, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.notices (subject, kind, severity, title, message, server_id, run_id, at)
		SELECT subject, kind, severity, left(title, $2), left(message, $2), server_id, run_id, $1 FROM (
			SELECT 'conflict:' || s.virtfusion_id || ':' || coalesce(h.id, 0) AS subject, 'conflict' AS kind, 'warning' AS severity,
				'Server ' || s.virtfusion_id || ': the evidence disagrees' AS title, s.note AS message, s.virtfusion_id AS server_id, NULL::text AS run_id
			FROM serversync.servers s
			LEFT JOIN LATERAL ( -- since when it is so
				SELECT h.id FROM serversync.history h
				WHERE h.virtfusion_id = s.virtfusion_id AND h.kind = 'decided' AND h.after->>'status' = 'conflict'
				ORDER BY h.id DESC LIMIT 1) h ON true
			WHERE s.status = 'conflict'
			UNION ALL
			SELECT 'finding:' || rule || ':' || server_id || ':' || user_id || ':' || extract(epoch FROM first_seen_at)::bigint, 'finding', severity,
				'The watchdog: ' || rule, evidence, nullif(server_id, 0), NULL
			FROM serversync.findings WHERE cleared_at IS NULL AND severity = 'critical'
			UNION ALL
			SELECT 'approval:' || id || ':' || coalesce(extract(epoch FROM approved_at)::bigint, 0), 'approval', 'warning',
				'A ' || kind || ' waits for approval', note, NULL, id
			FROM serversync.runs WHERE state = 'needs_approval' AND NOT dry_run
			UNION ALL
			SELECT 'sweep:' || coalesce((
					SELECT ok.id FROM serversync.runs ok WHERE ok.kind = 'sweep' AND ok.state = 'succeeded' AND NOT ok.dry_run ORDER BY ok.started_at DESC LIMIT 1), 'none'),
				'sweep', 'warning', 'Sweeps do not see everything: the last one is ' || r.state, concat_ws(': ', nullif(r.note, ''), r.problems->0->>'message'), NULL, r.id
			FROM (
				SELECT * FROM serversync.runs WHERE kind = 'sweep' AND NOT dry_run AND ended_at IS NOT NULL AND state <> 'superseded'
				ORDER BY started_at DESC LIMIT 1) r
			WHERE r.state IN ('failed', 'incomplete')) AS found
		ON CONFLICT (subject) DO NOTHING`, now, maxNotice)
	if err != nil {
		return 0, fmt.Errorf("collect what administrators are to be told of: %w", err)
	}
	return result.RowsAffected()
}

// AddNotices adds what was found elsewhere, but for subjects that are known.
func AddNotices(ctx context.Context, idb bun.IDB, all []Notice) error {
	for i := range all {
		n := &all[i]
		if _, err := nativeOf(idb).ExecContext(ctx, `
			INSERT INTO serversync.notices (subject, kind, severity, title, message, server_id, run_id, at)
			VALUES ($1, $2, $3, left($4, $9), left($5, $9), $6, nullif($7, ''), $8) ON CONFLICT (subject) DO NOTHING`,
			n.Subject, n.Kind, string(n.Severity), n.Title, n.Message, n.ServerID, n.RunID, n.At, maxNotice); err != nil {
			return fmt.Errorf("write down the notice %s: %w", n.Subject, err)
		}
	}
	return nil
}

// FormMessage puts what a channel has not told yet into one message, unless one
// was made for it within every; made: there is a new one. More than one process at
// a time waits for the other.
func FormMessage(ctx context.Context, database *bun.DB, channel string, now time.Time, every time.Duration) (made bool, err error) {
	err = database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := nativeOf(tx).ExecContext(ctx, `LOCK TABLE serversync.notice_messages IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		result, err := nativeOf(tx).ExecContext(ctx, `
			WITH fresh AS (
				SELECT n.id FROM serversync.notices n
				WHERE n.at > $3 AND NOT EXISTS (SELECT FROM serversync.notice_deliveries d WHERE d.notice_id = n.id AND d.channel = $1)
					AND NOT EXISTS (SELECT FROM serversync.notice_messages m WHERE m.channel = $1 AND m.made_at > $4)
				ORDER BY n.id LIMIT $5),
			message AS (
				INSERT INTO serversync.notice_messages (id, channel, made_at, next_at)
				SELECT $6, $1, $2, $2 WHERE EXISTS (SELECT FROM fresh) RETURNING id)
			INSERT INTO serversync.notice_deliveries (notice_id, channel, message_id)
			SELECT fresh.id, $1, message.id FROM fresh, message`, channel, now, now.Add(-noticeKept), now.Add(-every), noticesAtOnce, "msg_"+rand.Text())
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		made = n > 0
		return err
	})
	return made, wrap(err, "make a message for "+channel)
}

// ErrNoMessage means that a channel has nothing to send now.
var ErrNoMessage = errors.New("no message is due")

// ClaimMessage takes the oldest message of a channel that is due, and puts its
// next attempt off by lease, for the case that this one is never heard of again;
// [ErrNoMessage]. Of several processes, one gets it.
func ClaimMessage(ctx context.Context, idb bun.IDB, channel string, now time.Time, lease time.Duration) (NoticeMessage, error) {
	claimed, err := queryAll(ctx, idb, func(rows *sql.Rows) (NoticeMessage, error) {
		var m NoticeMessage
		err := rows.Scan(&m.ID, &m.MadeAt, &m.Attempts)
		return m, err
	}, `
		UPDATE serversync.notice_messages m SET attempts = m.attempts + 1, next_at = $3
		WHERE m.id = (
			SELECT id FROM serversync.notice_messages
			WHERE channel = $1 AND delivered_at IS NULL AND next_at <= $2 AND made_at > $4
			ORDER BY made_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING m.id, m.made_at, m.attempts`, channel, now, now.Add(lease), now.Add(-messageKept))
	if err == nil && len(claimed) == 0 {
		return NoticeMessage{}, ErrNoMessage
	}
	if err == nil {
		claimed[0].Notices, err = noticesOf(ctx, idb, claimed[0].ID)
	}
	if err != nil {
		return NoticeMessage{}, fmt.Errorf("take the next message for %s: %w", channel, err)
	}
	return claimed[0], nil
}

func noticesOf(ctx context.Context, idb bun.IDB, messageID string) ([]Notice, error) {
	return queryAll(ctx, idb, func(rows *sql.Rows) (Notice, error) {
		var n Notice
		err := rows.Scan(&n.Subject, &n.Kind, &n.Severity, &n.Title, &n.Message, &n.ServerID, &n.RunID, &n.At)
		return n, err
	}, `
		SELECT n.subject, n.kind, n.severity, n.title, n.message, n.server_id, coalesce(n.run_id, ''), n.at
		FROM serversync.notice_deliveries d JOIN serversync.notices n ON n.id = d.notice_id
		WHERE d.message_id = $1 ORDER BY n.id`, messageID)
}

// DeliveredMessage records that a message arrived. Delivered says that it had not
// yet.
func DeliveredMessage(ctx context.Context, idb bun.IDB, id string, at time.Time) (delivered bool, err error) {
	result, err := nativeOf(idb).ExecContext(ctx, `UPDATE serversync.notice_messages SET delivered_at = $2, error = '' WHERE id = $1 AND delivered_at IS NULL`, id, at)
	if err != nil {
		return false, fmt.Errorf("record that the message %s arrived: %w", id, err)
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// FailedMessage records why a message did not arrive, and when it is tried again.
func FailedMessage(ctx context.Context, idb bun.IDB, id, reason string, next time.Time) error {
	_, err := nativeOf(idb).ExecContext(ctx, `UPDATE serversync.notice_messages SET error = left($2, $4), next_at = $3 WHERE id = $1`, id, reason, next, maxNotice)
	return wrap(err, "record that the message "+id+" did not arrive")
}

// NotifyAdmins shows a message to SkyPANEL's active administrators, and records in
// the same transaction that it arrived: they see it once. [ErrNoNotifications].
func NotifyAdmins(ctx context.Context, database *bun.DB, messageID, title, message string, now time.Time) error {
	return database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		fresh, err := DeliveredMessage(ctx, tx, messageID, now)
		if err != nil || !fresh {
			return err
		}
		admins, err := queryAll(ctx, tx, scanID, `SELECT id FROM public.users WHERE role = 'admin' AND is_active ORDER BY id`)
		if err != nil {
			return fmt.Errorf("look who is an administrator: %w", err)
		}
		all := make([]Notification, len(admins))
		for i, id := range admins {
			all[i] = Notification{UserID: id, Title: title, Message: message, Type: "warning"}
		}
		return Notify(ctx, tx, all, now)
	})
}
