package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// SentNotice is a notice with what became of it by each channel.
type SentNotice struct {
	ID int64
	Notice

	Deliveries []NoticeDelivery // in the order of the channels; none: no channel was on
}

// NoticeDelivery is a notice's way by a channel.
type NoticeDelivery struct {
	Channel     string     `json:"channel"` // 'skypanel', 'webhook', 'email'
	MessageID   string     `json:"message"`
	Attempts    int64      `json:"attempts"`
	Error       string     `json:"error"` // of the last attempt
	MadeAt      time.Time  `json:"made"`
	NextAt      time.Time  `json:"next"`      // when it is tried (again)
	DeliveredAt *time.Time `json:"delivered"` // nil: not yet
}

// GivenUpAt is from when on a message is not tried any more.
func (d *NoticeDelivery) GivenUpAt() time.Time { return d.MadeAt.Add(messageKept) }

// SentNotices lists up to limit notices, newest first, with ids below before (0:
// from the newest on); undelivered: those alone that a channel has tried to tell
// and could not.
func SentNotices(ctx context.Context, idb bun.IDB, before int64, undelivered bool, limit int) ([]SentNotice, error) {
	found, err := queryAll(ctx, idb, func(rows *sql.Rows) (SentNotice, error) {
		var n SentNotice
		var deliveries []byte
		if err := rows.Scan(&n.ID, &n.Subject, &n.Kind, &n.Severity, &n.Title, &n.Message, &n.ServerID, &n.RunID, &n.At, &deliveries); err != nil {
			return n, err
		}
		return n, json.Unmarshal(deliveries, &n.Deliveries)
	}, `
		SELECT n.id, n.subject, n.kind, n.severity, n.title, n.message, n.server_id, coalesce(n.run_id, ''), n.at,
			coalesce((
				SELECT json_agg(json_build_object('channel', m.channel, 'message', m.id, 'attempts', m.attempts, 'error', m.error,
					'made', m.made_at, 'next', m.next_at, 'delivered', m.delivered_at) ORDER BY m.channel)
				FROM serversync.notice_deliveries d JOIN serversync.notice_messages m ON m.id = d.message_id
				WHERE d.notice_id = n.id), '[]')
		FROM serversync.notices n
		WHERE ($1 = 0 OR n.id < $1) AND (NOT $2 OR EXISTS (
			SELECT FROM serversync.notice_deliveries d JOIN serversync.notice_messages m ON m.id = d.message_id
			WHERE d.notice_id = n.id AND m.delivered_at IS NULL AND m.error <> ''))
		ORDER BY n.id DESC LIMIT $3`, before, undelivered, limit)
	if err != nil {
		return nil, fmt.Errorf("list the notices: %w", err)
	}
	return found, nil
}
