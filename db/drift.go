package db

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// Listed is a server as a listing of VirtFusion shows it. Nil fields were not
// in the listing and say nothing.
type Listed struct {
	ID               int64
	UUID             *string
	OwnerID          *int64
	OwnerExt         *int64
	OwnerWhole       bool // a nil OwnerExt means that the owner has none
	Name             *string
	Hostname         *string
	State            *string
	CommissionStatus *int64
	Suspended        *bool
	Protected        *bool
	BuildFailed      *bool
	SelfService      *int64
	PackageID        *int64
	MemoryMB         *int64
	StorageGB        *int64
	TrafficGB        *int64
	CPUCores         *int64
	IPAddresses      []string // nil: not said
	HypervisorID     *int64
	UpdatedAt        *time.Time
}

// Drift is how a listed server differs from the inventory.
type Drift struct {
	ServerID int64
	// Found is the first of these that holds.
	Found string
}

// What may be found of a server; see also docs/database.md.
const (
	FoundNew        = "new"        // not in the inventory
	FoundReappeared = "reappeared" // we had it for gone
	FoundUUID       = "uuid"
	FoundOwner      = "owner"
	FoundAwaiting   = "awaiting"   // its changes wait for approval: they are looked at anew
	FoundUnsettled  = "unsettled"  // a question or a doubt that a look at it may settle
	FoundOlder      = "older"      // it differs, though changed before what we know: it has to say so itself
	FoundChanged    = "changed"    // anything else
	FoundMissing    = "missing"    // known, not in the listing, not asked for yet
	FoundGone       = "gone"       // VirtFusion, asked, does not know it
	FoundOverlooked = "overlooked" // known, not in the listing, but VirtFusion, asked, showed it
	FoundBooks      = "books"      // something changed on SkyPANEL's side
	FoundAsked      = "asked"      // a user's own sync looks at all of the user's servers
)

// DriftOf compares servers with the inventory in one statement, and returns
// those that differ, in the order of their ids. A text that VirtFusion does not
// say is null here, and null differs from nothing.
func DriftOf(ctx context.Context, idb bun.IDB, listed []Listed) ([]Drift, error) {
	if len(listed) == 0 {
		return nil, nil
	}
	rows, differs, args := comparison(listed)
	found, err := queryAll(ctx, idb, scanDrift, `
		SELECT v.id, CASE WHEN s.virtfusion_id IS NULL THEN 'new' ELSE coalesce(`+differs+`, '') END
		FROM `+rows+` LEFT JOIN serversync.servers s ON s.virtfusion_id = v.id
		ORDER BY v.id`, args...)
	if err != nil {
		return nil, fmt.Errorf("compare %d servers with the inventory: %w", len(listed), err)
	}
	return slices.DeleteFunc(found, func(d Drift) bool { return d.Found == "" }), nil
}

// SeeListed is [DriftOf] for a page of a listing, and notes that its servers
// were seen, in the same statement: a fleet in step costs one for each page. On
// a connection of [Unhurried] it does not wait for the disk. Should the notes be
// lost, those servers are asked for by their ids.
func SeeListed(ctx context.Context, idb bun.IDB, page []Listed, at time.Time) ([]Drift, error) {
	if len(page) == 0 {
		return nil, nil
	}
	rows, differs, args := comparison(page)
	args = append(args, at)
	known, err := queryAll(ctx, idb, scanDrift, fmt.Sprintf(`
		UPDATE serversync.servers s SET last_seen_at = greatest(s.last_seen_at, $%d)
		FROM %s
		WHERE s.virtfusion_id = v.id
		RETURNING v.id, coalesce(%s, '')`, len(args), rows, differs), args...)
	if err != nil {
		return nil, fmt.Errorf("compare a page of %d servers with the inventory: %w", len(page), err)
	}
	found := make(map[int64]string, len(known))
	for _, d := range known {
		found[d.ServerID] = d.Found
	}
	var drift []Drift
	for i := range page {
		d := Drift{ServerID: page[i].ID, Found: FoundNew}
		if of, ok := found[d.ServerID]; ok {
			d.Found = of
		}
		if d.Found != "" {
			drift = append(drift, d)
		}
	}
	slices.SortFunc(drift, func(a, b Drift) int { return cmp.Compare(a.ServerID, b.ServerID) })
	return drift, nil
}

// listedField is a column of a listing: how it gets into the statement, and when
// it differs from the inventory.
type listedField struct {
	name, kind string
	// differs is the condition over v and s; a null of v never fulfils it.
	// Empty: it goes into another field's.
	differs string
	values  func([]Listed) any
	says    func(*Listed) bool // whether a row says anything of it
}

