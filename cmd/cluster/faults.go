//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"serversync/cmd/internal/siege"
)

// fault is one way in which something fails. strike returns when its cause has
// ended.
type fault struct {
	name   string
	strike func(ctx context.Context) error
}

// faults are those that there are; the first ones are those of the short form.
func (m *machines) faults() []fault {
	return []fault{
		{"SIGKILL the stream's leader", func(ctx context.Context) error { return m.killLeader(ctx, false) }},
		{"SIGKILL PostgreSQL", m.killPostgreSQL},
		{"SIGKILL ingest", m.kill("ingest")},
		{"the stream's leader steps down", func(ctx context.Context) error { return m.stepDown(ctx, false) }},
		{"SIGKILL reconcile", m.kill("reconcile")},
		{"the consumer's leader steps down", func(ctx context.Context) error { return m.stepDown(ctx, true) }},
		{"SIGKILL api, which leads the sweeps", m.killLead},
		{"all sessions of PostgreSQL ended", m.endSessions},
		{"a broker's server cut off", func(ctx context.Context) error { return m.cut(ctx, (*node).isolate) }},
		{"a broker's server among clients only", func(ctx context.Context) error { return m.cut(ctx, (*node).islandise) }},
		{"SIGKILL the consumer's leader", func(ctx context.Context) error { return m.killLeader(ctx, true) }},
		{"no majority of the broker", m.noMajority},
		{"SIGKILL any server of the broker", func(context.Context) error {
			m.killNode(m.broker.nodes[m.random.IntN(natsServers)])
			return nil
		}},
		{"reconcile frozen", m.freeze},
		{"everything restarted in turn", m.rolling},
	}
}

// kill kills one of the processes of a role.
func (m *machines) kill(role string) func(context.Context) error {
	return func(ctx context.Context) error {
		which := m.random.IntN(2)
		for _, s := range m.services {
			if s.role != role {
				continue
			}
			if which == 0 {
				s.Kill()
				m.report.kills[role]++
				siege.Pause(ctx, m.moment(1500)) // the other one is alone meanwhile
				return nil
			}
			which--
		}
		return errors.New("there is none")
	}
}

// killLead kills the process that leads the sweeps: another one must take over.
func (m *machines) killLead(ctx context.Context) error {
	before, err := m.awaitLead(ctx, "")
	if err != nil {
		return err
	}
	for _, s := range m.services {
		if s.Name == before {
			s.Kill()
			m.report.kills[s.role]++
		}
	}
	_, err = m.awaitLead(ctx, before)
	return err
}

// awaitLead waits until somebody else than before leads the sweeps.
func (m *machines) awaitLead(ctx context.Context, before string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	for {
		var name string
		err := m.database.NewRaw(`SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = ?`, leadLock).Scan(ctx, &name)
		if err == nil && name != before {
			return name, nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("nobody took the lead of the sweeps from %q: %w", before, errors.Join(err, ctx.Err()))
		}
		siege.Pause(ctx, 100*time.Millisecond)
	}
}

func (m *machines) killNode(n *node) {
	n.Kill()
	m.report.kills["nats"]++
}

// killLeader kills the server that leads the stream, or the consumer, and leaves
// it dead until another one leads.
func (m *machines) killLeader(ctx context.Context, ofConsumer bool) error {
	n, err := m.broker.leader(ctx, ofConsumer)
	if err != nil {
		return err
	}
	m.killNode(n)
	return m.moved(ctx, n, ofConsumer)
}

func (m *machines) stepDown(ctx context.Context, ofConsumer bool) error {
	n, err := m.broker.leader(ctx, ofConsumer)
	if err != nil {
		return err
	}
	if err := m.broker.stepDown(ctx, ofConsumer); err != nil {
		return err
	}
	return m.moved(ctx, n, ofConsumer)
}

// moved waits until another server leads.
func (m *machines) moved(ctx context.Context, from *node, ofConsumer bool) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	for {
		n, err := m.broker.leader(ctx, ofConsumer)
		if err != nil {
			return err
		}
		if n != from {
			m.report.moves++
			return nil
		}
		siege.Pause(ctx, 50*time.Millisecond)
	}
}

