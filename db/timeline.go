package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// What [ReadStory] answers when there is no one server to tell of.
var (
	ErrNoServer      = errors.New("no such server in the inventory")
	ErrAmbiguousUUID = errors.New("several servers carry this UUID")
)

// StoryQuery says of which server to tell, and how much.
type StoryQuery struct {
	ServerID int64  // VirtFusion id; 0: by UUID
	UUID     string // as VirtFusion writes it
	// Cursor is the id of the last history line that was read; 0 begins.
	Cursor      int64
	OldestFirst bool
	Lines       int // history lines, at most
	Charges     int // charges of each billing row, at most: the newest
}

// Story is all that is known of one server, as one moment saw it.
type Story struct {
	Server    Server
	Rows      []BillingMatch
	Charges   []Charge // newest first within a row
	Active    map[int64]bool
	Prices    map[int64]PackagePricing // by VirtFusion package id
	Job       BillingJob
	Overrides []Override
	History   []History
	// More: there are history lines after these.
	More bool
}

// Charge is a row of virtfusion_hourly_transactions as it stands, whoever made
// it.
type Charge struct {
	ID            int64
	BillingID     int64
	UserID        int64
	TransactionID *int64              // in the ledger that the customer sees
	Hours         decimal.NullDecimal // 1 in all known versions
	Amount        decimal.NullDecimal // dollars
	From, Until   *time.Time
	Status        string
	CreatedAt     *time.Time
	// Siblings is how many charges its billing row has in all; Collected, whether
	// SkyPANEL has collected one of them.
	Siblings  int64
	Collected bool
}

// BillingJob is what decides whether SkyPANEL's hourly job runs.
type BillingJob struct {
	// Enabled: the job as a whole and its hourly part are switched on. Without
	// any settings they are not.
	Enabled bool
	Policy
}

// ReadStory reads all that is known of one server in a constant number of
// statements, in one snapshot. It returns [ErrNoServer] or [ErrAmbiguousUUID]
// when there is no one server.
func ReadStory(ctx context.Context, database *bun.DB, q StoryQuery) (Story, error) {
	var story Story
	err := database.RunInTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, func(ctx context.Context, tx bun.Tx) error {
		story = Story{Active: make(map[int64]bool), Prices: make(map[int64]PackagePricing)}
		return story.read(ctx, tx, q)
	})
	return story, err
}

func (s *Story) read(ctx context.Context, tx bun.Tx, q StoryQuery) error {
	var err error
	if s.Server, err = findServer(ctx, tx, q); err != nil {
		return err
	}
	if err := s.readBooks(ctx, tx, q.Charges); err != nil {
		return err
	}
	if s.Overrides, err = OverridesByServer(ctx, tx, []int64{s.Server.VirtfusionID}); err != nil {
		return err
	}
	s.History, s.More, err = historyPage(ctx, tx, s.Server.VirtfusionID, q)
	return err
}

// findServer finds one server. Of several with the same UUID it is the one
// that lives.
func findServer(ctx context.Context, idb bun.IDB, q StoryQuery) (Server, error) {
	if q.ServerID != 0 {
		servers, err := ServersByID(ctx, idb, []int64{q.ServerID})
		if err != nil {
			return Server{}, err
		}
		if len(servers) == 0 {
			return Server{}, ErrNoServer
		}
		return servers[0], nil
	}
	servers, err := queryAll(ctx, idb, scanServer, `
		SELECT `+serverColumns+` FROM serversync.servers s WHERE s.uuid IN ($1, lower($1))
		ORDER BY s.status = 'gone', s.virtfusion_id LIMIT 2`, q.UUID)
	switch {
	case err != nil:
		return Server{}, fmt.Errorf("find a server by its UUID: %w", err)
	case len(servers) == 0:
		return Server{}, ErrNoServer
	case len(servers) == 2 && (servers[0].Status == "gone") == (servers[1].Status == "gone"):
		return Server{}, ErrAmbiguousUUID
	}
	return servers[0], nil
}

// readBooks reads the billing rows that name the server, their charges, and
// what SkyPANEL's job looks at beside them.
func (s *Story) readBooks(ctx context.Context, tx bun.Tx, charges int) error {
	var ids []int64
	if s.Server.VirtfusionID <= math.MaxInt32 { // as SkyPANEL's columns hold it
		ids = append(ids, s.Server.VirtfusionID)
	}
	var uuids []string
	if u := s.Server.UUID; u != "" && u != DeletedServerUUID {
		uuids = append(uuids, u)
	}
	var err error
	if s.Rows, err = BillingByServer(ctx, tx, ids, uuids); err != nil {
		return err
	}
	rowIDs := column(s.Rows, func(m *BillingMatch) int64 { return m.ID })
	if s.Charges, err = LatestCharges(ctx, tx, rowIDs, charges); err != nil {
		return err
	}
	users, err := UsersByLink(ctx, tx, nil, column(s.Rows, func(m *BillingMatch) int64 { return m.UserID }))
	if err != nil {
		return err
	}
	for _, u := range users {
		s.Active[u.ID] = u.IsActive != nil && *u.IsActive
	}
	prices, err := ReadPrices(ctx, tx)
	if err != nil {
		return err
	}
	for _, p := range prices {
		s.Prices[p.VirtfusionPackageID] = p
	}
	s.Job, err = ReadBillingJob(ctx, tx)
	return err
}

