package reconciler

import (
	"context"
	"math"
	"sync"
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

// countTimeout bounds the question how many dead letters there are.
const countTimeout = 2 * time.Second

// newDeadMetrics shows how many dead letters wait for a person, and returns the
// counter of those that this process wrote.
func newDeadMetrics(reg prometheus.Registerer, letters *events.DeadLetters) prometheus.Counter {
	total := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "serversync_dead_letters_total", Help: "Events that were given up and became dead letters.",
	})
	reg.MustRegister(total, &waitingLetters{letters: letters, last: math.NaN()})
	return total
}

// waitingLetters is a gauge that asks the broker; while that is away it says
// what it heard last.
type waitingLetters struct {
	letters *events.DeadLetters

	mu   sync.Mutex
	last float64
}

var waitingDesc = prometheus.NewDesc("serversync_dead_letters", "Dead letters that wait for a person.", nil, nil)

// Describe implements [prometheus.Collector].
func (*waitingLetters) Describe(ch chan<- *prometheus.Desc) { ch <- waitingDesc }

// Collect implements [prometheus.Collector].
func (w *waitingLetters) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	n, err := w.letters.Count(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.last = float64(n)
	}
	ch <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, w.last)
}
