package siege

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/events"
)

// DrainTimeout bounds how long the service may take to bring the books in step
// once it is left in peace.
const DrainTimeout = 2 * time.Minute

// Drained waits until the books are in step with what was answered 202, up to
// [DrainTimeout], and says what is missing then.
func Drained(ctx context.Context, database *bun.DB, accepted []Accepted) (lost []string) {
	deadline, cancel := context.WithTimeout(ctx, DrainTimeout)
	defer cancel()
	var settling int
	for {
		missing, err := Missing(deadline, database, accepted)
		if err == nil {
			lost = missing
			err = database.NewRaw(`SELECT count(*) FROM serversync.servers WHERE status = 'settling' AND confirmed AND ask = ''`).Scan(deadline, &settling)
		}
		if err == nil && len(missing) == 0 && settling == 0 {
			return nil
		}
		if deadline.Err() != nil {
			if settling > 0 {
				lost = append(lost, fmt.Sprintf("%d servers are still settling", settling))
			}
			if len(lost) == 0 {
				lost = append(lost, fmt.Sprintf("the books could not be read: %v", err))
			}
			return lost
		}
		Pause(deadline, 100*time.Millisecond)
	}
}

// Count is how many servers the books have, and how many billing rows of ours.
func Count(ctx context.Context, database *bun.DB) (servers, rows int, err error) {
	err = database.NewRaw(`SELECT (SELECT count(*) FROM serversync.servers), (SELECT count(*) FROM serversync.billing_rows WHERE made_by = 'serversync')`).
		Scan(ctx, &servers, &rows)
	if err != nil {
		return 0, 0, fmt.Errorf("count the books: %w", err)
	}
	return servers, rows, nil
}

// Missing says which accepted webhooks the books do not know of: an event that
// is older than what they say of its server is in them, a newer one is not.
func Missing(ctx context.Context, database *bun.DB, accepted []Accepted) ([]string, error) {
	var servers []db.Server
	if err := database.NewSelect().Model(&servers).Column("virtfusion_id", "name", "status", "observed_at", "observed_event_id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("read the inventory: %w", err)
	}
	books := make(map[int64]*db.Server, len(servers))
	for i := range servers {
		books[servers[i].VirtfusionID] = &servers[i]
	}
	var lines []string
	for _, a := range accepted {
		s := books[a.ServerID]
		switch {
		case s == nil:
			lines = append(lines, fmt.Sprintf("event %s (%s): server %d is not in the books", a.ID, a.Event, a.ServerID))
		case s.ObservedAt.Before(a.Created.Truncate(time.Microsecond)):
			lines = append(lines, fmt.Sprintf("event %s (%s) of %s: the books know server %d as of %s only", a.ID, a.Event, a.Created, a.ServerID, s.ObservedAt))
		case a.Event == "server.destroy" && s.Status != "gone":
			lines = append(lines, fmt.Sprintf("event %s: server %d was destroyed, the books call it %s", a.ID, a.ServerID, s.Status))
		case s.ObservedEventID == a.ID && a.Name != "" && s.Name != a.Name:
			lines = append(lines, fmt.Sprintf("event %s called server %d %q, the books call it %q", a.ID, a.ServerID, a.Name, s.Name))
		}
	}
	return lines, nil
}

// Doubled says what is in the books more than once, or is billed that must not
// be.
func Doubled(ctx context.Context, database *bun.DB) ([]string, error) {
	var all []string
	for _, query := range []string{
		`SELECT format('server %s has %s enabled billing rows', virtfusion_server_id, count(*))
			FROM virtfusion_hourly_billing WHERE billing_enabled GROUP BY virtfusion_server_id HAVING count(*) > 1`,
		`SELECT format('server %s has %s open billing rows for user %s', b.virtfusion_server_id, count(*), b.user_id)
			FROM virtfusion_hourly_billing b JOIN serversync.billing_rows r ON r.billing_id = b.id AND r.closed_reason IS NULL
			GROUP BY b.virtfusion_server_id, b.user_id HAVING count(*) > 1`,
		`SELECT format('billing row %s has %s pending charges', billing_id, count(*))
			FROM virtfusion_hourly_transactions WHERE status = 'pending' GROUP BY billing_id HAVING count(*) > 1`,
		`SELECT format('billing row %s is not remembered as ours', b.id) FROM virtfusion_hourly_billing b
			WHERE NOT EXISTS (SELECT FROM serversync.billing_rows r WHERE r.billing_id = b.id)`,
		`SELECT format('the history of server %s tells %s times: %s, event %s, row %s', virtfusion_id, count(*), kind, event_id, billing_id)
			FROM serversync.history WHERE event_id <> '' GROUP BY virtfusion_id, kind, event_id, billing_id HAVING count(*) > 1`,
		`SELECT format('server %s is %s, billing %s, and has %s enabled rows', s.virtfusion_id, s.status, s.billing, count(b.id))
			FROM serversync.servers s LEFT JOIN virtfusion_hourly_billing b ON b.virtfusion_server_id = s.virtfusion_id AND b.billing_enabled
			GROUP BY s.virtfusion_id HAVING count(b.id) <> CASE WHEN s.billing = 'on' THEN 1 ELSE 0 END`,
	} {
		var lines []string
		if err := database.NewRaw(query).Scan(ctx, &lines); err != nil {
			return nil, fmt.Errorf("look for doubles: %w", err)
		}
		all = append(all, lines...)
	}
	return all, nil
}

// Stored says what a stream should hold and does not: each accepted event once,
// nothing that was never delivered, no dead letter.
func Stored(ctx context.Context, js jetstream.JetStream, accepted []Accepted) (lines []string, err error) {
	stored, err := storedIDs(ctx, js)
	if err != nil {
		return nil, err
	}
	for _, a := range accepted {
		if n := stored[a.ID]; n != 1 {
			lines = append(lines, fmt.Sprintf("event %s of server %d is %d times on the stream", a.ID, a.ServerID, n))
		}
	}
	consumer, err := js.Consumer(ctx, events.StreamName, events.ConsumerName)
	if err != nil {
		return nil, fmt.Errorf("look at the consumer: %w", err)
	}
	if info := consumer.CachedInfo(); info.NumPending > 0 {
		lines = append(lines, fmt.Sprintf("%d events were never delivered", info.NumPending))
	}
	dead, _, err := events.NewDeadLetters(js).List(ctx, 0, 100)
	for _, d := range dead {
		lines = append(lines, fmt.Sprintf("event %s is a dead letter: %s", d.ID, d.Reason))
	}
	return lines, err
}

// storedIDs counts the message ids of the stream.
func storedIDs(ctx context.Context, js jetstream.JetStream) (map[string]int, error) {
	stream, err := js.Stream(ctx, events.StreamName)
	if err != nil {
		return nil, fmt.Errorf("open the stream: %w", err)
	}
	ids := make(map[string]int)
	state := stream.CachedInfo().State
	for sequence := state.FirstSeq; sequence <= state.LastSeq; sequence++ {
		m, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) && slices.Contains(state.Deleted, sequence) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read message %d of the stream: %w", sequence, err)
		}
		ids[m.Header.Get(jetstream.MsgIDHeader)]++
	}
	return ids, nil
}
