package db

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// The kinds of operators' wishes: serversync.overrides.kind.
const (
	WishBillingOn  = "billing_on"
	WishBillingOff = "billing_off"
	WishPackage    = "package"
	WishIgnore     = "ignore"
	WishUndone     = "undone" // what was made for it was taken back: no row is made
	WishKeep       = "keep"   // what was changed of its rows was taken back: package, price and UUID stay as they are
)

// WishChange is what becomes of operators' wishes for servers.
type WishChange struct {
	// Set is the kind of the wish to make; empty: none.
	Set string `json:"set,omitempty"`
	// PackageID is the VirtFusion package of [WishPackage].
	PackageID *int64 `json:"packageId,omitempty"`
	// Drop are the kinds of the wishes to end.
	Drop []string `json:"drop,omitempty"`
}

// Apply gives one server's wishes after a change; word is the new one's reason
// and author. The given ones stay as they are.
func (c *WishChange) Apply(wishes []Override, word Override) []Override {
	after := slices.DeleteFunc(slices.Clone(wishes), func(o Override) bool { return o.Kind == c.Set || slices.Contains(c.Drop, o.Kind) })
	if c.Set != "" {
		word.Kind, word.PackageID = c.Set, c.PackageID
		after = append(after, word)
	}
	slices.SortFunc(after, func(a, b Override) int { return cmp.Compare(a.Kind, b.Kind) })
	return after
}

// ChangeWishes changes the operators' wishes for servers, and writes a history
// line for each whose wishes change: a constant number of statements. The wish
// that is made takes reason, author and time from word. Servers that the
// inventory does not know are passed over. The servers are to be decided again
// afterwards.
func ChangeWishes(ctx context.Context, tx bun.Tx, ids []int64, change WishChange, word Override, runID string) error {
	servers, err := ServersByID(ctx, tx, ids)
	if err != nil {
		return err
	}
	slices.SortFunc(servers, func(a, b Server) int { return cmp.Compare(a.VirtfusionID, b.VirtfusionID) })
	overrides, err := OverridesByServer(ctx, tx, ids)
	if err != nil {
		return err
	}
	before := make(map[int64][]Override, len(servers))
	for _, o := range overrides {
		before[o.VirtfusionID] = append(before[o.VirtfusionID], o)
	}
	var turns []WishTurn
	for i := range servers {
		s := &servers[i]
		word.VirtfusionID = s.VirtfusionID
		turn := WishTurn{Server: s, Was: (&WishChange{}).Apply(before[s.VirtfusionID], Override{}), Why: wishWords(change, word)}
		turn.Is = change.Apply(turn.Was, word)
		turns = append(turns, turn)
	}
	return TurnWishes(ctx, tx, turns, word.SetAt, runID)
}

// WishTurn is what becomes of the operators' wishes for one server.
type WishTurn struct {
	Server  *Server
	Was, Is []Override // in the order of their kinds
	Why     string     // for the history
}

// TurnWishes replaces the operators' wishes for servers, and writes a history line
// for each whose wishes change: a constant number of statements.
func TurnWishes(ctx context.Context, tx bun.Tx, turns []WishTurn, at time.Time, runID string) error {
	var changed []int64
	var wishes []Override
	var lines []History
	for i := range turns {
		t := &turns[i]
		if sameWishes(t.Was, t.Is) {
			continue
		}
		s := t.Server
		line := History{
			At: at, VirtfusionID: s.VirtfusionID, UserID: s.UserID, BillingID: s.BillingID, Kind: "wish",
			Reason: t.Why, Source: "operator", RunID: runID,
		}
		var err error
		if line.Before, err = wishesJSON(t.Was); err != nil {
			return err
		}
		if line.After, err = wishesJSON(t.Is); err != nil {
			return err
		}
		changed, wishes, lines = append(changed, s.VirtfusionID), append(wishes, t.Is...), append(lines, line)
	}
	if len(changed) == 0 {
		return nil
	}
	if _, err := nativeOf(tx).ExecContext(ctx, `DELETE FROM serversync.overrides WHERE virtfusion_id = ANY($1::bigint[])`, changed); err != nil {
		return fmt.Errorf("end the wishes for %d servers: %w", len(changed), err)
	}
	if _, err := nativeOf(tx).ExecContext(ctx, `
		INSERT INTO serversync.overrides (virtfusion_id, kind, package_id, reason, set_by, set_at, user_id)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::int[])`,
		column(wishes, func(o *Override) int64 { return o.VirtfusionID }),
		column(wishes, func(o *Override) string { return o.Kind }),
		column(wishes, func(o *Override) *int64 { return o.PackageID }),
		column(wishes, func(o *Override) string { return o.Reason }),
		column(wishes, func(o *Override) string { return o.SetBy }),
		column(wishes, func(o *Override) time.Time { return o.SetAt }),
		column(wishes, func(o *Override) *int64 { return o.UserID })); err != nil {
		return fmt.Errorf("write the wishes for %d servers: %w", len(changed), err)
	}
	return InsertHistory(ctx, tx, lines)
}

