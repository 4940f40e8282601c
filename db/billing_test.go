package db_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// newBilling is a billing row for a server, with its first charge.
func newBilling(serverID, userID int64) db.NewBilling {
	start := clock()
	return db.NewBilling{
		HourlyBilling: db.HourlyBilling{
			UserID: userID, ServerID: serverID, VirtfusionServerID: serverID,
			ServerUUID: new(fmt.Sprintf("uuid-%d", serverID)),
			PackageID:  5, PackageName: "Small", MonthlyPrice: dec("5"), HourlyRate: dec("0.006849"),
			HoursInMonth: new(int64(730)), BillingEnabled: new(true),
			ServerCreatedAt: new(start.Add(-time.Hour)), LastBilledAt: new(start.Add(time.Hour)),
			Reference1: new(fmt.Sprintf("external_server_%d", serverID)),
		},
		Charge: &db.HourlyTransaction{
			AmountCharged: dec("0.0068"), BillingPeriodStart: &start, BillingPeriodEnd: new(start.Add(time.Hour)),
		},
		RunID: "run-1", Now: start,
	}
}

// insert makes billing rows and returns them as they are read, by server.
func insert(t *testing.T, idb bun.IDB, rows ...db.NewBilling) map[int64]db.BillingMatch {
	t.Helper()
	made, err := db.InsertBilling(t.Context(), idb, rows)
	if err != nil {
		t.Fatal(err)
	}
	matches, err := db.BillingByServer(t.Context(), idb, slices.Collect(maps.Keys(made)), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[int64]db.BillingMatch, len(matches))
	for _, m := range matches {
		if made[m.VirtfusionServerID] == m.ID {
			all[m.VirtfusionServerID] = m
		}
	}
	if len(all) != len(rows) {
		t.Fatalf("made %v, read %d of %d rows", made, len(all), len(rows))
	}
	return all
}

// one makes a database with one customer and one billing row of ours.
func one(t *testing.T) (*bun.DB, db.BillingMatch) {
	t.Helper()
	database := dbtest.New(t)
	return database, insert(t, database, newBilling(1, customer(t, database, "anna")))[1]
}

// columns returns a billing row's values by column.
func columns(t *testing.T, q querier, id int64) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for line := range strings.SplitSeq(table(t, q, `
		SELECT c.key, c.value FROM virtfusion_hourly_billing b, json_each_text(to_json(b)) AS c WHERE b.id = ?`, id), "\n") {
		name, value, _ := strings.Cut(line, "|")
		all[name] = value
	}
	return all
}

