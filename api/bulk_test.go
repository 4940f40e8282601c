package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"serversync/api"
	"serversync/db"
	"serversync/internal/openapitest"
)

func TestBulkAnswersForEachServer(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.syncs.begun = func(r *db.Run) {
		if o := r.Progress.Bulk; o.Action != "billing-off" || o.Set != db.WishBillingOff || o.Reason != "a friend's" || r.RequestedBy != "admin token" || r.DryRun {
			t.Errorf("what was begun: %+v", o)
		}
		s.exec(t, `UPDATE serversync.run_items SET state = 'done', outcome = CASE virtfusion_id WHEN 7 THEN 'updated' WHEN 9 THEN 'failed' ELSE 'failed' END,
			found = CASE virtfusion_id WHEN 9 THEN 'unknown' ELSE found END, error = CASE WHEN virtfusion_id > 7 THEN 'look' END WHERE run_id = ?`, r.ID)
		s.exec(t, `UPDATE serversync.runs SET state = 'incomplete', problems = '[{"code": "virtfusion_unavailable", "message": "away"}]' WHERE id = ?`, r.ID)
	}
	a := s.put(t, "/api/admin/servers/bulk", `{"ids": [9, 7, 8, 7], "action": "billing-off", "reason": " a friend's "}`)
	b := data[api.Bulk](t, a)
	results, err := json.Marshal(b.Results)
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"id":7,"result":"updated"},{"id":8,"result":"failed","error":{"code":"server_failed","message":"look","serverId":8}},` +
		`{"id":9,"result":"failed","error":{"code":"unknown_server","message":"look","serverId":9}}]`; string(results) != want {
		t.Errorf("%s", results)
	}
	if b.Updated != 1 || b.Failed != 2 || len(b.Errors) != 1 || b.Errors[0].Code != "virtfusion_unavailable" || b.Action != "billing-off" || b.Preview != nil || !strings.Contains(a.body.Message, "Not everything") {
		t.Errorf("%s", a.raw)
	}

	// The same, page by page.
	path := "/api/admin/runs/" + b.RunID + "/servers?limit=2"
	first := data[api.RunServers](t, s.admin(t, http.MethodGet, path))
	if len(first.Items) != 2 || first.NextCursor == nil {
		t.Fatalf("%+v", first)
	}
	if last := data[api.RunServers](t, s.admin(t, http.MethodGet, path+"&cursor="+*first.NextCursor)); len(last.Items) != 1 || last.Items[0].ID != 9 || last.NextCursor != nil {
		t.Errorf("%+v", last)
	}
	for query, want := range map[string]string{"limit=0": "bad_limit", "limit=x": "bad_limit", "cursor=x": "bad_cursor", "cursor=-1": "bad_cursor"} {
		if a := s.admin(t, http.MethodGet, "/api/admin/runs/"+b.RunID+"/servers?"+query); a.status != http.StatusBadRequest || a.body.Error.Code != want {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
}

// An operator's wish that does nothing for now says why.
func TestBulkSaysWhyAWishWaits(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.listed(t)
	s.exec(t, `INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (5, 'Small', 1000)`)
	for _, test := range []struct{ action, effect, outcome, want string }{
		{"set-package", "none", "", "9001: ; 9003: bills it by a record of its own; 9004: should it come back; 9005: no account; 9006: it is new"},
		{"billing-off", "", "unchanged", "9001: ; 9003: bills it by a record of its own; 9004: should it come back; 9005: no account; 9006: it is new"},
		{"billing-off", "", "updated", "9001: ; 9003: ; 9004: ; 9005: ; 9006: "},
		{"resync", "", "unchanged", "9001: ; 9003: ; 9004: ; 9005: ; 9006: "},
		{"clear", "", "unchanged", "9001: ; 9003: ; 9004: ; 9005: ; 9006: "},
	} {
		s.syncs.begun = func(r *db.Run) {
			s.exec(t, `UPDATE serversync.run_items SET state = 'done', outcome = nullif(?, ''), effect = nullif(?, '') WHERE run_id = ?`, test.outcome, test.effect, r.ID)
			s.exec(t, `UPDATE serversync.runs SET state = 'succeeded' WHERE id = ?`, r.ID)
		}
		packageID := ""
		if test.action == "set-package" {
			packageID = `, "packageId": 5`
		}
		b := data[api.Bulk](t, s.put(t, "/api/admin/servers/bulk", `{"ids": [9001, 9003, 9004, 9005, 9006], "action": "`+test.action+`"`+packageID+`}`))
		page := data[api.RunServers](t, s.admin(t, http.MethodGet, "/api/admin/runs/"+b.RunID+"/servers"))
		if !slices.Equal(b.Results, page.Items) {
			t.Errorf("%s: the page of the run says %+v, the answer %+v", test.action, page.Items, b.Results)
		}
		for i, want := range strings.Split(test.want, "; ") {
			id, words, _ := strings.Cut(want, ": ")
			if r := b.Results[i]; strconv.FormatInt(r.ID, 10) != id || !strings.Contains(r.Note, words) || (words == "") != (r.Note == "") {
				t.Errorf("%s %s%s: %+v, want %q", test.action, test.outcome, test.effect, r, want)
			}
		}
	}
}

func TestBulkDryRunTellsTheEffects(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.syncs.begun = func(r *db.Run) {
		if !r.DryRun {
			t.Error("no dry run was begun")
		}
		s.exec(t, `UPDATE serversync.run_items SET state = 'done', effect = 'end' WHERE run_id = ?`, r.ID)
		s.exec(t, `UPDATE serversync.runs SET state = 'succeeded', preview = '{"end": 1}' WHERE id = ?`, r.ID)
	}
	a := s.put(t, "/api/admin/servers/bulk", `{"ids": [7], "action": "ignore", "dryRun": true}`)
	if b := data[api.Bulk](t, a); !b.DryRun || b.Results[0].Result != "end" || b.Preview == nil || b.Preview.End != 1 || !strings.Contains(a.body.Message, "nothing was changed") {
		t.Errorf("%s", a.raw)
	}
}

func TestBulkThatGoesOn(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a := s.put(t, "/api/admin/servers/bulk", `{"ids": [7], "action": "resync"}`)
	if r := dataOf[api.Run](t, a, http.StatusAccepted); r.Kind != "bulk" || r.State != "running" || a.header.Get("Location") != "/api/admin/runs/"+r.ID {
		t.Errorf("%s", a.raw)
	}
}

func TestBulkRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.syncs.begun = func(*db.Run) { t.Error("a run was begun") }
	many := strings.TrimSuffix(strings.Repeat("7,", 10_001), ",")
	for _, test := range []struct{ body, want string }{
		{``, "400 bad_action"},
		{`{"ids": [7]}`, "400 bad_action"},
		{`{"ids": [7], "action": "delete"}`, "400 bad_action"},
		{`{"ids": [7], "action": 7}`, "400 bad_action"},
		{`{"action": "resync"}`, "400 bad_ids"},
		{`{"ids": [], "action": "resync"}`, "400 bad_ids"},
		{`{"ids": [0], "action": "resync"}`, "400 bad_ids"},
		{`{"ids": [-1], "action": "resync"}`, "400 bad_ids"},
		{`{"ids": ["7"], "action": "resync"}`, "400 bad_ids"},
		{`{"ids": [7.5], "action": "resync"}`, "400 bad_ids"},
		{`{"ids": [99999999999999999999], "action": "resync"}`, "400 bad_ids"},
		{`{"ids": [` + many + `], "action": "resync"}`, "400 too_many_servers"},
		{`{"ids": [7], "filter": {}, "action": "resync"}`, "400 bad_ids"},
		{`{"filter": 7, "action": "resync"}`, "400 bad_filter"},
		{`{"filter": {}, "action": "resync"}`, "400 bad_filter"},
		{`{"filter": {"user": [7]}, "action": "resync"}`, "400 bad_filter"},
		{`{"filter": {"colour": "red"}, "action": "resync"}`, "400 unknown_parameter"},
		{`{"filter": {"sort": "name"}, "action": "resync"}`, "400 unknown_parameter"},
		{`{"filter": {"status": "dead"}, "action": "resync"}`, "400 bad_status"},
		{`{"filter": {"id": "7,x"}, "action": "resync"}`, "400 bad_id"},
		{`{"filter": {"id": ""}, "action": "resync"}`, "400 bad_filter"},
		{`{"filter": {"id": [7]}, "action": "resync"}`, "400 bad_filter"},
		{`{"filter": {"q": "no such server"}, "action": "resync"}`, "400 nothing_selected"},
		{`{"ids": [7], "action": "set-package"}`, "400 bad_package_id"},
		{`{"ids": [7], "action": "set-package", "packageId": 0}`, "400 bad_package_id"},
		{`{"ids": [7], "action": "set-package", "packageId": "5"}`, "400 bad_package_id"},
		{`{"ids": [7], "action": "set-package", "packageId": 5000}`, "400 unknown_package"},
		{`{"ids": [7], "action": "ignore", "packageId": 5}`, "400 bad_package_id"},
		{`{"ids": [7], "action": "ignore", "reason": "a\nb"}`, "400 bad_reason"},
		{`{"ids": [7], "action": "ignore", "reason": "a\u0000b"}`, "400 bad_reason"},
		{`{"ids": [7], "action": "ignore", "reason": "` + strings.Repeat("ä", 1001) + `"}`, "400 bad_reason"},
		{`{"ids": [7], "action": "ignore", "dryRun": 1}`, "400 bad_dry_run"},
		{`{"ids": [7], "action": "ignore", "dryRun": null}`, "400 bad_dry_run"}, // a script whose variable is empty
		{`{"ids": [7], "action": "ignore", "userId": 1}`, "400 unknown_field"},
		{`{"ids": [7]`, "400 invalid_json"},
		{`"` + strings.Repeat("7", 1<<20) + `"`, "413 too_large"},
	} {
		a := s.put(t, "/api/admin/servers/bulk", test.body)
		if got := fmt.Sprint(a.status, " ", a.body.Error.Code); got != test.want {
			t.Errorf("%.60s: %s, want %s: %.300s", test.body, got, test.want, a.raw)
		}
	}
}

func TestBulkTakesTheFiltersOfTheList(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.listed(t)
	for filter, query := range map[string]string{
		`{"user": 41}`: "user=41", `{"status": "all", "billing": "off"}`: "status=all&billing=off", `{"billing": "on"}`: "billing=on",
		`{"id": 9001}`: "id=9001", `{"id": "9003,9001,9004"}`: "id=9001,9003",
	} {
		var want []int64
		for _, server := range data[struct{ Items []struct{ ID int64 } }](t, s.admin(t, http.MethodGet, "/api/admin/servers?sort=id&limit=200&"+query)).Items {
			want = append(want, server.ID)
		}
		r := dataOf[api.Run](t, s.put(t, "/api/admin/servers/bulk", `{"filter": `+filter+`, "action": "resync"}`), http.StatusAccepted)
		var got []int64
		for _, server := range data[api.RunServers](t, s.admin(t, http.MethodGet, "/api/admin/runs/"+r.ID+"/servers")).Items {
			got = append(got, server.ID)
		}
		slices.Sort(want)
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%s selected %v, want %v", filter, got, want)
		}
	}
}

func TestABulkActionIsJSON(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for kind, want := range map[string]int{
		"": http.StatusUnsupportedMediaType, "text/plain": http.StatusUnsupportedMediaType, "application/x-www-form-urlencoded": http.StatusUnsupportedMediaType,
		"application/json; charset=utf-8": http.StatusBadRequest, // it has no ids
	} {
		if got := s.bulkAs(t, kind); got != want {
			t.Errorf("Content-Type %q: %d, want %d", kind, got, want)
		}
	}
}

// bulkAs sends a bulk action as a content of some kind, and returns the status.
func (s *system) bulkAs(t *testing.T, kind string) int {
	t.Helper()
	const path = "/api/admin/servers/bulk"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader(`{"ids": [], "action": "resync"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = headers("Authorization", "Bearer "+testToken)
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	openapitest.Check(t, s.doc, http.MethodPost, path, response, raw)
	s.seen[http.MethodPost+" "+path+" "+strconv.Itoa(response.StatusCode)] = true
	return response.StatusCode
}

// A route's other methods are named, also in groups that ask who calls.
func TestOtherMethodsOfTheAPI(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for request, allowed := range map[string]string{
		"PUT /api/admin/servers/bulk": "OPTIONS, POST", "DELETE /api/admin/runs/some": "OPTIONS, GET", "POST /api/admin/servers/7/timeline": "OPTIONS, GET",
	} {
		method, path, _ := strings.Cut(request, " ")
		got := s.undescribed(t, method, path)
		if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != allowed {
			t.Errorf("%s: %d, Allow %q, want 405 with %q", request, got.status, got.header.Get("Allow"), allowed)
		}
	}
	if got := s.admin(t, http.MethodGet, "/api/admin/nothing"); got.status != http.StatusNotFound {
		t.Errorf("an unknown path: %d", got.status)
	}
}

// undescribed sends a request that the document does not describe, with the
// admin token.
func (s *system) undescribed(t *testing.T, method, path string) answer {
	t.Helper()
	described := s.doc
	s.doc = &openapi3.T{Paths: openapi3.NewPaths()}
	defer func() { s.doc = described }()
	return s.admin(t, method, path)
}