func sameWishes(a, b []Override) bool {
	return slices.EqualFunc(a, b, func(a, b Override) bool {
		return a.Kind == b.Kind && a.Reason == b.Reason && (a.PackageID == b.PackageID || a.PackageID != nil && b.PackageID != nil && *a.PackageID == *b.PackageID)
	})
}

// wishWords say who wants what, and why.
func wishWords(change WishChange, word Override) string {
	wants := map[string]string{
		WishBillingOn: "wants it billed", WishBillingOff: "wants its billing off", WishIgnore: "wants it left alone",
		WishPackage: "wants it billed as another package", "": "takes back what operators wanted of it",
	}[change.Set]
	if change.PackageID != nil {
		wants = fmt.Sprintf("wants it billed as package %d", *change.PackageID)
	}
	return strings.TrimSuffix(word.SetBy+" "+wants+": "+word.Reason, ": ")
}

// WishesIn reads the wishes that a history line tells of: kinds, packages and, but
// for packages, reasons.
func WishesIn(line []byte) ([]Override, error) {
	var told struct {
		Wishes map[string]json.RawMessage `json:"wishes"`
	}
	if err := json.Unmarshal(line, &told); err != nil {
		return nil, fmt.Errorf("read the wishes of a history line: %w", err)
	}
	var wishes []Override
	for kind, value := range told.Wishes {
		o := Override{Kind: kind}
		if err := json.Unmarshal(value, &o.Reason); err != nil {
			if err := json.Unmarshal(value, &o.PackageID); err != nil {
				return nil, fmt.Errorf("read the wish %s of a history line: %w", kind, err)
			}
		}
		wishes = append(wishes, o)
	}
	slices.SortFunc(wishes, func(a, b Override) int { return cmp.Compare(a.Kind, b.Kind) })
	return wishes, nil
}

// wishesJSON is one server's wishes in a history line.
func wishesJSON(wishes []Override) ([]byte, error) {
	kinds := make(map[string]any, len(wishes))
	for _, o := range wishes {
		kinds[o.Kind] = o.Reason
		if o.PackageID != nil {
			kinds[o.Kind] = *o.PackageID
		}
	}
	data, err := json.Marshal(map[string]any{"wishes": kinds})
	return data, wrap(err, "encode the wishes for a server")
}

// StageBulk adds an operator's servers to a run.
func StageBulk(ctx context.Context, idb bun.IDB, runID string, ids []int64) error {
	items := make([]RunItem, len(ids))
	for i, id := range ids {
		items[i] = RunItem{RunID: runID, ServerID: id, Found: FoundNamed}
	}
	return StageMore(ctx, idb, runID, items)
}

// Why servers are in a bulk action or a replay.
const (
	FoundNamed   = "named"   // an operator named it
	FoundUnknown = "unknown" // an operator named it, and the inventory does not know it
)