func TestInsertBillingAsSkyPANELReadsIt(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	charged, free, bare := newBilling(1, anna), newBilling(2, anna), newBilling(3, anna)
	free.Charge = nil
	bare.Charge, bare.RunID, bare.ServerUUID, bare.ServerCreatedAt = nil, "", nil, nil
	bare.BillingEnabled, bare.PackageID, bare.PackageName = new(false), 0, "unknown"
	bare.MonthlyPrice, bare.HourlyRate = decimal.Zero, decimal.Zero

	made, err := db.InsertBilling(t.Context(), database, []db.NewBilling{charged, free, bare})
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != 3 || made[1] == made[2] || made[2] == made[3] {
		t.Errorf("made %v, want three rows", made)
	}
	wantTable(t, database, strings.Join([]string{
		"1|1|1|uuid-1|5|Small|5.0000|0.006849|730|true|2026-02-28T21:30:15.123456|2026-02-28T23:30:15.123456|2026-02-28T22:30:15.123456|2026-02-28T22:30:15.123456|external_server_1",
		"1|2|2|uuid-2|5|Small|5.0000|0.006849|730|true|2026-02-28T21:30:15.123456|2026-02-28T23:30:15.123456|2026-02-28T22:30:15.123456|2026-02-28T22:30:15.123456|external_server_2",
		"1|3|3|null|0|unknown|0.0000|0.000000|730|false|null|2026-02-28T23:30:15.123456|2026-02-28T22:30:15.123456|2026-02-28T22:30:15.123456|external_server_3",
	}, "\n"), `
		SELECT user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, hours_in_month,
			billing_enabled, server_created_at, last_billed_at, created_at, updated_at, reference_1
		FROM virtfusion_hourly_billing ORDER BY virtfusion_server_id`)
	wantTable(t, database,
		fmt.Sprintf("%d|1|1|null|1.00|0.0068|2026-02-28T22:30:15.123456|2026-02-28T23:30:15.123456|pending|2026-02-28T22:30:15.123456|uuid-1|hourly_billing|external_server_1|uuid-1", made[1]), `
		SELECT billing_id, user_id, server_id, transaction_id, hours_billed, amount_charged, billing_period_start, billing_period_end, status, created_at,
			server_uuid, transaction_type, reference_1, reference_2
		FROM virtfusion_hourly_transactions`)
	wantTable(t, database, strings.Join([]string{
		"1|serversync|1|true|5|5.0000|2026-02-28T23:30:15.123456|1|null|run-1|2026-02-28T22:30:15.123456+00:00|2026-02-28T22:30:15.123456+00:00",
		"2|serversync|1|true|5|5.0000|2026-02-28T23:30:15.123456|null|null|run-1|2026-02-28T22:30:15.123456+00:00|2026-02-28T22:30:15.123456+00:00",
		"3|serversync|1|false|0|0.0000|2026-02-28T23:30:15.123456|null|null|null|2026-02-28T22:30:15.123456+00:00|2026-02-28T22:30:15.123456+00:00",
	}, "\n"), `
		SELECT virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, last_billed_at, charge_id, closed_reason, run_id, created_at, updated_at
		FROM serversync.billing_rows ORDER BY virtfusion_id`)
}

func TestInsertBillingOfNothing(t *testing.T) {
	t.Parallel()
	made, err := db.InsertBilling(t.Context(), dbtest.New(t), nil)
	if err != nil || made == nil || len(made) != 0 {
		t.Errorf("%v, %v; want an empty map", made, err)
	}
}

// TestBillingKeepsUTCWhateverTheSession: SkyPANEL reads its timestamps as UTC,
// whoever wrote them wherever.
func TestBillingKeepsUTCWhateverTheSession(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	conn, err := database.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	exec(t, conn, `SET TIME ZONE 'Asia/Tokyo'`)
	made := insert(t, conn, newBilling(1, anna))[1]
	const want = "2026-02-28T21:30:15.123456|2026-02-28T23:30:15.123456|2026-02-28T22:30:15.123456|2026-02-28T22:30:15.123456"
	const stored = `SELECT server_created_at, last_billed_at, created_at, updated_at FROM virtfusion_hourly_billing`
	wantTable(t, database, want, stored)
	wantTable(t, database, "2026-02-28T22:30:15.123456+00:00|2026-02-28T23:30:15.123456", `SELECT created_at, last_billed_at FROM serversync.billing_rows`)
	if !made.LastBilledAt.Equal(clock().Add(time.Hour)) || !made.Record.LastBilledAt.Equal(clock().Add(time.Hour)) || !made.Record.CreatedAt.Equal(clock()) {
		t.Errorf("read back %s, %s, %s; want what was written", made.LastBilledAt, made.Record.LastBilledAt, made.Record.CreatedAt)
	}

	later := time.Date(2026, 7, 1, 0, 0, 0, 1000, time.FixedZone("west", -5*3600))
	err = db.ChangeBilling(t.Context(), conn, []db.BillingChange{{Was: made.HourlyBilling, Now: later, ResumeAt: new(later.Add(time.Minute)), Record: *made.Record}})
	if err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "2026-07-01T05:01:00.000001|2026-07-01T05:00:00.000001", `SELECT last_billed_at, updated_at FROM virtfusion_hourly_billing`)
}