// listedFields are all but the id; the UUID and the owner are compared first.
var listedFields = []listedField{
	field("uuid", "text", "", func(l *Listed) *string { return l.UUID }),
	field("owner_id", "bigint", "", func(l *Listed) *int64 { return l.OwnerID }),
	field("owner_ext", "bigint", "", func(l *Listed) *int64 { return l.OwnerExt }),
	field("owner_whole", "bool", "", func(l *Listed) *bool { return nilIfFalse(l.OwnerWhole) }),
	plain("name", "text", func(l *Listed) *string { return l.Name }),
	plain("hostname", "text", func(l *Listed) *string { return l.Hostname }),
	plain("state", "text", func(l *Listed) *string { return l.State }),
	plain("suspended", "bool", func(l *Listed) *bool { return l.Suspended }),
	plain("protected", "bool", func(l *Listed) *bool { return l.Protected }),
	plain("build_failed", "bool", func(l *Listed) *bool { return l.BuildFailed }),
	plain("self_service", "bigint", func(l *Listed) *int64 { return l.SelfService }),
	optional("commission_status", func(l *Listed) *int64 { return l.CommissionStatus }),
	optional("package_id", func(l *Listed) *int64 { return l.PackageID }),
	optional("memory_mb", func(l *Listed) *int64 { return l.MemoryMB }),
	optional("storage_gb", func(l *Listed) *int64 { return l.StorageGB }),
	optional("traffic_gb", func(l *Listed) *int64 { return l.TrafficGB }),
	optional("cpu_cores", func(l *Listed) *int64 { return l.CPUCores }),
	optional("hypervisor_id", func(l *Listed) *int64 { return l.HypervisorID }),
	field("ip_addresses", "text", "string_to_array(v.ip_addresses, ' ') <> s.ip_addresses", func(l *Listed) *string {
		if l.IPAddresses == nil {
			return nil
		}
		return new(strings.Join(l.IPAddresses, " "))
	}),
	field("updated_at", "timestamptz", "v.updated_at > s.updated_at OR v.updated_at IS NOT NULL AND s.updated_at IS NULL",
		func(l *Listed) *time.Time { return l.UpdatedAt }),
}

func field[V any](name, kind, differs string, get func(*Listed) *V) listedField {
	return listedField{
		name: name, kind: kind, differs: differs,
		values: func(l []Listed) any { return column(l, get) },
		says:   func(l *Listed) bool { return get(l) != nil },
	}
}

// plain is a field that the inventory always has.
func plain[V any](name, kind string, get func(*Listed) *V) listedField {
	return field(name, kind, fmt.Sprintf("v.%[1]s <> s.%[1]s", name), get)
}

// optional is a number that the inventory may lack.
func optional(name string, get func(*Listed) *int64) listedField {
	return field(name, "bigint", fmt.Sprintf("v.%[1]s IS NOT NULL AND v.%[1]s IS DISTINCT FROM s.%[1]s", name), get)
}

