package db

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// Override is serversync.overrides: what an operator wishes of a server.
type Override struct {
	bun.BaseModel `bun:"table:serversync.overrides,alias:o"`

	VirtfusionID int64     `bun:"virtfusion_id,pk"`
	Kind         string    `bun:"kind,pk"`    // 'billing_on', 'billing_off', 'package', 'ignore', 'undone', 'keep'
	PackageID    *int64    `bun:"package_id"` // for 'package'
	Reason       string    `bun:"reason"`
	SetBy        string    `bun:"set_by"`
	SetAt        time.Time `bun:"set_at"`
	// UserID is the owner for whom 'undone' and 'keep' hold; nil: anybody.
	UserID *int64 `bun:"user_id"`
}

// OverridesByServer reads the operators' wishes for the given servers.
func OverridesByServer(ctx context.Context, idb bun.IDB, ids []int64) ([]Override, error) {
	scan := func(rows *sql.Rows) (Override, error) {
		var o Override
		err := rows.Scan(&o.VirtfusionID, &o.Kind, &o.PackageID, &o.Reason, &o.SetBy, &o.SetAt, &o.UserID)
		return o, err
	}
	overrides, err := queryAll(ctx, idb, scan, `
		SELECT o.virtfusion_id, o.kind, o.package_id, o.reason, o.set_by, o.set_at, o.user_id
		FROM unnest($1::bigint[]) AS k (id)
		JOIN serversync.overrides o ON o.virtfusion_id = k.id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read the overrides of %d servers: %w", len(ids), err)
	}
	return overrides, nil
}
