package api_test

import (
	"net/http"
	"testing"
)

// TestADryRunThatIsMisspeltDoesNotRun: what changes something refuses options
// that it does not know, wherever they stand.
func TestADryRunThatIsMisspeltDoesNotRun(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	header := http.Header{"Authorization": {"Bearer " + testToken}, "Content-Type": {"application/json"}}
	for _, c := range []struct{ path, body, code string }{
		{"/api/admin/cleanup?dry_run=true", "", "unknown_parameter"},
		{"/api/admin/cleanup?dryRun=true&dryRun=false", "", "repeated_parameter"},
		{"/api/admin/cleanup", `{"dryRun": true}`, "unexpected_body"},
		{"/api/admin/servers/sync?x=1", "", "unknown_parameter"},
		{"/api/admin/servers/sync", `{"dryRun": true}`, "unexpected_body"},
		{"/api/admin/users/41/servers/sync?dry_run=true", "", "unknown_parameter"},
		{"/api/admin/users/41/servers/replay?dry=true", "{}", "unknown_parameter"},
		{"/api/admin/servers/bulk?dry_run=true", `{"ids": [7], "action": "billing-off"}`, "unknown_parameter"},
		{"/api/admin/servers/bulk", `{"filter": {"user": ""}, "action": "billing-off"}`, "bad_filter"},
		{"/api/admin/servers/bulk", `{"filter": {"status": "external", "q": ""}, "action": "billing-off"}`, "bad_filter"},
	} {
		if got := s.send(t, http.MethodPost, c.path, header, c.body); got.status != http.StatusBadRequest || got.body.Error.Code != c.code {
			t.Errorf("%s %s: %d %s, want %s", c.path, c.body, got.status, got.raw, c.code)
		}
	}
	if len(s.books.redecided) > 0 {
		t.Error("it was carried out")
	}
	if got := s.send(t, http.MethodPost, "/api/admin/cleanup?dryRun=true", header, "{}"); got.status != http.StatusOK {
		t.Errorf("a dry run with an empty body: %d %s", got.status, got.raw)
	}
}