func TestOpenSpeaksUTC(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	name := table(t, database, `SELECT current_database()`)
	exec(t, database, fmt.Sprintf(`ALTER DATABASE %q SET timezone = 'America/New_York'`, name))
	wantTable(t, open(t, dsn(t, database, "")), "UTC|force_custom_plan|serversync",
		`SELECT current_setting('timezone'), current_setting('plan_cache_mode'), current_setting('application_name')`)
}

func TestBillingAmounts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ price, rate, amount, want string }{
		"as usual":               {"5", "0.006849", "0.0068", "5.0000|0.006849|0.0068|5.0000"},
		"all digits":             {"123456.7891", "1234.567891", "123456.7891", "123456.7891|1234.567891|123456.7891|123456.7891"},
		"the largest":            {"999999.9999", "9999.999999", "999999.9999", "999999.9999|9999.999999|999999.9999|999999.9999"},
		"more digits than kept":  {"4.99995", "0.0068494999", "0.00685", "5.0000|0.006849|0.0069|5.0000"},
		"what floats cannot say": {"0.1", "0.3", "0.7", "0.1000|0.300000|0.7000|0.1000"},
		"with an exponent":       {"1e3", "1e-6", "1E-4", "1000.0000|0.000001|0.0001|1000.0000"},
		"nothing":                {"0", "0", "0", "0.0000|0.000000|0.0000|0.0000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := dbtest.New(t)
			row := newBilling(1, customer(t, database, "anna"))
			row.MonthlyPrice, row.HourlyRate, row.Charge.AmountCharged = dec(tc.price), dec(tc.rate), dec(tc.amount)
			match := insert(t, database, row)[1]
			wantTable(t, database, tc.want, `
				SELECT b.monthly_price, b.hourly_rate, t.amount_charged, r.monthly_price
				FROM virtfusion_hourly_billing b JOIN virtfusion_hourly_transactions t ON t.billing_id = b.id
				JOIN serversync.billing_rows r ON r.billing_id = b.id`)
			if want, _, _ := strings.Cut(tc.want, "|"); match.MonthlyPrice.StringFixed(4) != want || match.Record.MonthlyPrice.StringFixed(4) != want {
				t.Errorf("read back %s, %s; want %s", match.MonthlyPrice, match.Record.MonthlyPrice, want)
			}
		})
	}
}

func TestInsertBillingIsAllOrNothing(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	for name, spoil := range map[string]func(*db.NewBilling){
		"no such user":      func(n *db.NewBilling) { n.UserID = 99 },
		"price too large":   func(n *db.NewBilling) { n.MonthlyPrice = dec("1000000") },
		"charge too large":  func(n *db.NewBilling) { n.Charge.AmountCharged = dec("1000000") },
		"a byte of nothing": func(n *db.NewBilling) { n.PackageName = "a\x00b" },
		"id too large":      func(n *db.NewBilling) { n.VirtfusionServerID = 1 << 31 },
	} {
		bad := newBilling(2, anna)
		spoil(&bad)
		_, err := db.InsertBilling(t.Context(), database, []db.NewBilling{newBilling(1, anna), bad, newBilling(3, anna)})
		if err == nil || db.Classify(err) != db.FaultOfData {
			t.Errorf("%s: error %v, want a fault of the data", name, err)
		}
		wantTable(t, database, "0|0|0", `
			SELECT (SELECT count(*) FROM virtfusion_hourly_billing), (SELECT count(*) FROM virtfusion_hourly_transactions), (SELECT count(*) FROM serversync.billing_rows)`)
	}
}

