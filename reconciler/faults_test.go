package reconciler

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"serversync/events"
)

// impatient runs n reconcilers that try again after a moment.
func (s *system) impatient(n int) {
	s.t.Helper()
	for range n {
		r := s.reconciler()
		r.retryDelay = func(int) time.Duration { return time.Millisecond }
		s.start(r)
	}
}

// One bad event ends as a dead letter with all that is needed to find out why,
// and nothing else waits for it.
func TestPoisonBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var all []*events.Event
	for id := int64(1); id <= 200; id++ {
		all = append(all, s.news(id))
	}
	s.refuse("137")
	s.publish(all...)
	s.inject("virtfusion.users.0.servers.9.updated", "no JSON")
	s.inject("virtfusion.users.0.servers.9.updated", `{"kind": "updated", "server": {"id": 9}}`)
	s.impatient(2)
	s.drained(0)
	s.want("199", `SELECT count(DISTINCT virtfusion_server_id) FROM virtfusion_hourly_billing`)
	s.want("0", `SELECT count(*) FROM serversync.servers WHERE virtfusion_id = 137`)
	s.want("0", `SELECT count(*) FROM serversync.faults`)

	letters := s.buried()
	if len(letters) != 3 {
		t.Fatalf("%d dead letters, want 3: %+v", len(letters), letters)
	}
	for _, l := range letters {
		e, err := events.Decode(l.Data)
		switch {
		case err != nil && l.Attempts == 1 && l.Subject == "virtfusion.users.0.servers.9.updated" && strings.Contains(l.Reason, "no event"):
		case err == nil && e.Server.ID == 137 && e.ID == l.ID && l.Attempts == maxAttempts && l.Subject == e.Subject() &&
			l.Headers.Get("Nats-Msg-Id") == e.ID && strings.Contains(l.Reason, "refused") &&
			l.FirstAt.Equal(s.clock()) && l.LastAt.Equal(s.clock()) && l.Sequence > 0 && !l.StoredAt.IsZero():
		default:
			t.Errorf("dead letter %+v", l)
		}
	}

	// Once what stood in the way is gone it can be sent again.
	s.exec(`ALTER TABLE serversync.servers DROP CONSTRAINT refused`)
	dead := events.NewDeadLetters(s.JetStream)
	for _, l := range letters {
		if l.Attempts < maxAttempts {
			continue
		}
		if err := dead.Requeue(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.drained(0)
	s.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 137`)
	if n := len(s.buried()); n != 2 {
		t.Errorf("%d dead letters, want 2", n)
	}
}

// A bad event waits its time while the others go through, and what it has
// failed before is remembered when the process is another one.
func TestAttemptsSurviveARestart(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.refuse("2")
	s.publish(s.news(1), s.news(2), s.news(3))
	stop := s.run(1)
	s.drained(1)
	s.until("it is counted", func() bool { return s.text(`SELECT count(*) FROM serversync.faults`) == "1" })
	stop()
	s.want("1,3", `SELECT string_agg(virtfusion_id::text, ',' ORDER BY virtfusion_id) FROM serversync.servers`)
	failed := s.text(`SELECT attempts FROM serversync.faults`)
	s.exec(`UPDATE serversync.faults SET attempts = 4`)
	s.impatient(1)
	s.drained(0)
	if letters := s.buried(); len(letters) != 1 || letters[0].Attempts != maxAttempts {
		t.Errorf("it had failed %s times, dead letters %+v", failed, letters)
	}
}

// What goes through after all leaves no count behind.
func TestWhatHealsIsForgotten(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.refuse("2")
	s.publish(s.news(1), s.news(2))
	s.run(1)
	s.until("it is counted", func() bool { return s.text(`SELECT count(*) FROM serversync.faults`) == "1" })
	s.exec(`ALTER TABLE serversync.servers DROP CONSTRAINT refused`)
	s.drained(0)
	s.want("2", `SELECT count(*) FROM virtfusion_hourly_billing`)
	s.want("0", `SELECT count(*) FROM serversync.faults`)
}

// An event whose rows never hold still is at fault, not the database.
func TestWhatIsAlwaysStaleStandsAlone(t *testing.T) {
	t.Parallel()
	s := setup(t)
	stop := s.run(1)
	s.publish(s.news(1), s.news(2), s.news(3))
	s.drained(0)
	stop()
	s.exec(`CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	s.exec(`CREATE TRIGGER keep BEFORE UPDATE ON virtfusion_hourly_billing FOR EACH ROW WHEN (OLD.virtfusion_server_id = 2) EXECUTE FUNCTION keep()`)
	s.pass(time.Minute)
	s.publish(s.news(1, packaged(large)), s.news(2, packaged(large)), s.news(3, packaged(large)))
	s.impatient(1)
	s.drained(0)
	s.want("1 4, 2 3, 3 4", `SELECT string_agg(concat_ws(' ', virtfusion_server_id, package_id), ', ' ORDER BY 1) FROM (SELECT virtfusion_server_id, package_id FROM virtfusion_hourly_billing ORDER BY 1) b`)
	if letters := s.buried(); len(letters) != 1 || !strings.Contains(letters[0].Reason, "changed each time") {
		t.Errorf("dead letters %+v", letters)
	}
}

// SkyPANEL's schema tool drops columns that it does not know.
func TestADroppedColumnIsAddedAgain(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.run(2)
	s.publish(s.news(1))
	s.drained(0)
	s.exec(`ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
	s.exec(`ALTER TABLE virtfusion_hourly_transactions DROP COLUMN server_uuid, DROP COLUMN transaction_type, DROP COLUMN reference_1, DROP COLUMN reference_2`)
	s.pass(time.Minute)
	s.publish(s.news(1, packaged(large)), s.news(2))
	s.drained(0)
	s.want("1 4 external_server_1, 2 3 external_server_2", `SELECT string_agg(concat_ws(' ', virtfusion_server_id, package_id, reference_1), ', ' ORDER BY id) FROM virtfusion_hourly_billing`)
	s.want("external_server_1 hourly_billing, external_server_2 hourly_billing",
		`SELECT string_agg(concat_ws(' ', reference_1, transaction_type), ', ' ORDER BY server_id) FROM virtfusion_hourly_transactions WHERE reference_2 = server_uuid`)
	s.want("0", `SELECT count(*) FROM serversync.faults`)
	if log := s.log.String(); !strings.Contains(log, "they were added again") || !strings.Contains(log, "virtfusion_hourly_billing.reference_1") {
		t.Errorf("the log does not say so: %s", log)
	}
}

func TestTheSettlerAddsADroppedColumnAgain(t *testing.T) {
	t.Parallel()
	s := setup(t)
	stop := s.run(1)
	s.publish(s.news(1, created))
	s.drained(0)
	stop()
	s.exec(`ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
	s.pass(s.policy.SettleDelay)
	if err := s.reconciler().SettleDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want("external_server_1", `SELECT reference_1 FROM virtfusion_hourly_billing`)
}

// What only a person can mend is waited for, and the log says what to do.
func TestAMissingTableIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.exec(`ALTER TABLE package_pricing RENAME TO elsewhere`)
	s.run(1)
	s.publish(s.news(1))
	s.until("it is said what to do", func() bool {
		return strings.Contains(s.log.String(), "is not set up for us") && strings.Contains(s.log.String(), "with all of SkyPANEL's tables")
	})
	s.exec(`ALTER TABLE elsewhere RENAME TO package_pricing`)
	s.drained(0)
	s.want("1", `SELECT count(*) FROM virtfusion_hourly_billing`)
	s.want("0", `SELECT count(*) FROM serversync.faults`)
}

// One server that cannot be decided neither holds up the others that are due
// nor is tried each second.
func TestSettlerGoesRoundABadServer(t *testing.T) {
	t.Parallel()
	s := setup(t)
	stop := s.run(1)
	s.publish(s.news(1, created), s.news(2, created), s.news(3, created))
	s.drained(0)
	stop()
	s.exec(`ALTER TABLE serversync.servers ADD CONSTRAINT refused CHECK (virtfusion_id <> 2 OR status = 'settling') NOT VALID`)
	s.pass(s.policy.SettleDelay)
	settle := func() {
		t.Helper()
		if err := s.reconciler().SettleDue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	settled := `SELECT string_agg(virtfusion_server_id::text, ',' ORDER BY virtfusion_server_id) FROM virtfusion_hourly_billing`
	s.want("1,3", settled)
	postponed := `SELECT concat_ws(' ', f.attempts, s.settle_until - f.last_at) FROM serversync.faults f JOIN serversync.servers s ON f.event_id = 'settle:' || s.virtfusion_id`
	s.want("1 00:00:01", postponed)
	settle() // nothing is due
	s.want("1 00:00:01", postponed)
	s.pass(time.Second)
	settle()
	s.want("2 00:00:05", postponed)
	s.pass(5 * time.Second)
	settle()
	s.want("3 00:00:25", postponed)

	s.exec(`ALTER TABLE serversync.servers DROP CONSTRAINT refused`)
	s.pass(25 * time.Second)
	settle()
	s.want("1,2,3", settled)
	s.want("0", `SELECT count(*) FROM serversync.faults`)
}

func TestAPanicIsAFault(t *testing.T) {
	t.Parallel()
	decide := func() (err error) {
		defer caught(&err)
		var none []int
		_ = none[len(none)]
		return nil
	}
	err := decide()
	if bug, ok := errors.AsType[*panicError](err); !ok || len(bug.stack) == 0 || classify(err) != classFault {
		t.Errorf("a panic gives %v", err)
	}
}

// While nothing can get into the books, whoever asks for readiness is told why.
func TestADatabaseThatIsNotSetUpIsNotReady(t *testing.T) {
	t.Parallel()
	s := setup(t)
	r := s.reconciler()
	if err := r.Unfit(); err != nil {
		t.Fatal(err)
	}
	s.exec(`ALTER TABLE package_pricing RENAME TO elsewhere`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	s.publish(s.news(1))
	s.until("it is known", func() bool { return r.Unfit() != nil })
	s.exec(`ALTER TABLE elsewhere RENAME TO package_pricing`)
	s.drained(0)
	s.pass(unfitFor)
	if err := r.Unfit(); err != nil {
		t.Errorf("it was mended: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