func nilIfFalse(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

// comparison is the listing as rows v, and how a row differs from its row s of
// the inventory (null: it does not). Fields of which no row says anything are
// left out: a page of simple rows has half of them.
func comparison(listed []Listed) (rows, differs string, args []any) {
	kinds, names := []string{"$1::bigint[]"}, []string{"id"}
	args = []any{column(listed, func(l *Listed) int64 { return l.ID })}
	said := make(map[string]bool)
	var changed []string
	for _, f := range listedFields {
		if !anySays(listed, f.says) {
			continue
		}
		said[f.name] = true
		args = append(args, f.values(listed))
		kinds, names = append(kinds, fmt.Sprintf("$%d::%s[]", len(args), f.kind)), append(names, f.name)
		if f.differs != "" {
			changed = append(changed, f.differs)
		}
	}
	cases := []string{"WHEN s.status = 'gone' THEN 'reappeared'"}
	if said["updated_at"] {
		any := slices.Clone(changed)
		if said["uuid"] {
			any = append(any, "v.uuid <> s.uuid")
		}
		if said["owner_id"] {
			any = append(any, "v.owner_id <> s.owner_id")
		}
		cases = append(cases, "WHEN v.updated_at < s.updated_at AND ("+strings.Join(any, " OR ")+") THEN 'older'")
	}
	if said["uuid"] {
		cases = append(cases, "WHEN v.uuid <> s.uuid THEN 'uuid'")
	}
	if said["owner_id"] {
		cases = append(cases, "WHEN v.owner_id <> s.owner_id THEN 'owner'")
	}
	switch {
	case said["owner_whole"] && said["owner_ext"]:
		cases = append(cases, "WHEN (v.owner_whole OR v.owner_ext IS NOT NULL) AND v.owner_ext IS DISTINCT FROM s.owner_ext_relation_id THEN 'owner'")
	case said["owner_whole"]:
		cases = append(cases, "WHEN v.owner_whole AND s.owner_ext_relation_id IS NOT NULL THEN 'owner'")
	case said["owner_ext"]:
		cases = append(cases, "WHEN v.owner_ext IS NOT NULL AND v.owner_ext IS DISTINCT FROM s.owner_ext_relation_id THEN 'owner'")
	}
	cases = append(cases,
		"WHEN s.awaiting_run <> '' THEN 'awaiting'",
		"WHEN s.ask <> '' OR NOT s.confirmed OR s.owner_id = 0 THEN 'unsettled'")
	if len(changed) > 0 {
		cases = append(cases, "WHEN "+strings.Join(changed, " OR ")+" THEN 'changed'")
	}
	return "unnest(" + strings.Join(kinds, ", ") + ") AS v (" + strings.Join(names, ", ") + ")",
		"CASE " + strings.Join(cases, " ") + " END", args
}

func anySays(listed []Listed, says func(*Listed) bool) bool {
	for i := range listed {
		if says(&listed[i]) {
			return true
		}
	}
	return false
}

func scanDrift(rows *sql.Rows) (Drift, error) {
	var d Drift
	err := rows.Scan(&d.ServerID, &d.Found)
	return d, err
}

// Unhurried is a connection whose commits do not wait for the disk, for notes
// that may be lost. release gives it back as it was.
func Unhurried(ctx context.Context, database *bun.DB) (conn bun.Conn, release func(), err error) {
	if conn, err = database.Conn(ctx); err != nil {
		return conn, nil, fmt.Errorf("connect: %w", err)
	}
	if _, err = conn.ExecContext(ctx, `SET synchronous_commit = off`); err != nil {
		_ = conn.Close()
		return conn, nil, fmt.Errorf("prepare a connection: %w", err)
	}
	return conn, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.ExecContext(end, `RESET synchronous_commit`); err != nil {
			// It must not serve others, who rely on the disk.
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
		_ = conn.Close()
	}, nil
}

// MarkSeen records that VirtFusion showed servers.
func MarkSeen(ctx context.Context, idb bun.IDB, ids []int64, at time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.servers SET last_seen_at = $2 WHERE virtfusion_id = ANY($1::bigint[]) AND last_seen_at < $2`, ids, at)
	return wrap(err, fmt.Sprintf("note that %d servers were seen", len(ids)))
}

// Unseen returns up to limit servers above after, in order, that we know, that
// are not gone, and that nothing has shown since the given time.
func Unseen(ctx context.Context, idb bun.IDB, since time.Time, after int64, limit int) ([]int64, error) {
	ids, err := queryAll(ctx, idb, scanID, `
		SELECT virtfusion_id FROM serversync.servers
		WHERE status <> 'gone' AND last_seen_at < $1 AND virtfusion_id > $2
		ORDER BY virtfusion_id LIMIT $3`, since, after, limit)
	if err != nil {
		return nil, fmt.Errorf("look for servers that were not listed: %w", err)
	}
	return ids, nil
}

// SeenSince returns the ids of all servers that something has shown since the
// given time.
func SeenSince(ctx context.Context, idb bun.IDB, since time.Time) ([]int64, error) {
	ids, err := queryAll(ctx, idb, scanID, `SELECT virtfusion_id FROM serversync.servers WHERE last_seen_at >= $1`, since)
	if err != nil {
		return nil, fmt.Errorf("look for servers that were listed: %w", err)
	}
	return ids, nil
}

// InventorySize counts the servers that are not gone.
func InventorySize(ctx context.Context, idb bun.IDB) (int64, error) {
	var n int64
	if err := idb.NewRaw(`SELECT count(*) FROM serversync.servers WHERE status <> 'gone'`).Scan(ctx, &n); err != nil {
		return 0, fmt.Errorf("count the inventory: %w", err)
	}
	return n, nil
}

// CountUnseen counts the servers that [Unseen] lists.
func CountUnseen(ctx context.Context, idb bun.IDB, since time.Time) (int64, error) {
	var n int64
	err := idb.NewRaw(`SELECT count(*) FROM serversync.servers WHERE status <> 'gone' AND last_seen_at < ?`, since).Scan(ctx, &n)
	return n, wrap(err, "count the servers that were not listed")
}

// ServersOfUser returns the ids, in order, of the servers that are not gone and
// belong to a SkyPANEL user, as we know them.
func ServersOfUser(ctx context.Context, idb bun.IDB, userID int64) ([]int64, error) {
	ids, err := queryAll(ctx, idb, scanID, `
		SELECT virtfusion_id FROM serversync.servers WHERE user_id = $1 AND status <> 'gone' ORDER BY virtfusion_id`, userID)
	return ids, wrap(err, fmt.Sprintf("list the servers of user %d", userID))
}