func TestInsertBillingInBulk(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	var rows []db.NewBilling
	for id := range int64(1000) {
		row := newBilling(id+1, anna)
		row.MonthlyPrice = decimal.NewFromInt(id)
		if id%3 == 0 {
			row.Charge = nil
		} else {
			row.Charge.AmountCharged = decimal.NewFromInt(id)
		}
		rows = append(rows, row)
	}
	if got := len(insert(t, database, rows...)); got != 1000 {
		t.Errorf("%d rows, want 1000", got)
	}
	// Nothing got mixed up between the tables.
	wantTable(t, database, "1000|666|0", `
		SELECT count(*), count(t.id), count(*) FILTER (WHERE
			b.monthly_price <> b.virtfusion_server_id - 1 OR b.server_uuid <> 'uuid-' || b.virtfusion_server_id
			OR r.virtfusion_id IS DISTINCT FROM b.virtfusion_server_id OR r.monthly_price <> b.monthly_price OR r.charge_id IS DISTINCT FROM t.id
			OR t.amount_charged <> b.monthly_price OR t.reference_1 <> b.reference_1 OR t.reference_2 <> b.server_uuid OR t.server_id <> b.server_id
			OR (t.id IS NULL) <> ((b.virtfusion_server_id - 1) % 3 = 0))
		FROM virtfusion_hourly_billing b
		LEFT JOIN serversync.billing_rows r ON r.billing_id = b.id
		LEFT JOIN virtfusion_hourly_transactions t ON t.billing_id = b.id`)
}

