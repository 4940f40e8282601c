package db_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"serversync/db"
	"serversync/db/dbtest"
)

// found lists the ids that a query selects, in their order.
func found(t *testing.T, database *bun.DB, q db.ServersQuery) []int64 {
	t.Helper()
	q.Sort = db.SortID
	servers, err := db.ListServers(t.Context(), database, q)
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for i := range servers {
		ids = append(ids, servers[i].VirtfusionID)
	}
	return ids
}

// The search's words follow the inventory, however it is written, once they are
// kept; until then searches read the inventory.
func TestWordsFollowTheInventory(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	keep := func(want int) {
		t.Helper()
		if n, err := db.KeepWords(t.Context(), database, 100); err != nil || n != want {
			t.Fatalf("%d were taken off, %v; want %d", n, err, want)
		}
	}
	finds := func(text string, want ...int64) {
		t.Helper()
		if got := found(t, database, db.ServersQuery{Search: text}); !slices.Equal(got, want) {
			t.Errorf("%q finds %v, want %v", text, got, want)
		}
	}
	const servers = `INSERT INTO serversync.servers (virtfusion_id, name, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at) `
	exec(t, database, servers+`VALUES (1, 'First', 'external', now(), '', '', now(), now()), (2, 'second', 'external', now(), '', '', now(), now())`)
	finds("first", 1)
	wantTable(t, database, "", `SELECT virtfusion_id FROM serversync.server_words`)
	keep(2)
	wantTable(t, database, "1|1\nfirst\n\n\n\n2|2\nsecond\n\n\n", `SELECT virtfusion_id, words FROM serversync.server_words ORDER BY 1`)
	exec(t, database, servers+`VALUES (2, 'SECOND-b', 'external', now(), '', '', now(), now()), (3, 'third', 'external', now(), '', '', now(), now())
		ON CONFLICT (virtfusion_id) DO UPDATE SET name = excluded.name, ip_addresses = '{192.0.2.1,192.0.2.2}', hostname = 'h', uuid = 'U'`)
	finds("second-b", 2)
	finds("second", 2)
	finds("192.0.2.2", 2)
	exec(t, database, `UPDATE serversync.servers SET name = 'renamed' WHERE virtfusion_id = 1`)
	finds("first") // what its words still say is not true any more
	finds("renamed", 1)
	if n, err := db.KeepWords(t.Context(), database, 1); err != nil || n != 1 {
		t.Fatalf("%d were taken off, %v; want 1: the limit", n, err)
	}
	finds("third", 3)
	finds("renamed", 1)
	finds("second", 2)
	keep(2)
	wantTable(t, database, "1\nrenamed\n\n\n\n2\nsecond-b\nh\nu\n192.0.2.1\n192.0.2.2\n3\nthird\n\n\n", `SELECT words FROM serversync.server_words ORDER BY virtfusion_id`)
	finds("renamed", 1)
	stored := table(t, database, `SELECT ctid FROM serversync.server_words ORDER BY virtfusion_id`)
	exec(t, database, `UPDATE serversync.servers SET status = 'gone', name = name, observed_at = now()`)
	keep(0) // nothing that is searched has changed
	exec(t, database, `INSERT INTO serversync.words_due VALUES (1), (1), (4711)`)
	keep(3)
	wantTable(t, database, stored, `SELECT ctid FROM serversync.server_words ORDER BY virtfusion_id`) // nothing was written
	exec(t, database, `DELETE FROM serversync.servers WHERE virtfusion_id <> 1`)
	wantTable(t, database, "1", `SELECT virtfusion_id FROM serversync.server_words`)
}

// A search finds what holds the text, and nothing else.
func TestSearchFindsEveryPart(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	letters := rapid.StringOfN(rapid.RuneFrom([]rune("abAé漢%_\\'.-1\t\x01🙂")), 0, 8, -1)
	rapid.Check(t, func(r *rapid.T) {
		exec(t, database, `DELETE FROM serversync.servers`)
		names := rapid.SliceOfN(letters, 1, 6).Draw(r, "names")
		for i, name := range names {
			exec(t, database, `INSERT INTO serversync.servers (virtfusion_id, name, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
				VALUES (?, ?, 'external', now(), '', '', now(), now())`, 900+i, name)
		}
		part := rapid.StringOfN(rapid.RuneFrom([]rune("abAé漢%_\\'.-1🙂")), 2, 4, -1).Draw(r, "part")
		if whole := []rune(names[0]); len(whole) > 2 && rapid.Bool().Draw(r, "there") {
			at := rapid.IntRange(0, len(whole)-2).Draw(r, "at")
			part = string(whole[at:])
		}
		if strings.ContainsAny(part, "\t\x01") {
			r.Skip("the API refuses it")
		}
		var want []int64
		for i, name := range names {
			if strings.Contains(strings.ToLower(name), strings.ToLower(part)) {
				want = append(want, int64(900+i))
			}
		}
		if got := found(t, database, db.ServersQuery{Search: part}); !slices.Equal(got, want) {
			r.Fatalf("%q in %q: %v, want %v", part, names, got, want)
		}
	})
}

