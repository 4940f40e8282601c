package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"serversync/api"
	"serversync/internal/openapitest"
	"serversync/schemas"
)

// Every route of the service is described, and nothing is described that there
// is not.
func TestOpenAPIIsTheRoutes(t *testing.T) {
	t.Parallel()
	described := map[string]bool{}
	for path, item := range openapitest.Load(t, schemas.FS()).Paths.Map() {
		for method := range item.Operations() {
			described[method+" "+path] = true
		}
	}
	served := map[string]bool{}
	for _, r := range start(t, config{}).http.Echo().Routes() {
		if r.Method == "echo_route_not_found" {
			continue // what a group answers for paths that it does not have
		}
		path := strings.NewReplacer(":name", "{name}", ":id", "{id}").Replace(r.Path)
		if strings.HasPrefix(path, "/assets/") {
			path = "/assets/{name}"
		}
		served[r.Method+" "+path] = true
	}
	for r := range served {
		if !described[r] {
			t.Errorf("%s is served and not described", r)
		}
	}
	for r := range described {
		if !served[r] {
			t.Errorf("%s is described and not served", r)
		}
	}
}

// The pages and what they load are as described.
func TestThePagesAreAsDescribed(t *testing.T) {
	t.Parallel()
	doc, r := openapitest.Load(t, schemas.FS()), start(t, config{frameAncestors: []string{"https://panel.example.com"}})
	served := map[string]bool{"/assets/none.js": true}
	for _, route := range r.http.Echo().Routes() {
		if route.Path == "/" || route.Path == "/admin" || route.Path == "/server-sync.js" || strings.HasPrefix(route.Path, "/assets/") {
			served[route.Path] = true
		}
	}
	if len(served) < 5 {
		t.Errorf("served: %v", served)
	}
	for path := range served {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		described := path
		if strings.HasPrefix(path, "/assets/") {
			described = "/assets/{name}"
		}
		openapitest.Check(t, doc, http.MethodGet, described, response, body)
		operation := doc.Paths.Value(described).Get
		for name := range operation.Responses.Value(strconv.Itoa(response.StatusCode)).Value.Headers {
			if response.Header.Get(name) == "" {
				t.Errorf("%s has no %s", path, name)
			}
		}
		if framed := strings.Contains(response.Header.Get("Content-Security-Policy"), "frame-ancestors 'self' https://panel.example.com"); framed != (path == "/") {
			t.Errorf("%s: the setting counts: %v", path, framed)
		}
	}
}

// command runs a command that acts through the service.
func (r *running) command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	all := append([]string{"serversync"}, args...)
	code = run(t.Context(), append(all, "--url", r.base, "--data-dir", r.config.dataDir), &out, &errs)
	return code, out.String(), errs.String()
}

const explainedUUID = "5a2d2f0e-6a63-4be4-9d62-3e0f3a3a7c11"

