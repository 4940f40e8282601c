package httpserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/rs/zerolog"
)

// Check asks one dependency whether it is usable.
type Check struct {
	// Name as /readyz shows it: "nats", "postgres".
	Name string
	// Roles that need the dependency. Empty: all of them.
	Roles []string
	// Probe returns nil when the dependency is usable. It is given a deadline;
	// it never runs twice at once, however many ask.
	Probe func(ctx context.Context) error
}

func (c Check) neededBy(roles []string) bool {
	if len(c.Roles) == 0 {
		return true
	}
	return slices.ContainsFunc(c.Roles, func(r string) bool { return slices.Contains(roles, r) })
}

// checkResult is one dependency in the answer of /readyz.
type checkResult struct {
	OK       bool   `json:"ok"`
	Required bool   `json:"required"` // by the roles that were asked for
	Error    string `json:"error,omitempty"`
}

// readyBody is the answer of /readyz.
type readyBody struct {
	Success bool                   `json:"success"`
	Data    map[string]checkResult `json:"data"`
	Error   *ErrorDetail           `json:"error,omitempty"`
}

// readiness answers for the roles of this process, or for the one that is
// asked for, whose checks alone are then run.
func (s *Server) readiness(c echo.Context) error {
	roles, probes := s.cfg.Roles, s.probes
	if c.QueryParams().Has("role") {
		role := c.QueryParam("role")
		if !slices.Contains(s.cfg.KnownRoles, role) {
			return &StatusError{Status: http.StatusBadRequest, Code: "unknown_role", Message: "there is no such role"}
		}
		if !slices.Contains(s.cfg.Roles, role) {
			return &StatusError{
				Status: http.StatusServiceUnavailable, Code: "role_not_running",
				Message: "this process does not run that role",
			}
		}
		roles = []string{role}
		probes = slices.DeleteFunc(slices.Clone(probes), func(p *probe) bool { return !p.neededBy(roles) })
	}

	body := readyBody{Success: true, Data: askAll(c.Request().Context(), probes, roles)}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	for _, result := range body.Data {
		if result.Required && !result.OK {
			body.Success = false
			body.Error = &ErrorDetail{Code: "not_ready", Message: "a dependency is not usable; data says which"}
			return c.JSON(http.StatusServiceUnavailable, body)
		}
	}
	return c.JSON(http.StatusOK, body)
}

func askAll(ctx context.Context, probes []*probe, roles []string) map[string]checkResult {
	results := make([]checkResult, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() {
			results[i] = checkResult{OK: true, Required: p.neededBy(roles)}
			if err := p.ask(ctx); err != nil {
				results[i].OK, results[i].Error = false, publicReason(err)
			}
		})
	}
	wg.Wait()
	data := make(map[string]checkResult, len(probes))
	for i, p := range probes {
		data[p.Name] = results[i]
	}
	return data
}

// probe runs a check, once at a time: those who ask while it runs share the
// answer, so that neither a flood of questions nor a dependency that hangs
// piles up work.
type probe struct {
	Check
	timeout time.Duration
	log     zerolog.Logger

	mu     sync.Mutex
	flight *flight // the run under way, or nil
	failed bool    // how the last one ended
}

type flight struct {
	done chan struct{}
	err  error // readable once done is closed
}

func newProbes(checks []Check, timeout time.Duration, log zerolog.Logger) ([]*probe, error) {
	probes := make([]*probe, 0, len(checks))
	for _, c := range checks {
		if c.Name == "" || c.Probe == nil {
			return nil, fmt.Errorf("readiness check %q: a name and a probe are needed", c.Name)
		}
		if slices.ContainsFunc(probes, func(p *probe) bool { return p.Name == c.Name }) {
			return nil, fmt.Errorf("readiness check %q: the name is taken", c.Name)
		}
		probes = append(probes, &probe{Check: c, timeout: timeout, log: log})
	}
	return probes, nil
}

// ask waits for the answer of the run under way, or of a new one, for at most
// the probe's timeout.
func (p *probe) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	p.mu.Lock()
	f := p.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		p.flight = f
		go p.run(context.WithoutCancel(ctx), f)
	}
	p.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *probe) run(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	f.err = p.probe(ctx)
	p.mu.Lock()
	changed := p.failed != (f.err != nil)
	p.failed = f.err != nil
	p.flight = nil
	p.mu.Unlock()
	defer close(f.done) // who was answered finds it in the log
	switch {
	case !changed:
	case f.err != nil:
		p.log.Warn().Str("dependency", p.Name).Str("error", bounded(redact(f.err.Error()), maxLoggedText)).Msg("dependency not usable")
	default:
		p.log.Info().Str("dependency", p.Name).Msg("dependency usable again")
	}
}

func (p *probe) probe(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("check of %s panicked: %v", p.Name, v)
		}
	}()
	return p.Probe(ctx)
}