// A network finds the addresses that are in it, and an address the usual networks
// around it, however they are written.
func TestNetworksFindWhatIsInThem(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	group := rapid.SampledFrom([]uint16{0, 0, 0, 1, 0xdb8, 0x2001, 0xffff})
	address := rapid.Custom(func(r *rapid.T) netip.Addr {
		if rapid.Bool().Draw(r, "v4") {
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.SampledFrom([]byte{10, 0, 1, 255}), 4, 4).Draw(r, "octets")))
		}
		var raw [16]byte
		for i := range 8 {
			g := group.Draw(r, "group")
			raw[2*i], raw[2*i+1] = byte(g>>8), byte(g)
		}
		if raw[1] == 0 {
			raw[1] = 0x20 // no IPv4 address in IPv6
		}
		return netip.AddrFrom16(raw)
	})
	rapid.Check(t, func(r *rapid.T) {
		exec(t, database, `DELETE FROM serversync.servers`)
		one := address.Draw(r, "one")
		kept := []string{one.String()}
		if one.Is6() {
			kept = append(kept, netip.PrefixFrom(one, rapid.SampledFrom([]int{48, 56, 64, 112}).Draw(r, "bits")).Masked().String())
		}
		kept = append(kept, address.Draw(r, "two").String(), "fe80::1%eth0")
		for i, k := range kept {
			exec(t, database, `INSERT INTO serversync.servers (virtfusion_id, ip_addresses, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
				VALUES (?, ARRAY[?], 'external', now(), '', '', now(), now())`, i, k)
		}
		smallest := 8
		if one.Is6() {
			smallest = 16
		}
		bits := rapid.IntRange(smallest, one.BitLen()).Draw(r, "asked")
		network := netip.PrefixFrom(one, bits).Masked()
		var want []int64
		for i, k := range kept[:len(kept)-1] {
			p, err := netip.ParsePrefix(k)
			if err != nil {
				a := netip.MustParseAddr(k)
				p = netip.PrefixFrom(a, a.BitLen())
			}
			if network.Overlaps(p) && (p.Bits() >= bits || network.IsSingleIP()) {
				want = append(want, int64(i))
			}
		}
		got := found(t, database, db.ServersQuery{Network: network})
		for _, id := range want {
			if !slices.Contains(got, id) {
				r.Fatalf("%s in %q: %v, want %v", network, kept, got, want)
			}
		}
		for _, id := range got {
			if p, err := netip.ParsePrefix(kept[id]); err != nil && !network.Contains(netip.MustParseAddr(kept[id])) || err == nil && !network.Overlaps(p) {
				r.Fatalf("%s in %q: %v, want %v", network, kept, got, want)
			}
		}
	})
}

func TestFoundByDay(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	exec(t, database, `
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, hours_in_month)
		SELECT i, ?, i, i, 5, 'S', 5, 0.01, CASE WHEN i = 2 THEN 720 END FROM generate_series(1, 9) AS i;
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, closed_reason, created_at, updated_at)
		SELECT i, server, made, 1, true, 5, price, closed, at::timestamptz, now() FROM (VALUES
			(1, 1, 'serversync', 5, NULL, '2026-03-01T23:59Z'), (2, 2, 'serversync', 5, NULL, '2026-03-01T00:00Z'), (3, 3, 'serversync', 5, NULL, '2026-03-01T12:00Z'),
			(4, 1, 'serversync', 7, NULL, '2026-03-02T00:00Z'), (5, 5, 'skypanel', 5, NULL, '2026-03-02T00:00Z'), (6, 6, 'serversync', 5, 'withdrawn', '2026-03-02T00:00Z'),
			(7, 6, 'serversync', 9, NULL, '2026-03-03T00:00Z'), (8, 8, 'serversync', 5, NULL, '2026-02-28T23:59Z')) AS v (i, server, made, price, closed, at)`, anna)
	days, err := db.FoundByDay(t.Context(), database, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	var got []string
	for _, d := range days {
		got = append(got, fmt.Sprint(d.Day.UTC().Day(), " ", d.Servers, "×", d.Monthly, "/", d.Hours))
	}
	if all := strings.Join(got, ", "); err != nil || all != "1 1×5/720, 1 2×5/730, 3 1×9/730" {
		t.Errorf("%s, %v", all, err)
	}
}

func TestTalliesByHour(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	since := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	exec(t, database, `INSERT INTO serversync.history (at, virtfusion_id, kind, reason) SELECT at::timestamptz, 1, kind, '' FROM (VALUES
		('2026-02-28T23:59Z', 'observed'), ('2026-03-01T00:00Z', 'observed'), ('2026-03-01T00:59Z', 'observed'), ('2026-03-01T01:00Z', 'decided'), ('2026-03-01T02:00Z', 'observed')) AS v (at, kind)`)
	tallies, err := db.ObservedByHour(t.Context(), database, since)
	if err != nil || len(tallies) != 2 || tallies[0].Count != 2 || !tallies[0].Hour.Equal(since) || tallies[1].Count != 1 || !tallies[1].Hour.Equal(since.Add(2*time.Hour)) {
		t.Errorf("%+v, %v", tallies, err)
	}

	for i, s := range []db.LagSample{{Events: 3}, {Events: 9, Seconds: new(4.5)}, {Events: 100}, {Events: 1}} {
		s.At = since.Add(time.Duration([]int{0, 30, 30, 90}[i]) * time.Minute).Add(20 * time.Second)
		if err := db.SaveLag(t.Context(), database, s); err != nil { // the second of one minute is not heard
			t.Fatal(err)
		}
	}
	lag, err := db.LagByHour(t.Context(), database, since)
	if err != nil || len(lag) != 2 || lag[0].Events != 9 || *lag[0].Seconds != 4.5 || lag[1].Events != 1 || lag[1].Seconds != nil {
		t.Errorf("%+v, %v", lag, err)
	}
	if err := db.SaveLag(t.Context(), database, db.LagSample{At: since.AddDate(0, 0, 92)}); err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "1", `SELECT count(*) FROM serversync.lag_samples`)
}