// Ours reports whether we made the billing row: by our own record, or, where
// that was lost, by its reference.
func (m *BillingMatch) Ours() bool {
	if m.Record != nil {
		return m.Record.MadeBy == "serversync"
	}
	return m.Reference1 != nil && strings.HasPrefix(*m.Reference1, "external_server_")
}

// LatestCharges reads the newest charges of billing rows, at most perRow of
// each, newest first. All charges of a row are looked at through the index on
// billing_id: with a LIMIT, a plan could walk the whole table backwards by id
// instead.
func LatestCharges(ctx context.Context, idb bun.IDB, billingIDs []int64, perRow int) ([]Charge, error) {
	scan := func(rows *sql.Rows) (Charge, error) {
		var c Charge
		err := rows.Scan(&c.ID, &c.BillingID, &c.UserID, &c.TransactionID, &c.Hours, &c.Amount,
			&c.From, &c.Until, &c.Status, &c.CreatedAt, &c.Siblings, &c.Collected)
		return c, err
	}
	charges, err := queryAll(ctx, idb, scan, `
		SELECT id, billing_id, user_id, transaction_id, hours_billed::text, amount_charged::text,
			billing_period_start, billing_period_end, coalesce(status, ''), created_at, siblings, collected
		FROM (
			SELECT t.*, row_number() OVER (PARTITION BY t.billing_id ORDER BY t.id DESC) AS place,
				count(*) OVER siblings_of AS siblings, coalesce(bool_or(t.status = 'completed') OVER siblings_of, false) AS collected
			FROM unnest($1::int[]) AS k (id)
			JOIN public.virtfusion_hourly_transactions t ON t.billing_id = k.id
			WINDOW siblings_of AS (PARTITION BY t.billing_id)) AS t
		WHERE place <= $2
		ORDER BY billing_id, id DESC`, billingIDs, perRow)
	if err != nil {
		return nil, fmt.Errorf("read the charges of %d billing rows: %w", len(billingIDs), err)
	}
	return charges, nil
}

// ReadBillingJob reads whether SkyPANEL's hourly job runs, and by what hours.
func ReadBillingJob(ctx context.Context, idb bun.IDB) (BillingJob, error) {
	policy, err := ReadPolicy(ctx, idb)
	if err != nil {
		return BillingJob{}, err
	}
	job := BillingJob{Policy: policy}
	err = idb.NewRaw(`
		SELECT coalesce(enabled, false) AND coalesce(hourly_billing_enabled, true)
		FROM public.virtfusion_cron_settings ORDER BY id DESC LIMIT 1`).Scan(ctx, &job.Enabled)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return job, fmt.Errorf("read the settings of SkyPANEL's billing job: %w", err)
	}
	return job, nil
}

// historyPage reads a server's history lines after the cursor, and whether
// there are more.
func historyPage(ctx context.Context, idb bun.IDB, serverID int64, q StoryQuery) ([]History, bool, error) {
	after, order := `h.id < $2`, `DESC`
	cursor := q.Cursor
	switch {
	case q.OldestFirst:
		after, order = `h.id > $2`, `ASC`
	case cursor == 0:
		cursor = math.MaxInt64
	}
	scan := func(rows *sql.Rows) (History, error) {
		var h History
		var runID *string
		err := rows.Scan(&h.ID, &h.At, &h.VirtfusionID, &h.UserID, &h.BillingID, &h.Kind, &h.Reason,
			&h.Before, &h.After, &h.Source, &h.EventID, &runID)
		if runID != nil {
			h.RunID = *runID
		}
		return h, err
	}
	lines, err := queryAll(ctx, idb, scan, `
		SELECT h.id, h.at, h.virtfusion_id, h.user_id, h.billing_id, h.kind, h.reason,
			h.before, h.after, h.source, h.event_id, h.run_id
		FROM serversync.history h
		WHERE h.virtfusion_id = $1 AND `+after+`
		ORDER BY h.virtfusion_id `+order+`, h.id `+order+` LIMIT $3`, serverID, cursor, q.Lines+1)
	if err != nil {
		return nil, false, fmt.Errorf("read the history of a server: %w", err)
	}
	if len(lines) > q.Lines {
		return lines[:q.Lines], true, nil
	}
	return lines, false, nil
}
