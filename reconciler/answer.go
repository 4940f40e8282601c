package reconciler

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"serversync/db"
	"serversync/events"
)

// maxAttempts is how often an event may fail while it stands alone before it
// becomes a dead letter. Attempts that failed because something was away do
// not count.
const maxAttempts = 5

// class says what an error means for the event that met it.
type class int

const (
	// classFine: the event is in the books, or changes nothing in them.
	classFine class = iota
	// classAway: something is away, busy or not set up. The event is not to
	// blame, and will go through later.
	classAway
	// classFault: the event itself was refused. Something that it depends on
	// may yet change: a price, a row, this program.
	classFault
	// classHopeless: nobody can read the event, and that will not change.
	classHopeless
	// classNewer: a newer version of this program wrote the event, and a newer
	// reconciler can read it. During an upgrade there is one, or will be soon.
	classNewer
)

var (
	// errUndecodable: a message is no event.
	errUndecodable = errors.New("this message is no event that can be read")
	// errNeverFresh: a batch's rows changed each time it was decided.
	errNeverFresh = errors.New("the rows changed each time they were decided from")
)

// classify sorts errors by what becomes of the event.
func classify(err error) class {
	switch {
	case err == nil:
		return classFine
	case errors.Is(err, events.ErrNewer):
		return classNewer
	case errors.Is(err, errUndecodable):
		return classHopeless
	case errors.Is(err, errNeverFresh), db.Classify(err) == db.FaultOfData:
		return classFault
	default:
		return classAway
	}
}

// verdict is what the broker is told about a delivery.
type verdict int

const (
	// verdictDone acknowledges it.
	verdictDone verdict = iota
	// verdictNow gives it back, to be delivered at once: to whoever goes on
	// when this process stops.
	verdictNow
	// verdictLater gives it back, to be delivered after a pause.
	verdictLater
	// verdictDead takes it off the stream's consumer for good. Its dead letter
	// has been confirmed.
	verdictDead
)

// judge maps what became of an event, at its so-manieth attempt, to what the
// broker is told. verdictDead is subject to a dead letter being written first.
func judge(c class, attempts int) verdict {
	switch {
	case c == classFine:
		return verdictDone
	case c == classAway:
		return verdictNow
	case c == classHopeless, attempts >= maxAttempts:
		return verdictDead
	default:
		return verdictLater
	}
}

// retryDelay is the pause after so many failed attempts: 1 s, 5 s, 25 s, 2 min
// and 5 s, then 10 min.
func retryDelay(attempts int) time.Duration {
	delay := time.Second
	for range min(attempts, 10) - 1 {
		delay *= 5
	}
	return min(delay, 10*time.Minute)
}

// conclude answers the broker for a delivery that stands alone, after cause (or
// nothing) stopped it. An event at fault is counted; one that has had its
// chances is written to the dead letters, and only then taken off.
func (r *Reconciler) conclude(ctx context.Context, d *delivery, cause error) {
	c := classify(cause)
	record := db.FaultRecord{Attempts: 1, FirstAt: r.now(), LastAt: r.now()}
	if c == classFault {
		var err error
		if record, err = r.count(ctx, d.id, cause); err != nil {
			r.log.Warn().Err(err).Str("event", d.id).Msg("an attempt was not counted")
			c = classify(err)
		}
	}
	v, delay := judge(c, record.Attempts), r.retryDelay(record.Attempts)
	if c == classNewer {
		v, delay = r.leave(d, cause)
	}
	switch {
	case v == verdictDead:
		if err := r.bury(ctx, d, cause, record); err != nil {
			// Nothing is lost: the event stays where it is.
			v, delay = verdictLater, r.retryDelay(maxAttempts)
			r.log.Error().Err(err).Str("event", d.id).Dur("retry_in", delay).
				Msg("a dead letter could not be written; the event stays on the stream")
		}
	case v == verdictLater && c == classFault:
		r.metrics.unusable.Inc()
		r.log.Warn().Err(cause).Str("event", d.id).Int64("server", d.event.Server.ID).Str("subject", d.message.Subject()).
			Int("attempt", record.Attempts).Int("of", maxAttempts).Dur("retry_in", delay).
			Msg("an event cannot be reconciled; the others go on, it is tried again")
	}
	r.answer(d, v, delay, cause)
}

const (
	// newerPatience is how long an event that a newer version wrote is left to a
	// newer reconciler: as long as an upgrade may take, or as it takes to notice
	// that one was rolled back. It holds one of the consumer's places meanwhile.
	newerPatience = time.Hour
	// newerPause is after how long it is delivered again, to any reconciler.
	newerPause = 5 * time.Second
)

// leave says what becomes of an event that a newer version wrote: it is given
// back until a newer reconciler gets it. An hour after it came, or after this
// process began, there is none: it becomes a dead letter, to be requeued when
// there is.
func (r *Reconciler) leave(d *delivery, cause error) (verdict, time.Duration) {
	since := r.began
	if meta, err := d.message.Metadata(); err == nil && meta.Timestamp.After(since) {
		since = meta.Timestamp
	}
	if r.now().Sub(since) >= newerPatience {
		return verdictDead, 0
	}
	r.saidNewer.Do(func() {
		r.log.Warn().Err(cause).Str("event", d.id).Dur("retry_in", r.newerPause).
			Msg("an event is left to a newer reconciler; after an hour without one it becomes a dead letter. Upgrade this process")
	})
	return verdictLater, r.newerPause
}

// answer tells the broker. Nowhere else is a message acknowledged, given back
// or taken off.
func (r *Reconciler) answer(d *delivery, v verdict, delay time.Duration, cause error) {
	var err error
	switch v {
	case verdictDone:
		err = d.message.Ack()
	case verdictNow:
		err = d.message.Nak()
	case verdictLater:
		err = d.message.NakWithDelay(delay)
	case verdictDead:
		err = d.message.TermWithReason(oneLine(cause.Error()))
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
		// Harmless: it is delivered again, and a second time changes nothing.
		r.log.Warn().Err(err).Str("event", d.id).Int64("server", d.event.Server.ID).Msg("could not answer the broker for an event")
	}
}

// oneLine is a reason as the broker's protocol takes it.
func oneLine(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), 200)]
}
