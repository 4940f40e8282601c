package api_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"

	"serversync/api"
	"serversync/db"
)

// addCharge adds a first charge of server 7's, and returns its id.
func (s *system) addCharge(t *testing.T, state db.ChargeState, reason string) (id int64) {
	t.Helper()
	err := s.db.QueryRowContext(t.Context(), `
		INSERT INTO serversync.charges (transaction_id, billing_id, virtfusion_id, user_id, owner_id, tokens, reference, state, reason, attempts, created_at, due_at, taking_at)
		VALUES (501, 70, 7, 41, 70, 2, 'serversync-x-501', ?, ?, 1, ?, ?, ?) RETURNING id`, string(state), reason, noon(), noon(), noon()).Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestListCharges(t *testing.T) {
	t.Parallel()
	s := setup(t)
	if page := data[api.Page[api.FirstCharge]](t, s.admin(t, http.MethodGet, "/api/admin/charges")); len(page.Items) != 0 || page.NextCursor != nil {
		t.Errorf("%+v", page)
	}
	var ids []int64
	for _, state := range []db.ChargeState{db.ChargeUnclear, db.ChargeTaken, db.ChargeUnclear} {
		ids = append(ids, s.addCharge(t, state, "VirtFusion said nothing"))
	}
	page := data[api.Page[api.FirstCharge]](t, s.admin(t, http.MethodGet, "/api/admin/charges?state=unclear&limit=1"))
	if len(page.Items) != 1 || page.Items[0].ID != ids[2] || page.NextCursor == nil {
		t.Fatalf("%+v", page)
	}
	c := page.Items[0]
	const todo = `look in VirtFusion at the credit of user 41 for 2 tokens (0.02) with reference_1 501, reference_2 "serversync-x-501"; then POST /api/admin/charges/3/resolve {"taken": true} or {"taken": false}`
	if c.Todo == nil || *c.Todo != todo || c.Reason == nil || *c.Reason != "VirtFusion said nothing" {
		t.Errorf("%+v, %s", c, *c.Todo)
	}
	page = data[api.Page[api.FirstCharge]](t, s.admin(t, http.MethodGet, "/api/admin/charges?state=unclear&limit=1&cursor="+*page.NextCursor))
	if len(page.Items) != 1 || page.Items[0].ID != ids[0] || page.NextCursor != nil {
		t.Errorf("%+v", page)
	}
	for path, code := range map[string]string{"state=lost": "bad_state", "cursor=x": "bad_cursor", "limit=x": "bad_limit", "of=7": "unknown_parameter"} {
		if a := s.admin(t, http.MethodGet, "/api/admin/charges?"+path); a.status != http.StatusBadRequest || a.body.Error.Code != code {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
	}
}

func TestResolveCharge(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const path = "/api/admin/charges/12/resolve"
	for body, code := range map[string]string{
		``: "taken_missing", `{"taken": null}`: "taken_missing", `{"taken": "yes"}`: "bad_taken", `{"taken": false, "creditId": "9"}`: "bad_credit_id",
		`{"taken": true, "creditId": 9}`: "bad_credit_id", `{"take": true}`: "unknown_field", `[]`: "invalid_json",
	} {
		if a := s.put(t, path, body); a.status != http.StatusBadRequest || a.body.Error.Code != code {
			t.Errorf("%s: %d %s, want %s", body, a.status, a.raw, code)
		}
	}
	if len(s.books.resolved) != 0 {
		t.Fatalf("resolved: %q", s.books.resolved)
	}
	if c := data[api.FirstCharge](t, s.put(t, path, `{"taken": true, "creditId": "9"}`)); c.ID != 12 || c.CreditID == nil || *c.CreditID != "9" || c.Todo != nil {
		t.Errorf("%+v", c)
	}
	if a := s.put(t, path, `{"taken": false}`); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.raw)
	}
	if want := []string{`12 true "9" by admin token`, `12 false "" by admin token`}; !slices.Equal(s.books.resolved, want) {
		t.Errorf("resolved: %q, want %q", s.books.resolved, want)
	}
	for _, c := range []struct {
		state  db.ChargeState
		err    error
		status int
		code   string
	}{
		{"", db.ErrNoCharge, http.StatusNotFound, "charge_not_found"},
		{db.ChargeTaking, db.ErrChargeState, http.StatusConflict, "charge_in_hand"},
		{db.ChargeTaken, db.ErrChargeState, http.StatusConflict, "charge_settled"},
		{"", errors.New("a fault of ours"), http.StatusInternalServerError, "internal"},
	} {
		s.books.resolve = func(int64) (db.FirstCharge, error) { return db.FirstCharge{State: c.state}, c.err }
		if a := s.put(t, path, `{"taken": true}`); a.status != c.status || a.body.Error.Code != c.code {
			t.Errorf("%v: %d %s, want %s", c.err, a.status, a.raw, c.code)
		}
	}
}