func TestBillingByServer(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	ours := insert(t, database, newBilling(1, anna))[1]
	// SkyPANEL's own: id 2 with a UUID, 3 without, 4 and 5 of a user who is gone.
	exec(t, database, `
		INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, hours_in_month, billing_enabled) VALUES
			(?0, 2, 2, 'uuid-2', 5, 'Small', 5, 0.006849, 730, true),
			(?0, 3, 3, NULL, 5, 'Small', 5, 0.006849, NULL, NULL),
			(?0, 4, 4, 'DELETED_SERVER', 5, 'Small', 5, 0.006849, 730, false),
			(?0, 5, 5, 'DELETED_SERVER', 5, 'Small', 5, 0.006849, 730, false),
			(?0, 1, 1, 'uuid-1', 6, 'Large', 24, 0.032877, 730, true)`, anna)

	for name, tc := range map[string]struct {
		ids   []int64
		uuids []string
		want  []int64 // billing rows' ids
	}{
		"nothing":                  {nil, nil, nil},
		"nothing, but not nil":     {[]int64{}, []string{}, nil},
		"nobody knows them":        {[]int64{77}, []string{"uuid-77"}, nil},
		"by id":                    {[]int64{3}, nil, []int64{3}},
		"by UUID":                  {nil, []string{"uuid-2"}, []int64{2}},
		"by both, once":            {[]int64{2}, []string{"uuid-2"}, []int64{2}},
		"two servers":              {[]int64{3}, []string{"uuid-2"}, []int64{2, 3}},
		"a server with two rows":   {[]int64{1}, []string{"uuid-1"}, []int64{1, 6}},
		"one asked for repeatedly": {[]int64{2, 2}, []string{"uuid-2", "uuid-2"}, []int64{2}},
		"UUIDs as they are":        {nil, []string{"UUID-2", "uuid-2 "}, nil},
		"of a user who is gone":    {[]int64{4}, []string{"uuid-4"}, []int64{4}},
		"in the order of rows":     {[]int64{5, 3, 1, 4, 2}, nil, []int64{1, 2, 3, 4, 5, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			matches, err := db.BillingByServer(t.Context(), database, tc.ids, tc.uuids)
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			for _, m := range matches {
				got = append(got, m.ID)
				if (m.Record != nil) != (m.ID == ours.ID) {
					t.Errorf("row %d: record %+v; only row %d has one", m.ID, m.Record, ours.ID)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("rows %v, want %v", got, tc.want)
			}
		})
	}
}

func TestBillingByServerReadsEveryField(t *testing.T) {
	t.Parallel()
	database, match := one(t)
	row := newBilling(1, 1)
	want := db.BillingMatch{HourlyBilling: row.HourlyBilling, Record: &db.BillingRecord{
		BillingID: 1, VirtfusionID: 1, MadeBy: "serversync", UserID: 1, Enabled: true, PackageID: 5, MonthlyPrice: dec("5"),
		LastBilledAt: row.LastBilledAt, ChargeID: new(int64(1)), RunID: "run-1", CreatedAt: row.Now, UpdatedAt: row.Now,
	}}
	want.ID = 1
	compare := func(want, got db.BillingMatch) {
		t.Helper()
		if diff := gocmp.Diff(want, got, ignoreModel()); diff != "" {
			t.Errorf("match (-want +got):\n%s", diff)
		}
	}
	compare(want, match)

	// SkyPANEL's own, as empty as they come, and our memory of switching it off.
	exec(t, database, `
		INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, hours_in_month, billing_enabled)
		VALUES (1, 2, 2, 6, '', 0, 0, NULL, NULL)`)
	read := func() db.BillingMatch {
		t.Helper()
		matches, err := db.BillingByServer(t.Context(), database, []int64{2}, nil)
		if err != nil || len(matches) != 1 {
			t.Fatalf("%d matches, %v; want one", len(matches), err)
		}
		return matches[0]
	}
	theirs := db.BillingMatch{HourlyBilling: db.HourlyBilling{ID: 2, UserID: 1, ServerID: 2, VirtfusionServerID: 2, PackageID: 6}}
	compare(theirs, read())

	exec(t, database, `
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, closed_reason, created_at, updated_at)
		VALUES (2, 2, 'skypanel', 1, false, 6, 0, 'destroyed', ?0, ?0)`, clock())
	theirs.Record = &db.BillingRecord{BillingID: 2, VirtfusionID: 2, MadeBy: "skypanel", UserID: 1, PackageID: 6, ClosedReason: "destroyed", CreatedAt: clock(), UpdatedAt: clock()}
	compare(theirs, read())
}

func TestChargedBeside(t *testing.T) {
	t.Parallel()
	const ours = `'pending', NULL, 'external_server_1'`
	for name, tc := range map[string]struct {
		charges []string // status, transaction_id, reference_1
		known   *int64   // the id of our charge, as we remember it
		want    bool
	}{
		"none":                                  {nil, nil, false},
		"none, though we remember one":          {nil, new(int64(1)), false},
		"ours":                                  {[]string{ours}, new(int64(1)), false},
		"ours, forgotten":                       {[]string{ours}, nil, false},
		"ours, its reference dropped":           {[]string{`'pending', NULL, NULL`}, new(int64(1)), false},
		"ours, forgotten, its reference gone":   {[]string{`'pending', NULL, NULL`}, nil, true},
		"ours, collected":                       {[]string{`'completed', NULL, 'external_server_1'`}, new(int64(1)), true},
		"ours, being collected":                 {[]string{`'pending', 17, 'external_server_1'`}, new(int64(1)), true},
		"ours, failed":                          {[]string{`'failed', NULL, 'external_server_1'`}, new(int64(1)), true},
		"theirs":                                {[]string{`'completed', 17, NULL`}, nil, true},
		"theirs, pending":                       {[]string{`'pending', NULL, NULL`}, new(int64(9)), true},
		"ours and theirs":                       {[]string{ours, `'completed', 17, NULL`}, new(int64(1)), true},
		"ours and one more that looks like it":  {[]string{ours, ours}, new(int64(1)), true},
		"theirs, with a reference of their own": {[]string{`'pending', NULL, 'order_5'`}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := dbtest.New(t)
			row := newBilling(1, customer(t, database, "anna"))
			row.Charge = nil
			other := newBilling(2, 1)
			rows := insert(t, database, row, other)
			exec(t, database, `DELETE FROM virtfusion_hourly_transactions; ALTER SEQUENCE virtfusion_hourly_transactions_id_seq RESTART`)
			for _, charge := range tc.charges {
				exec(t, database, `
					INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, status, transaction_id, reference_1)
					VALUES (?, 1, 1, `+charge+`)`, rows[1].ID)
			}
			charged, err := db.ChargedBeside(t.Context(), database, []int64{rows[1].ID, rows[2].ID, 99}, []*int64{tc.known, nil, nil})
			if err != nil {
				t.Fatal(err)
			}
			if want := map[int64]bool{rows[1].ID: true}; tc.want && !maps.Equal(charged, want) || !tc.want && len(charged) != 0 {
				t.Errorf("charged %v, want %t for row %d alone", charged, tc.want, rows[1].ID)
			}
		})
	}
	if charged, err := db.ChargedBeside(t.Context(), dbtest.New(t), nil, nil); err != nil || len(charged) != 0 {
		t.Errorf("nothing asked: %v, %v", charged, err)
	}
}

