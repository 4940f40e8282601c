package reconciler

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"serversync/db"
	"serversync/events"
)

// buryTimeout bounds the wait for the broker to confirm a dead letter.
const buryTimeout = 10 * time.Second

// bury writes a dead letter and returns nil once the broker has confirmed it.
func (r *Reconciler) bury(ctx context.Context, d *delivery, cause error, record db.FaultRecord) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, buryTimeout)
	defer stop()
	letter := events.NewDeadLetter(d.message)
	letter.Reason, letter.Attempts = cause.Error(), record.Attempts
	letter.FirstAt, letter.LastAt = record.FirstAt, record.LastAt
	duplicate, err := r.deadLetters.Put(ctx, letter)
	if err != nil {
		return err
	}
	if !duplicate { // else the process that wrote it ended before it could take the event off
		r.dead.Inc()
	}
	r.metrics.unusable.Inc()
	r.log.Error().Err(cause).Str("event", d.id).Int64("server", d.event.Server.ID).Str("subject", letter.Subject).
		Uint64("sequence", letter.Sequence).Int("attempts", letter.Attempts).Bool("repeated", duplicate).
		Msg("an event was given up and is a dead letter now (stream " + events.DeadStreamName + "); the others go on. Report it with this line")
	w := work{serverID: d.event.Server.ID, news: []Observation{observationOf(&d.event)}}
	if err := r.fail(ctx, &w, cause, "its event is a dead letter on the stream "+events.DeadStreamName+"; once the cause is mended, sweep again or requeue it"); err != nil {
		return err // once the database is back it comes again, and its dead letter does not
	}
	r.forget(ctx, []string{d.id})
	return nil
}

// newDeadMetrics returns the counter of the dead letters that this process wrote.
// How many there are is for the broker to say, to any process.
func newDeadMetrics(reg prometheus.Registerer) prometheus.Counter {
	total := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "serversync_dead_letters_total", Help: "Events that were given up and became dead letters.",
	})
	reg.MustRegister(total)
	return total
}