// FailUnknown completes a run's items of servers that the inventory does not
// know as failed.
func FailUnknown(ctx context.Context, idb bun.IDB, runID, why string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items i SET found = $2, state = 'done', outcome = 'failed', error = $3
		WHERE i.run_id = $1 AND i.outcome IS NULL
			AND NOT EXISTS (SELECT FROM serversync.servers s WHERE s.virtfusion_id = i.virtfusion_id)`, runID, FoundUnknown, why)
	return wrap(err, "look for unknown servers in run "+runID)
}

// ItemResult is what became of one server of a run; in a dry run, what would.
type ItemResult struct {
	ServerID int64
	Found    string
	Outcome  string // empty: none (yet)
	Effect   string // empty: not previewed
	Error    string // of a failure; or what could not be taken back
	Status   string // of the server in the inventory, now; empty: it is not in there
}

// ItemResults reads what became of up to limit servers of a run above the id
// after, in order.
func ItemResults(ctx context.Context, idb bun.IDB, runID string, after int64, limit int) ([]ItemResult, error) {
	results, err := queryAll(ctx, idb, func(rows *sql.Rows) (ItemResult, error) {
		var r ItemResult
		err := rows.Scan(&r.ServerID, &r.Found, &r.Outcome, &r.Effect, &r.Error, &r.Status)
		return r, err
	}, `
		SELECT i.virtfusion_id, i.found, coalesce(i.outcome, ''), coalesce(i.effect, ''), coalesce(i.error, i.forecast->>'left', ''), coalesce(s.status, '')
		FROM serversync.run_items i LEFT JOIN serversync.servers s ON s.virtfusion_id = i.virtfusion_id
		WHERE i.run_id = $1 AND i.virtfusion_id > $2 ORDER BY i.virtfusion_id LIMIT $3`, runID, after, limit)
	return results, wrap(err, "read what became of the servers of run "+runID)
}

// Linked is a server that has or had to do with a SkyPANEL user.
type Linked struct {
	ServerID int64
	// Gone: the inventory says that it is.
	Gone bool
}

// ServersLinkedTo lists, in order, every server that was ever linked to a
// SkyPANEL user as far as we know: by the inventory, by SkyPANEL's billing rows,
// by our records of those that we made, and by the history.
func ServersLinkedTo(ctx context.Context, idb bun.IDB, userID int64) ([]Linked, error) {
	linked, err := queryAll(ctx, idb, func(rows *sql.Rows) (Linked, error) {
		var l Linked
		err := rows.Scan(&l.ServerID, &l.Gone)
		return l, err
	}, `
		SELECT k.id, coalesce(s.status = 'gone', false) FROM (
			SELECT virtfusion_id AS id FROM serversync.servers WHERE user_id = $1
			UNION SELECT virtfusion_server_id FROM public.virtfusion_hourly_billing WHERE user_id = $1
			UNION SELECT virtfusion_id FROM serversync.billing_rows WHERE user_id = $1
			UNION SELECT virtfusion_id FROM serversync.history WHERE user_id = $1) k
		LEFT JOIN serversync.servers s ON s.virtfusion_id = k.id
		WHERE k.id > 0 ORDER BY k.id`, userID)
	return linked, wrap(err, fmt.Sprintf("list the servers that were ever linked to user %d", userID))
}

// TallyReplay raises the outcomes of a replay's servers to what the run did to
// their billing rows in all: the event that completed an item may have found
// that one before it had done the work. Again, it changes nothing.
func TallyReplay(ctx context.Context, idb bun.IDB, runID string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		WITH did AS (
			SELECT i.virtfusion_id, bool_or(h.kind = 'billing_created') AS created
			FROM serversync.run_items i
			JOIN serversync.history h ON h.virtfusion_id = i.virtfusion_id AND h.run_id = $1
			WHERE i.run_id = $1 AND i.outcome IN ('unchanged', 'updated')
				AND h.kind IN ('billing_created', 'billing_changed', 'billing_closed', 'billing_withdrawn')
			GROUP BY i.virtfusion_id)
		UPDATE serversync.run_items i SET outcome = CASE WHEN did.created THEN 'new' ELSE 'updated' END
		FROM did WHERE i.run_id = $1 AND i.virtfusion_id = did.virtfusion_id`, runID)
	return wrap(err, "tally the replay "+runID)
}

// wishTime is when a wish is made, as PostgreSQL keeps it.
func wishTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// NewWish is an operator's word: the author, the reason and the time of a wish.
func NewWish(by, reason string, at time.Time) Override {
	return Override{SetBy: by, Reason: reason, SetAt: wishTime(at)}
}