func TestChangeBillingChangesWhatItIsToldTo(t *testing.T) {
	t.Parallel()
	later := clock().Add(24 * time.Hour)
	for name, tc := range map[string]struct {
		change db.BillingChange
		want   map[string]string // columns that change
	}{
		"nothing":           {db.BillingChange{}, nil},
		"off":               {db.BillingChange{Enable: new(false)}, map[string]string{"billing_enabled": "false"}},
		"on, as it is":      {db.BillingChange{Enable: new(true)}, nil},
		"UUID":              {db.BillingChange{UUID: new("uuid-new")}, map[string]string{"server_uuid": "uuid-new"}},
		"package":           {db.BillingChange{PackageID: new(int64(6))}, map[string]string{"package_id": "6"}},
		"package's name":    {db.BillingChange{PackageName: new("Large")}, map[string]string{"package_name": "Large"}},
		"price":             {db.BillingChange{MonthlyPrice: new(dec("24.12345"))}, map[string]string{"monthly_price": "24.1235"}},
		"rate":              {db.BillingChange{HourlyRate: new(dec("0.0328767"))}, map[string]string{"hourly_rate": "0.032877"}},
		"price of nothing":  {db.BillingChange{MonthlyPrice: new(decimal.Zero)}, map[string]string{"monthly_price": "0.0000"}},
		"hours":             {db.BillingChange{Hours: new(int64(744))}, map[string]string{"hours_in_month": "744"}},
		"resumed later":     {db.BillingChange{ResumeAt: &later}, map[string]string{"last_billed_at": "2026-03-01T22:30:15.123456"}},
		"resumed before":    {db.BillingChange{ResumeAt: new(clock())}, nil},
		"resumed as it was": {db.BillingChange{ResumeAt: new(clock().Add(time.Hour))}, nil},
		"all at once": {
			db.BillingChange{
				Enable: new(false), UUID: new("uuid-new"), PackageID: new(int64(6)), PackageName: new("Large"),
				MonthlyPrice: new(dec("24")), HourlyRate: new(dec("0.032877")), Hours: new(int64(744)), ResumeAt: &later,
			},
			map[string]string{
				"billing_enabled": "false", "server_uuid": "uuid-new", "package_id": "6", "package_name": "Large",
				"monthly_price": "24.0000", "hourly_rate": "0.032877", "hours_in_month": "744", "last_billed_at": "2026-03-01T22:30:15.123456",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, match := one(t)
			other := insert(t, database, newBilling(2, match.UserID))[2]
			want, untouched := columns(t, database, match.ID), columns(t, database, other.ID)

			change := tc.change
			change.Was, change.Now, change.Record = match.HourlyBilling, later, *match.Record
			if err := db.ChangeBilling(t.Context(), database, []db.BillingChange{change}); err != nil {
				t.Fatal(err)
			}
			maps.Copy(want, tc.want)
			want["updated_at"] = "2026-03-01T22:30:15.123456"
			if diff := gocmp.Diff(want, columns(t, database, match.ID)); diff != "" {
				t.Errorf("row (-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(untouched, columns(t, database, other.ID)); diff != "" {
				t.Errorf("another row changed:\n%s", diff)
			}
			wantTable(t, database, want["last_billed_at"], `SELECT last_billed_at FROM serversync.billing_rows WHERE billing_id = ?`, match.ID)
		})
	}
}

func TestChangeBillingResumesARowThatWasNeverBilled(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	row := newBilling(1, customer(t, database, "anna"))
	row.LastBilledAt = nil
	match := insert(t, database, row)[1]
	change := db.BillingChange{Was: match.HourlyBilling, Now: clock(), Record: *match.Record}
	if err := db.ChangeBilling(t.Context(), database, []db.BillingChange{change}); err != nil {
		t.Fatal(err)
	}
	if got := columns(t, database, match.ID)["last_billed_at"]; got != "null" {
		t.Errorf("last_billed_at %s, want null as before", got)
	}
	change.ResumeAt = new(clock())
	if err := db.ChangeBilling(t.Context(), database, []db.BillingChange{change}); err != nil {
		t.Fatal(err)
	}
	if got := columns(t, database, match.ID)["last_billed_at"]; got != "2026-02-28T22:30:15.123456" {
		t.Errorf("last_billed_at %s, want the time of resuming", got)
	}
}

func TestChangeBillingRemembers(t *testing.T) {
	t.Parallel()
	database, match := one(t)
	record := filled[db.BillingRecord](t, 7)
	record.BillingID, record.MadeBy = match.ID, "skypanel"
	change := func(record db.BillingRecord) *db.BillingRecord {
		t.Helper()
		if err := db.ChangeBilling(t.Context(), database, []db.BillingChange{{Was: match.HourlyBilling, Now: clock(), Record: record}}); err != nil {
			t.Fatal(err)
		}
		matches, err := db.BillingByServer(t.Context(), database, []int64{1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return matches[0].Record
	}

	// Who made a row, when, in which run and with which charge does not change.
	want := record
	want.VirtfusionID, want.MadeBy, want.ChargeID = match.Record.VirtfusionID, match.Record.MadeBy, match.Record.ChargeID
	want.RunID, want.CreatedAt, want.LastBilledAt = match.Record.RunID, match.Record.CreatedAt, match.LastBilledAt
	if diff := gocmp.Diff(&want, change(record), ignoreModel()); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}

	// A row that is not remembered is from now on, every field of it.
	exec(t, database, `DELETE FROM serversync.billing_rows`)
	want = record
	want.LastBilledAt = match.LastBilledAt
	if diff := gocmp.Diff(&want, change(record), ignoreModel()); diff != "" {
		t.Errorf("new record (-want +got):\n%s", diff)
	}
	want.ClosedReason, record.ClosedReason = "", ""
	if diff := gocmp.Diff(&want, change(record), ignoreModel()); diff != "" {
		t.Errorf("record, open again (-want +got):\n%s", diff)
	}
}

func TestChangeBillingOfAChangedRow(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		meanwhile string
		stale     bool
	}{
		"another owner":             {`UPDATE virtfusion_hourly_billing SET user_id = 2`, true},
		"switched off":              {`UPDATE virtfusion_hourly_billing SET billing_enabled = false`, true},
		"switch lost":               {`UPDATE virtfusion_hourly_billing SET billing_enabled = NULL`, true},
		"another UUID":              {`UPDATE virtfusion_hourly_billing SET server_uuid = 'DELETED_SERVER'`, true},
		"UUID lost":                 {`UPDATE virtfusion_hourly_billing SET server_uuid = NULL`, true},
		"another package":           {`UPDATE virtfusion_hourly_billing SET package_id = 6`, true},
		"another price":             {`UPDATE virtfusion_hourly_billing SET monthly_price = 5.0001`, true},
		"deleted":                   {`DELETE FROM virtfusion_hourly_billing`, true},
		"billed":                    {`UPDATE virtfusion_hourly_billing SET last_billed_at = '2026-04-01', updated_at = now()`, false},
		"the same price, rewritten": {`UPDATE virtfusion_hourly_billing SET monthly_price = 5.0`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, match := one(t)
			customer(t, database, "boris")
			exec(t, database, tc.meanwhile)
			before := table(t, database, `SELECT * FROM virtfusion_hourly_billing`)
			err := db.ChangeBilling(t.Context(), database, []db.BillingChange{{
				Was: match.HourlyBilling, Now: clock(), Enable: new(false), ResumeAt: new(clock().Add(2 * time.Hour)), Record: *match.Record,
			}})
			if !tc.stale {
				if err != nil {
					t.Error(err)
				}
				got := columns(t, database, match.ID)
				if got["billing_enabled"] != "false" {
					t.Error("it is not switched off")
				}
				if name == "billed" && got["last_billed_at"] != "2026-04-01T00:00:00" {
					t.Errorf("last_billed_at %s moved back", got["last_billed_at"])
				}
				return
			}
			if !errors.Is(err, db.ErrStale) || db.Classify(err) != db.FaultPassing {
				t.Errorf("error %v, want ErrStale, which passes", err)
			}
			wantTable(t, database, before, `SELECT * FROM virtfusion_hourly_billing`)
		})
	}
}

