package reconciler

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"serversync/events"
)

// verdict says what became of an event. It is the one thing that decides the
// broker's verb.
type verdict int

const (
	// verdictDone: it is in the books, or changes nothing in them.
	verdictDone verdict = iota
	// verdictLater: something was away and we are shutting down.
	verdictLater
	// verdictUnusable: the event itself is at fault. It is delivered again
	// after a long pause, so that a newer version may cope with it.
	verdictUnusable
)

// unusableDelay is the pause before an event that nobody can use is delivered
// again.
const unusableDelay = 10 * time.Minute

// answer maps a verdict to the broker's verb. Nowhere else is a message
// acknowledged or refused.
func (r *Reconciler) answer(m jetstream.Msg, v verdict, e *events.Event, cause error) {
	var err error
	switch v {
	case verdictDone:
		err = m.Ack()
	case verdictLater:
		err = m.Nak()
	case verdictUnusable:
		r.metrics.unusable.Inc()
		r.log.Error().Err(cause).Str("event", e.ID).Int64("server", e.Server.ID).Str("subject", m.Subject()).
			Dur("retry_in", unusableDelay).Msg("an event cannot be reconciled; the others go on. Report it with this line")
		err = m.NakWithDelay(unusableDelay)
	}
	if err != nil {
		// Harmless: it is delivered again, and a second time changes nothing.
		r.log.Warn().Err(err).Str("event", e.ID).Int64("server", e.Server.ID).Msg("could not answer the broker for an event")
	}
}
