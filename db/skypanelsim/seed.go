package skypanelsim

import (
	"context"
	"errors"
	"fmt"

	"github.com/uptrace/bun"
)

// ErrOccupied says that the database has users who are not of the world, so
// that it is somebody's real SkyPANEL.
var ErrOccupied = errors.New("the database belongs to somebody else")

// Defaults of SkyPANEL's settings in the demo.
const (
	hoursPerMonth = 730
	// noPassword is the hash of no password: nobody can sign in with it.
	noPassword = "!"
)

// Seed fills SkyPANEL's tables, which must exist, with the world: users,
// prices, and the settings of hourly billing. What is there already stays as
// it is, so that a second start finds the first one's world, with whatever was
// changed in it. It returns [ErrOccupied], and has changed nothing, in a
// database that has users but none of the world's, or where one of their ids
// or addresses is somebody else's.
func Seed(ctx context.Context, database *bun.DB, world World) error {
	return database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		// Two demos that start at once take turns.
		if _, err := tx.ExecContext(ctx, `LOCK TABLE public.users IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return fmt.Errorf("lock SkyPANEL's users (run the migrations first): %w", err)
		}
		if err := refuseOccupied(ctx, tx, world); err != nil {
			return err
		}
		if err := seedUsers(ctx, tx, world.Users); err != nil {
			return err
		}
		if err := seedPrices(ctx, tx, world.Packages); err != nil {
			return err
		}
		return seedSettings(ctx, tx)
	})
}

// refuseOccupied fails unless the users table is empty or has the world's
// users as they should be.
func refuseOccupied(ctx context.Context, tx bun.Tx, world World) error {
	emails := make(map[int64]string, len(world.Users))
	ids := make(map[string]int64, len(world.Users))
	for _, u := range world.Users {
		emails[u.ID], ids[u.Email] = u.Email, u.ID
	}
	var users []struct {
		ID    int64
		Email string
	}
	if err := tx.NewRaw(`SELECT id, email FROM public.users`).Scan(ctx, &users); err != nil {
		return fmt.Errorf("read SkyPANEL's users: %w", err)
	}
	var known bool
	for _, u := range users {
		email, idTaken := emails[u.ID]
		id, emailTaken := ids[u.Email]
		if idTaken && email != u.Email || emailTaken && id != u.ID {
			return fmt.Errorf("%w: user %d is %s there; give the demo a database of its own", ErrOccupied, u.ID, u.Email)
		}
		known = known || idTaken
	}
	if len(users) > 0 && !known {
		return fmt.Errorf("%w: it has %d users, none of the demo's; give the demo a database of its own", ErrOccupied, len(users))
	}
	return nil
}

func seedUsers(ctx context.Context, tx bun.Tx, users []User) error {
	for _, u := range users {
		role := "client"
		if u.Admin {
			role = "admin"
		}
		if _, err := tx.NewRaw(`
			INSERT INTO public.users (id, email, username, password, full_name, role, virtfusion_id, is_verified, is_active)
			VALUES (?, ?, ?, ?, ?, ?, nullif(?, 0), true, ?)
			ON CONFLICT (id) DO NOTHING`,
			u.ID, u.Email, u.Username, noPassword, u.FullName, role, u.VirtFusionID, !u.Inactive).Exec(ctx); err != nil {
			return fmt.Errorf("add the user %s to SkyPANEL: %w", u.Email, err)
		}
	}
	return advance(ctx, tx, "users")
}

func seedPrices(ctx context.Context, tx bun.Tx, packages []Package) error {
	for _, p := range packages {
		if p.PricingID == 0 {
			continue
		}
		if _, err := tx.NewRaw(`
			INSERT INTO public.package_pricing (id, virtfusion_package_id, name, price, enabled)
			VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`,
			p.PricingID, p.ID, p.Name, p.Price, !p.Withdrawn).Exec(ctx); err != nil {
			return fmt.Errorf("add the price of %s to SkyPANEL: %w", p.Name, err)
		}
	}
	return advance(ctx, tx, "package_pricing")
}

// advance moves a table's sequence behind the ids that were given, so that
// SkyPANEL's own inserts go on from there. It never moves it back.
func advance(ctx context.Context, tx bun.Tx, table string) error {
	if _, err := tx.NewRaw(`
		SELECT setval(s.name, greatest((SELECT max(id) FROM public.?0), pg_sequence_last_value(s.name::regclass), 1))
		FROM (SELECT pg_get_serial_sequence(?1, 'id')) AS s (name)`,
		bun.Ident(table), "public."+table).Exec(ctx); err != nil {
		return fmt.Errorf("advance the ids of SkyPANEL's %s: %w", table, err)
	}
	return nil
}

func seedSettings(ctx context.Context, tx bun.Tx) error {
	if _, err := tx.NewRaw(`
		INSERT INTO public.settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'true')
		ON CONFLICT (key) DO NOTHING`).Exec(ctx); err != nil {
		return fmt.Errorf("set SkyPANEL to hourly billing: %w", err)
	}
	if _, err := tx.NewRaw(`
		INSERT INTO public.virtfusion_cron_settings (enabled, hours_per_month, billing_on_first_enabled, hourly_billing_enabled)
		SELECT true, ?, false, true
		WHERE NOT EXISTS (SELECT FROM public.virtfusion_cron_settings)`, hoursPerMonth).Exec(ctx); err != nil {
		return fmt.Errorf("set the hours of SkyPANEL's month: %w", err)
	}
	return nil
}