// external delivers a creation, and waits for our billing row.
func (r *running) external(t *testing.T, id int64, uuid, name string) {
	t.Helper()
	body := fmt.Sprintf(`{"event":"server.create","eventStatus":"success","created":"2026-11-01T00:00:00.000001Z","data":{"server":{"id":%d,"uuid":%q,
		"ownerId":7,"packageId":3,"name":%s,"created":"2026-11-01T00:00:00+00:00","updated":"2026-11-01T00:00:00+00:00"}}}`, id, uuid, mustJSON(t, name))
	if status, answer := deliver(t, r.base, body); status != http.StatusAccepted {
		t.Fatalf("delivery: %d %s", status, answer)
	}
	eventually(t, "its billing row is there", func() bool {
		var n int
		if err := r.stores.db.NewRaw(`SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = ?`, id).Scan(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
		return n > 0
	})
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestExplain(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	r.ready(t)
	r.seedCustomer(t)
	r.exec(t, `INSERT INTO virtfusion_cron_settings (enabled) VALUES (true)`)
	const hostile = "<img src=x onerror=alert(1)>\x1b]0;owned\x07\x1b[2J\u202e\nserver 99 \"forged\""
	r.external(t, 14, explainedUUID, hostile)

	code, byID, errs := r.command(t, "explain", "14")
	if code != exitDone {
		t.Fatalf("explain 14: exit %d: %s", code, errs)
	}
	for _, says := range []string{
		`server 14 "<img src=x onerror=alert(1)>\x1b]0;owned`,
		"status     external, billing on: made outside SkyPANEL, billed 10.00 a month",
		"owner      VirtFusion user 7, SkyPANEL user 41",
		"package    3 Small, list price 10.00 a month",
		"billing row 1 (ours, on): user 41, Small, 10.0000 a month (7.30 as charged), 0.013699 an hour",
		"next       SkyPANEL charges 2 tokens (0.02) at 20", "then 1 token (0.01) an hour: 7.30 a month, where the row says 10.00",
		"charge 1  0.0137 from 20", "pending",
		"observed: first seen in VirtFusion, by webhook", "    uuid: " + explainedUUID,
		"billing_created: made outside SkyPANEL: billed 10.00 a month", "    billing row 1, by ",
		"decided: made outside SkyPANEL", "    status: external",
	} {
		if !strings.Contains(byID, says) {
			t.Errorf("it does not say %q:\n%s", says, byID)
		}
	}
	if strings.ContainsAny(byID, "\x1b\x07\u202e") || strings.Contains(byID, "\nserver 99") {
		t.Errorf("a name was let loose on the terminal:\n%q", byID)
	}
	if _, byUUID, _ := r.command(t, "explain", explainedUUID); byUUID != byID {
		t.Errorf("by UUID:\n%s", byUUID)
	}

	code, asJSON, _ := r.command(t, "explain", "--json", "14")
	var story api.Timeline
	if err := json.Unmarshal([]byte(asJSON), &story); err != nil || code != exitDone || story.Server.Name != hostile || len(story.History.Items) < 3 {
		t.Errorf("as JSON: exit %d, %v:\n%s", code, err, asJSON)
	}
	if strings.ContainsAny(asJSON, "\x1b\x07") {
		t.Errorf("JSON with control characters:\n%q", asJSON)
	}

	if code, _, errs := r.command(t, "explain", "15"); code != exitFailed || !strings.Contains(errs, "no server with this id or UUID") {
		t.Errorf("explain 15: exit %d: %s", code, errs)
	}
}

// A history of many pages is told whole, and in order.
func TestExplainReadsEveryPage(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	r.ready(t)
	r.exec(t, `INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (14, 'unlinked', now(), 'webhook', '', now(), now())`)
	r.exec(t, `INSERT INTO serversync.history (at, virtfusion_id, kind, reason) SELECT now(), 14, 'decided', 'line ' || i FROM generate_series(1, 450) AS i`)
	_, text, _ := r.command(t, "explain", "14")
	after := 0
	for i := range 450 {
		at := strings.Index(text[after:], fmt.Sprintf("decided: line %d\n", i+1))
		if at < 0 {
			t.Fatalf("line %d is missing or out of order", i+1)
		}
		after += at
	}
	if !strings.Contains(text, "No billing row names it") {
		t.Errorf("without billing rows it says:\n%.500s", text)
	}
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	r.ready(t)
	r.seedCustomer(t)
	r.external(t, 14, explainedUUID, "twice")
	r.external(t, 15, "5a2d2f0e-6a63-4be4-9d62-3e0f3a3a7c12", "once")
	// SkyPANEL's own row comes late, and a first hour lost its row.
	r.exec(t, `
		INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, server_created_at)
		VALUES (41, 14, 14, ?0, 3, 'Small', 10, 0.013699, now());
		INSERT INTO virtfusion_hourly_transactions (id, user_id, server_id, amount_charged, reference_1) VALUES (900, 41, 16, 0.0137, 'external_server_16');
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, charge_id, closed_reason, created_at, updated_at)
		VALUES (990, 16, 'serversync', 41, false, 3, 10, 900, 'withdrawn', now(), now())`, explainedUUID)
	enabled := func() (n int) {
		t.Helper()
		if err := r.stores.db.NewRaw(`SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 14 AND billing_enabled`).Scan(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	code, text, errs := r.command(t, "cleanup", "--dry-run")
	for _, says := range []string{
		"would withdraw  server 14 is billed by row 1 (ours, user 41) and row 3 (SkyPANEL's, user 41)", "the customer pays twice",
		"would void      server 16 has charge 900", "2 findings; nothing was changed",
	} {
		if code != exitDone || !strings.Contains(text, says) {
			t.Errorf("dry run: exit %d, it does not say %q:\n%s%s", code, says, text, errs)
		}
	}
	if n := enabled(); n != 2 {
		t.Errorf("after a dry run %d rows bill the server", n)
	}

	code, text, errs = r.command(t, "cleanup")
	if code != exitDone || !strings.Contains(text, "withdrawn       server 14") || !strings.Contains(text, "voided          server 16") || !strings.Contains(text, "2 findings, 2 mended") {
		t.Errorf("exit %d:\n%s%s", code, text, errs)
	}
	if n := enabled(); n != 1 {
		t.Errorf("after the cleanup %d rows bill the server", n)
	}
	_, story, _ := r.command(t, "explain", "14")
	if !strings.Contains(story, "billing_withdrawn: SkyPANEL's own billing row 3 has turned up: our row, which nobody has charged, is deleted") {
		t.Errorf("the story does not tell of it:\n%s", story)
	}
	code, text, _ = r.command(t, "cleanup", "--json")
	var result api.Cleanup
	if err := json.Unmarshal([]byte(text), &result); err != nil || code != exitDone || len(result.Findings) != 0 {
		t.Errorf("again: exit %d, %v:\n%s", code, err, text)
	}
}

func TestTheAdminTokenIsKept(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	path := filepath.Join(r.config.dataDir, "admin.token")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the kept token: %v, %v", info, err)
	}
	token, err := readAdminToken(r.config.dataDir)
	if err != nil || len(token) < 40 {
		t.Errorf("token of %d characters, %v", len(token), err)
	}
	if again, err := keepAdminToken(r.config.dataDir); err != nil || again != token {
		t.Errorf("the next start has another token: %v", err)
	}
	if strings.Contains(r.log.String(), token) {
		t.Error("the log holds the token")
	}
	r.ready(t)
	var errs bytes.Buffer
	args := []string{"serversync", "explain", "14", "--url", r.base}
	if code := run(t.Context(), append(args, "--admin-token", "wrong"), &errs, &errs); code != exitFailed || !strings.Contains(errs.String(), "set ADMIN_TOKEN") {
		t.Errorf("with a wrong token: exit %d: %s", code, errs.String())
	}
	errs.Reset()
	if code := run(t.Context(), append(args, "--data-dir", t.TempDir()), &errs, &errs); code != exitFailed || !strings.Contains(errs.String(), "no admin token is known") {
		t.Errorf("without a token: exit %d: %s", code, errs.String())
	}
}

func TestAConfiguredAdminTokenIsNotKept(t *testing.T) {
	t.Parallel()
	r := start(t, config{adminToken: "chosen"})
	r.ready(t)
	if _, err := os.Stat(filepath.Join(r.config.dataDir, "admin.token")); !os.IsNotExist(err) {
		t.Errorf("a token was kept beside the configured one: %v", err)
	}
	code, text, errs := r.command(t, "cleanup", "--admin-token", "chosen")
	if code != exitDone || text != "No duplicate and no orphaned records.\n" {
		t.Errorf("exit %d: %s%s", code, text, errs)
	}
}

// Processes that start at once agree on one token.
func TestOneAdminTokenIsMade(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	tokens := make([]string, 8)
	var wg sync.WaitGroup
	for i := range tokens {
		wg.Go(func() {
			var err error
			if tokens[i], err = keepAdminToken(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, token := range tokens {
		if token == "" || token != tokens[0] {
			t.Errorf("tokens differ: %q", tokens)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "admin.token"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keepAdminToken(dir); err == nil {
		t.Error("an empty token was accepted")
	}
}

func TestWithoutTheRoleAPIThereAreNoAdminRoutes(t *testing.T) {
	t.Parallel()
	r := start(t, config{roles: []string{roleIngest}})
	code, _, errs := r.command(t, "explain", "14", "--admin-token", "x")
	if code != exitFailed || !strings.Contains(errs, "role api") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if _, err := os.Stat(filepath.Join(r.config.dataDir, "admin.token")); !os.IsNotExist(err) {
		t.Errorf("a token was made for nobody: %v", err)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"web-1 ü 漢": "web-1 ü 漢", "": "", "\x1b[31m": `\x1b[31m`, "a\tb\r\n": `a\tb\r\n`, "\u202e": `\u202e`, "\u009b2J": `\u009b2J`, "'\a'": `'\a'`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
