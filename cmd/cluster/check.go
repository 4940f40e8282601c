//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"serversync/cmd/internal/siege"
	"serversync/db"
	"serversync/events"
)

// errFound says that the report has findings.
var errFound = errors.New("what was answered 202 is not in the books exactly once, or something was not told as it was: see above")

// check leaves everybody in peace until the books are in step, and then compares
// them, and the stream, with what was answered.
func (m *machines) check(ctx context.Context) error {
	calm := time.Now()
	accepted := m.world.Accepted()
	m.report.lost = siege.Drained(ctx, m.database, accepted)
	m.report.inStep = time.Since(calm)
	var err error
	if m.report.servers, m.report.rows, err = siege.Count(ctx, m.database); err != nil {
		return err
	}
	if err := m.checkReplays(ctx); err != nil {
		return err
	}
	if err := m.drained(ctx); err != nil {
		m.report.lost = append(m.report.lost, err.Error())
	}
	if m.report.doubled, err = siege.Doubled(ctx, m.database); err != nil {
		return err
	}
	unstored, err := siege.Stored(ctx, m.broker.js, accepted)
	if err != nil {
		return err
	}
	m.report.lost = append(m.report.lost, unstored...)
	m.checkMetrics(ctx)
	if err := m.checkSweeps(ctx); err != nil {
		return err
	}
	for i := range m.heard {
		if m.report.heard[i] = m.heard[i].Load(); m.report.heard[i] == 0 {
			m.untrue("nothing that happened was announced by way of %s", m.broker.nodes[i].Name)
		}
	}
	m.checkPermissions()
	m.report.checked = true
	if len(m.report.lost)+len(m.report.doubled)+len(m.report.untruths) > 0 {
		return errFound
	}
	return nil
}

// drained waits until the consumer has nothing left to deliver or in hand.
func (m *machines) drained(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		depth, err := events.QueueDepth(ctx, m.broker.js)
		if err == nil && depth == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("%d events still wait for the reconciler", depth), err)
		}
		siege.Pause(ctx, 100*time.Millisecond)
	}
}

// checkMetrics looks whether each reconciler knows that nothing is left undone.
func (m *machines) checkMetrics(ctx context.Context) {
	for _, s := range m.services {
		status, body := siege.Ask(ctx, m.client, "http://"+s.addr+"/metrics")
		if status != http.StatusOK {
			m.untrue("%s shows no metrics: %d", s.Name, status)
		} else if s.role == "reconcile" && !strings.Contains(string(body), "\nserversync_dead_letters 0\n") {
			m.untrue("%s does not show that there are no dead letters", s.Name)
		}
	}
}

// checkSweeps looks whether two sweeps ever ran side by side.
func (m *machines) checkSweeps(ctx context.Context) error {
	var overlaps int
	err := m.database.NewRaw(`SELECT (SELECT count(*) FROM serversync.runs WHERE kind = 'sweep'),
		(SELECT count(*) FROM serversync.runs a JOIN serversync.runs b ON a.kind = 'sweep' AND b.kind = 'sweep' AND a.id <> b.id
			AND b.started_at > a.started_at AND b.started_at < a.ended_at)`).Scan(ctx, &m.report.sweeps, &overlaps)
	if err != nil {
		return fmt.Errorf("look at the sweeps: %w", err)
	}
	if overlaps > 0 {
		m.untrue("%d sweeps began while another was under way", overlaps)
	}
	return nil
}

// replay has an api process replay what was heard of some customer's servers, and
// returns the run; empty: it does not answer.
func (m *machines) replay(ctx context.Context, s *service) (runID string) {
	var user int64
	err := m.database.NewRaw(`SELECT user_id FROM serversync.servers WHERE user_id IS NOT NULL ORDER BY last_seen_at DESC NULLS LAST LIMIT 1`).Scan(ctx, &user)
	if err != nil {
		return ""
	}
	ask, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ask, http.MethodPost,
		fmt.Sprintf("http://%s/api/admin/users/%d/servers/replay", s.addr, user), http.NoBody)
	if err != nil {
		return ""
	}
	request.Header.Set("Authorization", "Bearer "+adminToken)
	response, err := m.client.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if response.StatusCode != http.StatusAccepted || json.NewDecoder(response.Body).Decode(&answer) != nil {
		return ""
	}
	return answer.Data.ID
}

// checkReplays has each api process replay once in peace, and looks how those
// ended that were begun among the faults: one whose process was killed is
// incomplete, none may have failed.
func (m *machines) checkReplays(ctx context.Context) error {
	for _, s := range m.services {
		if s.role != "api" {
			continue
		}
		run := m.replay(ctx, s)
		var state, problems string
		err := m.until(ctx, s.Name+" ended its replay", func() bool {
			err := m.database.NewRaw(`SELECT state, problems::text FROM serversync.runs WHERE id = ?`, run).Scan(ctx, &state, &problems)
			return err == nil && state != db.RunRunning
		})
		if err != nil {
			return err
		}
		if state != db.RunSucceeded {
			m.untrue("a replay in peace, by %s, ended as %s: %s", s.Name, state, problems)
		}
	}
	var failed []string
	err := m.database.NewRaw(`SELECT format('%s %s: %s', kind, id, problems) FROM serversync.runs WHERE state = 'failed'`).Scan(ctx, &failed)
	if err != nil {
		return fmt.Errorf("look at the runs: %w", err)
	}
	for _, f := range failed {
		m.untrue("a run failed, which ought to have waited: %s", f)
	}
	if err := m.database.NewRaw(`SELECT count(*) FROM serversync.runs WHERE kind = 'replay'`).Scan(ctx, &m.report.replays); err != nil {
		return fmt.Errorf("count the replays: %w", err)
	}
	return nil
}

// watchLead looks who leads the sweeps, until ctx ends.
func (m *machines) watchLead(ctx context.Context) {
	var last string
	for ctx.Err() == nil {
		var holders []string
		look, cancel := context.WithTimeout(ctx, time.Second)
		err := m.database.NewRaw(`SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = ?`, leadLock).Scan(look, &holders)
		cancel()
		switch {
		case err != nil: // PostgreSQL is away: nobody leads
		case len(holders) > 1:
			m.untrue("%v lead the sweeps at once", holders)
		case len(holders) == 1 && holders[0] != last:
			if last != "" {
				m.report.leads++
			}
			last = holders[0]
		}
		siege.Pause(ctx, 250*time.Millisecond)
	}
}

// leadLock is db's lock of whoever sweeps.
const leadLock = int64(0x7377656570)

// checkPermissions looks whether anybody said or wanted to hear what docs/scale-out.md
// does not let it.
func (m *machines) checkPermissions() {
	for _, n := range m.broker.nodes {
		log, err := os.ReadFile(n.LogPath())
		if err != nil {
			m.untrue("the log of %s cannot be read: %v", n.Name, err)
			continue
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "Violation") {
				m.untrue("%s refused somebody: %s", n.Name, strings.TrimSpace(line))
			}
		}
	}
}

// untrue notes what should not have been said.
func (m *machines) untrue(format string, args ...any) {
	m.notes.Lock()
	defer m.notes.Unlock()
	m.report.untruths = append(m.report.untruths, fmt.Sprintf(format, args...))
}