func TestChangeBillingOfManyOneOfThemStale(t *testing.T) {
	t.Parallel()
	database, first := one(t)
	second := insert(t, database, newBilling(2, first.UserID))[2]
	exec(t, database, `UPDATE virtfusion_hourly_billing SET package_id = 6 WHERE id = ?`, second.ID)
	before := table(t, database, `SELECT * FROM virtfusion_hourly_billing ORDER BY id`)
	err := database.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		return db.ChangeBilling(ctx, tx, []db.BillingChange{
			{Was: first.HourlyBilling, Now: clock(), Enable: new(false), Record: *first.Record},
			{Was: second.HourlyBilling, Now: clock(), Enable: new(false), Record: *second.Record},
		})
	})
	if !errors.Is(err, db.ErrStale) {
		t.Errorf("error %v, want ErrStale", err)
	}
	wantTable(t, database, before, `SELECT * FROM virtfusion_hourly_billing ORDER BY id`)
	if err := db.ChangeBilling(t.Context(), database, nil); err != nil {
		t.Errorf("none: %v", err)
	}
}

func TestModelsAreTheTables(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	for name, query := range map[string]*bun.SelectQuery{
		"users":                          database.NewSelect().Model((*db.User)(nil)),
		"package_pricing":                database.NewSelect().Model((*db.PackagePricing)(nil)),
		"virtfusion_cron_settings":       database.NewSelect().Model((*db.CronSettings)(nil)),
		"settings":                       database.NewSelect().Model((*db.Setting)(nil)),
		"virtfusion_hourly_billing":      database.NewSelect().Model((*db.HourlyBilling)(nil)),
		"virtfusion_hourly_transactions": database.NewSelect().Model((*db.HourlyTransaction)(nil)),
		"serversync.servers":             database.NewSelect().Model((*db.Server)(nil)),
		"serversync.billing_rows":        database.NewSelect().Model((*db.BillingRecord)(nil)),
		"serversync.history":             database.NewSelect().Model((*db.History)(nil)),
	} {
		if _, err := query.Count(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// Count leaves the columns out.
		if _, err := query.Exec(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBillingRowsReadThroughTheModel holds bun's own mapping of the money
// columns and times against the hand-written one.
func TestBillingRowsReadThroughTheModel(t *testing.T) {
	t.Parallel()
	database, match := one(t)
	var row db.HourlyBilling
	if err := database.NewSelect().Model(&row).Where("id = ?", match.ID).Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(match.HourlyBilling, row, ignoreModel()); diff != "" {
		t.Errorf("row (-by hand +by bun):\n%s", diff)
	}
	var record db.BillingRecord
	if err := database.NewSelect().Model(&record).Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(*match.Record, record, ignoreModel()); diff != "" {
		t.Errorf("record (-by hand +by bun):\n%s", diff)
	}
	var charge db.HourlyTransaction
	if err := database.NewSelect().Model(&charge).Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := db.HourlyTransaction{
		ID: 1, BillingID: match.ID, UserID: 1, ServerID: 1, HoursBilled: dec("1"), AmountCharged: dec("0.0068"),
		BillingPeriodStart: new(clock()), BillingPeriodEnd: new(clock().Add(time.Hour)), Status: "pending",
		ServerUUID: new("uuid-1"), TransactionType: new("hourly_billing"), Reference1: new("external_server_1"), Reference2: new("uuid-1"),
	}
	if diff := gocmp.Diff(want, charge, ignoreModel(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("charge (-want +got):\n%s", diff)
	}
}
