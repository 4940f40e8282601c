package skypanelsim_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// seeded returns a database with the demo's world in it.
func seeded(t *testing.T) (*bun.DB, skypanelsim.World) {
	t.Helper()
	database, world := dbtest.New(t), skypanelsim.NewWorld()
	if err := skypanelsim.Seed(t.Context(), database, world); err != nil {
		t.Fatal(err)
	}
	return database, world
}

// read returns the one row of a query as JSON would show its values, separated
// by bars.
func read(t *testing.T, database *bun.DB, query string) string {
	t.Helper()
	var row string
	if err := database.NewRaw(`
		SELECT string_agg(coalesce(c.value, 'null'), '|' ORDER BY c.position)
		FROM (`+query+`) AS r, json_each_text(row_to_json(r)) WITH ORDINALITY AS c (name, value, position)`).Scan(t.Context(), &row); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return row
}

// panel returns a simulated VirtFusion with the world's accounts and packages.
func panel(world skypanelsim.World) *virtfusionsim.Panel {
	p := virtfusionsim.New(virtfusionsim.Config{Seed: 1})
	for _, a := range world.Accounts {
		p.AddUser(virtfusionsim.User{ID: a.ID, ExtRelationID: a.ExtRelationID, Name: a.Name})
	}
	for _, plan := range world.Packages {
		p.AddPackage(virtfusionsim.Package{
			ID: plan.ID, Name: plan.Name,
			MemoryMB: plan.MemoryMB, StorageGB: plan.StorageGB, TrafficGB: plan.TrafficGB, CPUCores: plan.CPUCores,
		})
	}
	return p
}

// creator orders at the panel.
func creator(p *virtfusionsim.Panel) skypanelsim.CreateFunc {
	return func(_ context.Context, ownerID, packageID int64) (skypanelsim.Server, error) {
		server, err := p.CreateServer(virtfusionsim.CreateArgs{OwnerID: ownerID, PackageID: packageID})
		return skypanelsim.Server{ID: server.ID, UUID: server.UUID, Created: server.Created}, err
	}
}

func TestWorldHasTheCasesThatMatter(t *testing.T) {
	t.Parallel()
	world := skypanelsim.NewWorld()
	users, accounts := map[int64]skypanelsim.User{}, map[int64]skypanelsim.Account{}
	for _, u := range world.Users {
		users[u.ID] = u
	}
	for _, a := range world.Accounts {
		accounts[a.ID] = a
	}

	var customers, inactive, unlinked, admins int
	linked := map[int64]bool{}
	for _, u := range world.Users {
		switch {
		case u.Admin:
			admins++
			continue
		case u.Inactive:
			inactive++
		case u.VirtFusionID == 0:
			unlinked++
		}
		customers++
		if u.VirtFusionID == 0 {
			continue
		}
		if linked[u.VirtFusionID] {
			t.Errorf("account %d is linked twice", u.VirtFusionID)
		}
		linked[u.VirtFusionID] = true
		account, ok := accounts[u.VirtFusionID]
		if !ok {
			t.Errorf("%s is linked to account %d, which VirtFusion has not", u.Email, u.VirtFusionID)
		}
		if account.ExtRelationID != 0 && account.ExtRelationID != u.ID {
			t.Errorf("%s: VirtFusion says user %d, SkyPANEL %d", u.Email, account.ExtRelationID, u.ID)
		}
	}
	if customers != 12 || inactive != 1 || unlinked != 1 || admins != 1 {
		t.Errorf("%d customers, %d inactive, %d unlinked, %d admins; want 12, 1, 1, 1", customers, inactive, unlinked, admins)
	}

	var strangers, byExtRelation int
	for _, a := range world.Accounts {
		if _, ok := users[a.ID]; !ok && a.ID != 14 {
			t.Errorf("account %d is no user's id: confusing the two would not show", a.ID)
		}
		if users[a.ID].VirtFusionID == a.ID || a.ExtRelationID == a.ID {
			t.Errorf("account %d has its user's id: confusing the two would not show", a.ID)
		}
		switch {
		case linked[a.ID]:
		case a.ExtRelationID != 0 && users[a.ExtRelationID].VirtFusionID == 0:
			byExtRelation++
		default:
			strangers++
		}
	}
	if strangers != 1 || byExtRelation != 1 {
		t.Errorf("%d accounts are nobody's, %d known by extRelationId alone; want 1 and 1", strangers, byExtRelation)
	}

	var unpriced int
	for _, p := range world.Packages {
		if p.PricingID == 0 {
			unpriced++
		}
		if p.PricingID == p.ID {
			t.Errorf("package %s has one id at both: confusing the two would not show", p.Name)
		}
	}
	if unpriced != 1 {
		t.Errorf("%d packages are unpriced, want 1", unpriced)
	}
}