// cut cuts a server off for a while, the stream's leader every other time. Until
// it is mended webhooks are taken: each process finds a server that is of use.
func (m *machines) cut(ctx context.Context, how func(*node)) error {
	n := m.broker.nodes[m.random.IntN(natsServers)]
	if m.random.IntN(2) == 0 {
		var err error
		if n, err = m.broker.leader(ctx, false); err != nil {
			return err
		}
	}
	how(n)
	defer n.mend()
	m.report.cuts++
	began := time.Now()
	err := m.until(ctx, "the ingests took webhooks while "+n.Name+" was cut off", func() bool {
		for _, s := range m.services {
			if s.role != "ingest" {
				continue
			}
			if status, _ := m.readyz(ctx, s, "ingest"); status != http.StatusOK {
				return false
			}
		}
		return time.Since(began) > 8*time.Second && m.world.AcceptedSince(time.Now().Add(-time.Second))
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(m.out, "           all ingests were ready without %s after %s\n", n.Name, time.Since(began).Round(100*time.Millisecond))
	return nil
}

// until waits for a condition.
func (m *machines) until(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	for !holds() {
		if ctx.Err() != nil {
			return fmt.Errorf("it did not come to be within %s that %s", recoverTimeout, what)
		}
		siege.Pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// noMajority kills two servers of the broker: no webhook may be answered 202, each
// must be refused in time, and the ingests must say that they are not ready.
func (m *machines) noMajority(ctx context.Context) error {
	spared := m.random.IntN(natsServers)
	for i, n := range m.broker.nodes {
		if i != spared {
			m.killNode(n)
		}
	}
	// What was stored by a majority may be answered for another moment.
	siege.Pause(ctx, 500*time.Millisecond)
	from := time.Now()
	err := m.until(ctx, "the ingests said that they are not ready without a majority", func() bool {
		for _, s := range m.services {
			if s.role != "ingest" {
				continue
			}
			if status, body := m.readyz(ctx, s, "ingest"); status != http.StatusServiceUnavailable || !strings.Contains(body, "broker") {
				return false
			}
		}
		return true
	})
	siege.Pause(ctx, 2*time.Second)
	if m.world.AcceptedSince(from) {
		m.untrue("a webhook was answered 202 without a majority of the broker")
	}
	if m.world.Refused(http.StatusServiceUnavailable) == 0 {
		m.untrue("no webhook was answered 503 without a majority of the broker")
	}
	return err
}

// killPostgreSQL kills it and starts it again after a while. Meanwhile webhooks
// are taken, and /readyz says who misses what.
func (m *machines) killPostgreSQL(ctx context.Context) error {
	pid := siege.Postmaster(m.dir + "/postgres")
	if pid == 0 {
		return errors.New("there is no PostgreSQL to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill PostgreSQL %d: %w", pid, err)
	}
	m.report.kills["postgresql"]++
	<-m.postgres.Done()
	if err := m.postgres.Stop(ctx); err != nil {
		return fmt.Errorf("let the dead PostgreSQL go: %w", err)
	}
	began := time.Now()
	siege.Pause(ctx, time.Second)
	for _, s := range m.services {
		status, body := m.readyz(ctx, s, s.role)
		switch {
		case s.role == "ingest" && status != http.StatusOK:
			m.untrue("without PostgreSQL, %s says that it cannot take webhooks: %d %s", s.Name, status, body)
		case s.role != "ingest" && (status != http.StatusServiceUnavailable || !strings.Contains(body, `"database":{"ok":false`)):
			m.untrue("without PostgreSQL, %s does not say that it misses it: %d %s", s.Name, status, body)
		}
	}
	siege.Pause(ctx, time.Second+m.moment(2000))
	if !m.world.AcceptedSince(began.Add(time.Second)) {
		m.untrue("no webhook was answered 202 without PostgreSQL")
	}
	return m.startPostgreSQL(ctx)
}

// endSessions has PostgreSQL end all sessions but ours.
func (m *machines) endSessions(ctx context.Context) error {
	for range 3 {
		_, err := m.database.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
		if err != nil {
			return fmt.Errorf("end all sessions: %w", err)
		}
		siege.Pause(ctx, m.moment(400))
	}
	return nil
}

// freeze stops a reconciler for longer than the broker waits for its word: its
// events go to the other one, and it wakes up with them in hand.
func (m *machines) freeze(ctx context.Context) error {
	for _, s := range m.services {
		if s.role == "reconcile" {
			s.Signal(syscall.SIGSTOP)
			siege.Pause(ctx, 17*time.Second)
			s.Signal(syscall.SIGCONT)
			return nil
		}
	}
	return errors.New("there is none")
}

// rolling restarts everything, one after the other, as an operator would who
// brings a new version: the next only when the last works again.
func (m *machines) rolling(ctx context.Context) error {
	restart := func(p *siege.Process) error {
		p.Signal(syscall.SIGTERM)
		if err := p.Await(ctx, 30*time.Second); err != nil {
			return err
		}
		_, err := m.recover(ctx, func() bool { return true })
		return err
	}
	for _, n := range m.broker.nodes {
		if err := restart(&n.Process); err != nil {
			return err
		}
	}
	for _, s := range m.services {
		if err := restart(&s.Process); err != nil {
			return err
		}
	}
	return nil
}
