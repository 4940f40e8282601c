package db_test

import (
	"testing"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestOverridesByServer(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `INSERT INTO serversync.overrides (virtfusion_id, kind, package_id, reason, set_by, set_at) VALUES
		(1, 'billing_off', NULL, 'asked for', 'ada', '2026-03-01 12:00:00+00'), (1, 'package', 4, '', '', now()),
		(2, 'ignore', NULL, '', '', now()), (1099511627776, 'undone', NULL, '', '', now())`)
	overrides, err := db.OverridesByServer(t.Context(), database, []int64{1, 3, 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[int64]map[string]db.Override)
	for _, o := range overrides {
		if found[o.VirtfusionID] == nil {
			found[o.VirtfusionID] = make(map[string]db.Override)
		}
		found[o.VirtfusionID][o.Kind] = o
	}
	if len(overrides) != 3 || len(found[1]) != 2 || len(found[1<<40]) != 1 {
		t.Fatalf("overrides %+v", overrides)
	}
	if o := found[1]["billing_off"]; o.Reason != "asked for" || o.SetBy != "ada" || o.PackageID != nil || o.SetAt.UTC().Format("2006-01-02 15:04") != "2026-03-01 12:00" {
		t.Errorf("billing_off: %+v", o)
	}
	if o := found[1]["package"]; o.PackageID == nil || *o.PackageID != 4 {
		t.Errorf("package: %+v", o)
	}
	if none, err := db.OverridesByServer(t.Context(), database, nil); err != nil || len(none) != 0 {
		t.Errorf("of no servers: %v, %v", none, err)
	}
	for _, bad := range []string{
		`INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (1, 'billing_off')`, // one of a kind
		`INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (5, 'whatever')`,
	} {
		if _, err := database.ExecContext(t.Context(), bad); err == nil {
			t.Errorf("accepted: %s", bad)
		}
	}
}