func TestSeedFillsSkyPANEL(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)

	for query, want := range map[string]string{
		`SELECT count(*), count(*) FILTER (WHERE role = 'admin'), count(*) FILTER (WHERE NOT is_active), count(virtfusion_id) FROM users`: "13|1|1|11",
		`SELECT id, virtfusion_id, role, is_active, is_verified FROM users WHERE email = 'beatriz@customer.example'`:                      "2|7|client|true|true",
		`SELECT count(*), count(*) FILTER (WHERE enabled) FROM package_pricing`:                                                           "5|4",
		`SELECT id, virtfusion_package_id, price FROM package_pricing WHERE name = 'Medium'`:                                              "5|4|1100",
		`SELECT value FROM settings WHERE key = 'virtfusion_self_service_hourly_credit'`:                                                  "true",
	} {
		if got := read(t, database, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	policy, err := db.ReadPolicy(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	if want := (db.Policy{HourlyMode: true, HoursPerMonth: 730}); policy != want {
		t.Errorf("policy %+v, want %+v", policy, want)
	}

	// SkyPANEL's own registrations go on behind the seeded ids.
	if got := read(t, database, `SELECT nextval('users_id_seq'), nextval('package_pricing_id_seq')`); got != "14|6" {
		t.Errorf("next ids %s, want 14|6", got)
	}
}

func TestSeedAgainFindsItsWorld(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	for _, change := range []string{
		`UPDATE package_pricing SET price = 1200 WHERE name = 'Medium'`,
		`UPDATE users SET is_active = false WHERE id = 3`,
		`UPDATE settings SET value = 'false'`,
		`DELETE FROM users WHERE id = 4`,
		`INSERT INTO users (email, username, password, full_name) VALUES ('new@customer.example', 'new', '!', 'New')`,
		`INSERT INTO virtfusion_cron_settings (hours_per_month) VALUES (672)`,
	} {
		if _, err := database.ExecContext(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := skypanelsim.Seed(t.Context(), database, world); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string]string{
		`SELECT price FROM package_pricing WHERE name = 'Medium'`:                                 "1200",
		`SELECT is_active FROM users WHERE id = 3`:                                                "false",
		`SELECT string_agg(value, ',') FROM settings`:                                             "false",
		`SELECT count(*) FROM users`:                                                              "14", // user 4 is back
		`SELECT string_agg(hours_per_month::text, ',' ORDER BY id) FROM virtfusion_cron_settings`: "730,672",
		`SELECT nextval('users_id_seq')`:                                                          "15",
	} {
		if got := read(t, database, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestSeedAtOnceByTwo(t *testing.T) {
	t.Parallel()
	database, world := dbtest.New(t), skypanelsim.NewWorld()
	results := make(chan error)
	for range 4 {
		go func() { results <- skypanelsim.Seed(t.Context(), database, world) }()
	}
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if got := read(t, database, `SELECT count(*), (SELECT count(*) FROM virtfusion_cron_settings) FROM users`); got != "13|1" {
		t.Errorf("users|settings %s, want 13|1", got)
	}
}

func TestSeedRefusesSomebodysSkyPANEL(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]string{
		"with users of its own":    `(100, 'real@company.com', 'real')`,
		"with another first user":  `(1, 'boss@company.com', 'boss')`,
		"with our mail, other ids": `(77, 'chen@customer.example', 'chen')`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := dbtest.New(t)
			if _, err := database.ExecContext(t.Context(), `
				INSERT INTO users (id, email, username, password, full_name)
				SELECT *, '!', 'Somebody' FROM (VALUES `+user+`) AS v`); err != nil {
				t.Fatal(err)
			}
			if err := skypanelsim.Seed(t.Context(), database, skypanelsim.NewWorld()); !errors.Is(err, skypanelsim.ErrOccupied) {
				t.Errorf("error %v, want ErrOccupied", err)
			}
			if got := read(t, database, `SELECT count(*), (SELECT count(*) FROM package_pricing), (SELECT count(*) FROM settings) FROM users`); got != "1|0|0" {
				t.Errorf("users|prices|settings %s, want 1|0|0: nothing is written", got)
			}
		})
	}
}

func TestSeedWithoutTables(t *testing.T) {
	t.Parallel()
	if err := skypanelsim.Seed(t.Context(), dbtest.NewEmpty(t), skypanelsim.NewWorld()); db.Classify(err) != db.FaultOfSetup || err == nil {
		t.Errorf("error %v, want one of the set-up", err)
	}
}

func TestOrderIsSkyPANELsSequence(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	vf := panel(world)
	customer, plan := world.Buyers()[0], world.ForSale()[2]

	servers, rows := -1, -1
	pause := func(ctx context.Context) error {
		servers = len(vf.Servers())
		return database.NewRaw(`SELECT count(*) FROM virtfusion_hourly_billing`).Scan(ctx, &rows)
	}
	receipt, err := skypanelsim.Order(t.Context(), database, customer, plan, creator(vf), pause)
	if err != nil || receipt.InsertErr != nil {
		t.Fatal(err, receipt.InsertErr)
	}
	if servers != 1 || rows != 0 {
		t.Errorf("%d servers, %d rows in the pause; want VirtFusion's server, whose webhook is out, and no row", servers, rows)
	}
	server := vf.Servers()[0]
	want := skypanelsim.Receipt{
		Customer: customer, Package: plan, BillingID: 1,
		Server: skypanelsim.Server{ID: server.ID, UUID: server.UUID, Created: server.Created},
	}
	if diff := cmp.Diff(want, receipt); diff != "" {
		t.Errorf("receipt (-want +got):\n%s", diff)
	}
	if server.OwnerID != customer.VirtFusionID || server.PackageID != plan.ID {
		t.Errorf("server of account %d, package %d; want %d, %d", server.OwnerID, server.PackageID, customer.VirtFusionID, plan.ID)
	}

	got := read(t, database, `
		SELECT user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate,
			hours_in_month, billing_enabled, server_created_at, last_billed_at, reference_1
		FROM virtfusion_hourly_billing`)
	if want := "2|1|1|" + server.UUID + "|4|Medium|11.0000|0.015068|730|true|" + server.Created.UTC().Format("2006-01-02T15:04:05") + "|null|null"; got != want {
		t.Errorf("row  %s\nwant %s", got, want)
	}
}

func TestOrderKeepsTheServersTimeInUTC(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	created := time.Date(2026, 3, 1, 1, 30, 0, 0, time.FixedZone("east", 3*3600))
	create := func(context.Context, int64, int64) (skypanelsim.Server, error) {
		return skypanelsim.Server{ID: 9, UUID: "u-9", Created: created}, nil
	}
	if _, err := skypanelsim.Order(t.Context(), database, world.Buyers()[0], world.ForSale()[0], create, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(t, database, `SELECT server_created_at FROM virtfusion_hourly_billing`); got != "2026-02-28T22:30:00" {
		t.Errorf("server_created_at %s, want UTC", got)
	}
}

func TestOrderInsertsWithoutLooking(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	customer, plan := world.Buyers()[0], world.ForSale()[0]
	pause := func(ctx context.Context) error { // a reconciler that was too quick
		_, err := database.ExecContext(ctx, `
			INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, reference_1)
			VALUES (2, 1, 1, 3, 'Small', 5, 0.006849, 'external_server_1')`)
		return err
	}
	if _, err := skypanelsim.Order(t.Context(), database, customer, plan, creator(panel(world)), pause); err != nil {
		t.Fatal(err)
	}
	if got := read(t, database, `SELECT count(*), count(reference_1) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 1`); got != "2|1" {
		t.Errorf("rows|ours %s, want 2|1: the customer pays twice", got)
	}
}

func TestOrderSwallowsInsertErrors(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	pause := func(ctx context.Context) error {
		_, err := database.ExecContext(ctx, `ALTER TABLE virtfusion_hourly_billing RENAME TO away`)
		return err
	}
	receipt, err := skypanelsim.Order(t.Context(), database, world.Buyers()[0], world.ForSale()[0], creator(panel(world)), pause)
	if err != nil {
		t.Errorf("error %v, want none: SkyPANEL swallows it", err)
	}
	if receipt.InsertErr == nil || receipt.BillingID != 0 || receipt.Server.ID == 0 {
		t.Errorf("receipt %+v, want a server, no row and the error", receipt)
	}
}

func TestOrderInMonthlyModeMakesNoRow(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	if _, err := database.ExecContext(t.Context(), `UPDATE settings SET value = 'false'`); err != nil {
		t.Fatal(err)
	}
	receipt, err := skypanelsim.Order(t.Context(), database, world.Buyers()[0], world.ForSale()[0], creator(panel(world)), nil)
	if err != nil || receipt.InsertErr != nil || receipt.BillingID != 0 || receipt.Server.ID == 0 {
		t.Errorf("receipt %+v, error %v; want a server without a row", receipt, err)
	}
	if got := read(t, database, `SELECT count(*) FROM virtfusion_hourly_billing`); got != "0" {
		t.Errorf("%s rows, want none", got)
	}
}

func TestOrderThatFails(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	buyer, plan := world.Buyers()[0], world.ForSale()[0]
	inactive, unlinked, admin := world.Users[8], world.Users[9], world.Users[0]
	withdrawn, unpriced := world.Packages[4], world.Packages[5]
	away := errors.New("VirtFusion is away")

	refused := func(context.Context, int64, int64) (skypanelsim.Server, error) {
		t.Error("VirtFusion was asked")
		return skypanelsim.Server{}, nil
	}
	for _, order := range []struct {
		user skypanelsim.User
		plan skypanelsim.Package
	}{{inactive, plan}, {unlinked, plan}, {admin, plan}, {buyer, withdrawn}, {buyer, unpriced}} {
		if _, err := skypanelsim.Order(t.Context(), database, order.user, order.plan, refused, nil); !errors.Is(err, skypanelsim.ErrRefused) {
			t.Errorf("%s, %s: error %v, want ErrRefused", order.user.Username, order.plan.Name, err)
		}
	}

	_, err := skypanelsim.Order(t.Context(), database, buyer, plan,
		func(context.Context, int64, int64) (skypanelsim.Server, error) { return skypanelsim.Server{}, away }, nil)
	if !errors.Is(err, away) {
		t.Errorf("error %v, want VirtFusion's", err)
	}

	receipt, err := skypanelsim.Order(t.Context(), database, buyer, plan, creator(panel(world)), func(context.Context) error { return away })
	if !errors.Is(err, away) || receipt.Server.ID != 1 {
		t.Errorf("error %v, server %d; want the pause's, and the server that VirtFusion made", err, receipt.Server.ID)
	}
	if got := read(t, database, `SELECT count(*) FROM virtfusion_hourly_billing`); got != "0" {
		t.Errorf("%s rows, want none", got)
	}
}

// run lets a shop take n orders and ends it in the middle of the next.
func run(t *testing.T, seed uint64, n int) (*bun.DB, []skypanelsim.Receipt) {
	t.Helper()
	database, world := seeded(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var receipts []skypanelsim.Receipt
	create := creator(panel(world))
	shop, err := skypanelsim.NewShop(database, world, func(ctx context.Context, ownerID, packageID int64) (skypanelsim.Server, error) {
		if len(receipts) == n {
			cancel()
		}
		return create(ctx, ownerID, packageID)
	}, skypanelsim.ShopConfig{
		Seed: seed, Rate: 1e6, FetchDelay: time.Nanosecond,
		OnOrder: func(r skypanelsim.Receipt, err error) {
			if err != nil || r.InsertErr != nil {
				t.Errorf("order %d: %v, %v", len(receipts), err, r.InsertErr)
			}
			receipts = append(receipts, r)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := shop.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return database, receipts
}

func TestShopTakesOrdersAndFinishesTheLast(t *testing.T) {
	t.Parallel()
	database, receipts := run(t, 1, 20)
	if len(receipts) != 21 {
		t.Fatalf("%d orders, want 20 and the one in hand", len(receipts))
	}
	if receipts[20].BillingID == 0 {
		t.Error("the order in hand has no billing row")
	}
	got := read(t, database, `
		SELECT count(*), count(DISTINCT virtfusion_server_id), count(reference_1), count(last_billed_at),
			count(DISTINCT user_id) > 3, count(DISTINCT package_id) > 1
		FROM virtfusion_hourly_billing`)
	if got != "21|21|0|0|true|true" {
		t.Errorf("rows|servers|references|billed|customers|packages %s, want 21|21|0|0|true|true", got)
	}
}

func TestShopIsFixedByItsSeed(t *testing.T) {
	t.Parallel()
	orders := func(seed uint64) []string {
		_, receipts := run(t, seed, 10)
		var all []string
		for _, r := range receipts {
			all = append(all, r.Customer.Username+" "+r.Package.Name)
		}
		return all
	}
	first := orders(1)
	if diff := cmp.Diff(first, orders(1)); diff != "" {
		t.Errorf("the same seed gave other orders:\n%s", diff)
	}
	if cmp.Equal(first, orders(2)) {
		t.Error("another seed gave the same orders")
	}
}

func TestShopGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	away := errors.New("VirtFusion is away")
	var failed int
	shop, err := skypanelsim.NewShop(database, world,
		func(context.Context, int64, int64) (skypanelsim.Server, error) { return skypanelsim.Server{}, away },
		skypanelsim.ShopConfig{Rate: 1e6, OnOrder: func(_ skypanelsim.Receipt, err error) {
			if !errors.Is(err, away) {
				t.Errorf("error %v, want VirtFusion's", err)
			}
			if failed++; failed == 3 {
				cancel()
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := shop.Run(ctx); err != nil || failed != 3 {
		t.Errorf("error %v after %d failures, want none after 3", err, failed)
	}
}

func TestNewShopNeedsSomethingToDo(t *testing.T) {
	t.Parallel()
	world := skypanelsim.NewWorld()
	for name, shop := range map[string]func() (*skypanelsim.Shop, error){
		"nobody to buy": func() (*skypanelsim.Shop, error) {
			return skypanelsim.NewShop(nil, skypanelsim.World{Packages: world.Packages}, nil, skypanelsim.ShopConfig{})
		},
		"nothing to sell": func() (*skypanelsim.Shop, error) {
			return skypanelsim.NewShop(nil, skypanelsim.World{Users: world.Users}, nil, skypanelsim.ShopConfig{})
		},
		"negative rate": func() (*skypanelsim.Shop, error) {
			return skypanelsim.NewShop(nil, world, nil, skypanelsim.ShopConfig{Rate: -1})
		},
		"negative delay": func() (*skypanelsim.Shop, error) {
			return skypanelsim.NewShop(nil, world, nil, skypanelsim.ShopConfig{FetchDelay: -1})
		},
	} {
		if _, err := shop(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
