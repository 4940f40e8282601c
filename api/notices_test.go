package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
)

// addNotices adds three: one that nobody was told of, one told by one channel and
// failing by another, and one that was given up.
func (s *system) addNotices(t *testing.T) {
	t.Helper()
	s.exec(t, `
		INSERT INTO serversync.notices (subject, kind, severity, title, message, server_id, run_id, at) VALUES
			('a', 'conflict', 'warning', 'Server 7: the evidence disagrees', 'why', 7, NULL, ?0),
			('b', 'finding', 'critical', 'The watchdog: coverage_gap', 'VirtFusion counts more', NULL, NULL, ?0),
			('c', 'approval', 'warning', 'A sweep waits for approval', 'too much', NULL, 'waits', ?0);
		INSERT INTO serversync.notice_messages (id, channel, made_at, attempts, next_at, error, delivered_at) VALUES
			('m1', 'email', ?0, 2, ?1, 'connection refused', NULL), ('m2', 'skypanel', ?0, 1, ?0, '', ?0), ('m3', 'webhook', ?2, 9, ?0, 'status 500', NULL), ('m4', 'webhook', ?0, 0, ?0, '', NULL);
		INSERT INTO serversync.notice_deliveries (notice_id, channel, message_id)
			SELECT n.id, v.channel, v.message FROM (VALUES ('b', 'email', 'm1'), ('b', 'skypanel', 'm2'), ('c', 'webhook', 'm3'), ('b', 'webhook', 'm4')) v (subject, channel, message)
			JOIN serversync.notices n USING (subject)`, noon(), noon().Add(time.Minute), noon().Add(-72*time.Hour))
}

func TestNotices(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const path = "/api/admin/notices"
	if page := data[api.Page[api.Notice]](t, s.admin(t, http.MethodGet, path)); len(page.Items) != 0 || page.NextCursor != nil {
		t.Errorf("%+v", page)
	}
	s.addNotices(t)
	page := data[api.Page[api.Notice]](t, s.admin(t, http.MethodGet, path+"?limit=2"))
	if len(page.Items) != 2 || page.Items[0].Kind != "approval" || *page.Items[0].RunID != "waits" || page.NextCursor == nil {
		t.Fatalf("%+v", page)
	}
	if d := page.Items[0].Deliveries; len(d) != 1 || d[0].State != "given_up" || d[0].NextAt != nil || *d[0].Error != "status 500" {
		t.Errorf("%+v", d)
	}
	var states []string
	for _, d := range page.Items[1].Deliveries {
		states = append(states, d.Channel+" "+d.State)
	}
	if got := strings.Join(states, ", "); got != "email failing, skypanel delivered, webhook waiting" || page.Items[1].Deliveries[0].Attempts != 2 || page.Items[1].Deliveries[0].NextAt == nil {
		t.Errorf("%s: %+v", got, page.Items[1])
	}
	rest := data[api.Page[api.Notice]](t, s.admin(t, http.MethodGet, path+"?limit=2&cursor="+*page.NextCursor))
	if len(rest.Items) != 1 || *rest.Items[0].ServerID != 7 || rest.Items[0].RunID != nil || len(rest.Items[0].Deliveries) != 0 || rest.NextCursor != nil {
		t.Errorf("%+v", rest)
	}
	failed := data[api.Page[api.Notice]](t, s.admin(t, http.MethodGet, path+"?undelivered=true"))
	if len(failed.Items) != 2 || failed.Items[0].Kind != "approval" || failed.Items[1].Kind != "finding" {
		t.Errorf("%+v", failed)
	}
	for query, code := range map[string]string{"limit=x": "bad_limit", "cursor=0": "bad_cursor", "undelivered=x": "bad_undelivered", "of=7": "unknown_parameter"} {
		if a := s.admin(t, http.MethodGet, path+"?"+query); a.status != http.StatusBadRequest || a.body.Error.Code != code {
			t.Errorf("%s: %d %s", query, a.status, a.raw)
		}
	}
}
