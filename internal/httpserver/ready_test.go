package httpserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"serversync/internal/httpserver"
)

func usable(context.Context) error { return nil }

func unusable(context.Context) error {
	return errors.New("connect postgres://sky:hunter2@db:5432/sky password=hunter2: refused")
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	all := []string{"ingest", "api", "reconcile", "sweep"}
	check := func(name string, probe func(context.Context) error, roles ...string) httpserver.Check {
		return httpserver.Check{Name: name, Roles: roles, Probe: probe}
	}
	tests := []struct {
		name   string
		roles  []string
		checks []httpserver.Check
		query  string
		status int
		code   string
		shown  string // names with ok, joined
	}{
		{"no dependencies", all, nil, "", http.StatusOK, "", ""},
		{"all usable", all, []httpserver.Check{check("nats", usable), check("postgres", usable, "api")}, "", http.StatusOK, "", "nats=true postgres=true"},
		{"one unusable", all, []httpserver.Check{check("nats", usable), check("postgres", unusable, "api")}, "", http.StatusServiceUnavailable, "not_ready", "nats=true postgres=false"},
		{"unusable, needed by a role that is not run", []string{"ingest"}, []httpserver.Check{check("nats", usable), check("postgres", unusable, "api")}, "", http.StatusOK, "", "nats=true postgres=false"},
		{"one role alone", all, []httpserver.Check{check("nats", usable, "ingest"), check("postgres", unusable, "api")}, "?role=ingest", http.StatusOK, "", "nats=true"},
		{"one role alone, unusable", all, []httpserver.Check{check("nats", unusable, "ingest"), check("postgres", usable, "api")}, "?role=ingest", http.StatusServiceUnavailable, "not_ready", "nats=false"},
		{"role of another process", []string{"ingest"}, nil, "?role=api", http.StatusServiceUnavailable, "role_not_running", ""},
		{"unknown role", all, nil, "?role=root", http.StatusBadRequest, "unknown_role", ""},
		{"empty role", all, nil, "?role=", http.StatusBadRequest, "unknown_role", ""},
		{"panics", all, []httpserver.Check{check("nats", func(context.Context) error { panic("x") })}, "", http.StatusServiceUnavailable, "not_ready", "nats=false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, logged := setup(t, httpserver.Config{Roles: tt.roles, KnownRoles: all, Checks: tt.checks})
			got := request(t, http.MethodGet, serve(t, s)+"/readyz"+tt.query, nil)
			if got.status != tt.status {
				t.Errorf("status %d, want %d: %s", got.status, tt.status, got.body)
			}
			if tt.code != "" && got.errorCode(t) != tt.code {
				t.Errorf("body %s, want code %q", got.body, tt.code)
			}
			if shown := shownChecks(t, got.body); shown != tt.shown {
				t.Errorf("checks %q, want %q", shown, tt.shown)
			}
			if strings.Contains(got.body+logged.String(), "hunter2") {
				t.Errorf("a password is in the answer or the log:\n%s\n%s", got.body, logged)
			}
		})
	}
}

// shownChecks writes the checks of an answer as "name=ok …".
func shownChecks(t *testing.T, body string) string {
	t.Helper()
	var ready struct {
		Data map[string]struct {
			OK    bool
			Error string
		}
	}
	if err := json.Unmarshal([]byte(body), &ready); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	var shown []string
	for _, name := range slices.Sorted(maps.Keys(ready.Data)) {
		check := ready.Data[name]
		if check.OK != (check.Error == "") {
			t.Errorf("%s: ok %t with error %q", name, check.OK, check.Error)
		}
		if check.OK {
			shown = append(shown, name+"=true")
		} else {
			shown = append(shown, name+"=false")
		}
	}
	return strings.Join(shown, " ")
}

// A dependency that hangs costs each question the timeout and nothing more:
// its check does not pile up, and the others are still shown.
func TestReadinessWithACheckThatHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	var started atomic.Int32
	s, _ := setup(t, httpserver.Config{
		ProbeTimeout: 500 * time.Millisecond,
		Checks: []httpserver.Check{
			{Name: "stuck", Probe: func(context.Context) error { started.Add(1); <-release; return nil }},
			{Name: "fine", Probe: usable},
		},
	})
	url := serve(t, s)
	var asked sync.WaitGroup
	for range 20 {
		asked.Go(func() {
			got := request(t, http.MethodGet, url+"/readyz", nil)
			if got.status != http.StatusServiceUnavailable || shownChecks(t, got.body) != "fine=true stuck=false" {
				t.Errorf("GET /readyz = %d %s", got.status, got.body)
			}
		})
	}
	asked.Wait()
	if n := started.Load(); n != 1 {
		t.Errorf("the check ran %d times at once", n)
	}
}

func TestReadinessLogsTransitionsOnly(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	s, logged := setup(t, httpserver.Config{Checks: []httpserver.Check{{Name: "nats", Probe: func(context.Context) error {
		if down.Load() {
			return errors.New("gone")
		}
		return nil
	}}}})
	url := serve(t, s)
	for _, d := range []bool{false, true, true, true, false, false} {
		down.Store(d)
		request(t, http.MethodGet, url+"/readyz", nil)
	}
	text := logged.String()
	if strings.Count(text, "dependency not usable") != 1 || strings.Count(text, "dependency usable again") != 1 {
		t.Errorf("want one line for each change:\n%s", text)
	}
}

func TestNewRefusesBadChecks(t *testing.T) {
	t.Parallel()
	for name, checks := range map[string][]httpserver.Check{
		"no name":   {{Probe: usable}},
		"no probe":  {{Name: "nats"}},
		"same name": {{Name: "nats", Probe: usable}, {Name: "nats", Probe: usable}},
	} {
		if _, err := httpserver.New(httpserver.Config{Checks: checks}); err == nil {
			t.Errorf("%s: New = nil error", name)
		}
	}
}
