package api_test

import (
	"net/http"
	"testing"

	"serversync/api"
)

func TestDoctorShowsEveryCheck(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a := s.admin(t, http.MethodGet, "/api/admin/doctor")
	if a.status != http.StatusOK {
		t.Fatalf("status %d", a.status)
	}
	d := data[api.Doctor](t, a)
	if d.OK || len(d.Checks) != 2 || d.Checks[0].Check != "tea" || d.Checks[1].Remedy != "buy some" {
		t.Errorf("%+v", d)
	}
}
