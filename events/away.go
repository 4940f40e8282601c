package events

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Passing reports that an error of the broker's says that it, or its leader, is
// away for now: the same will succeed later. No event is to blame.
func Passing(err error) bool {
	for _, away := range []error{
		nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrNoServers, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		jetstream.ErrNoStreamResponse, jetstream.ErrAsyncPublishTimeout, jetstream.ErrNoHeartbeat, jetstream.ErrConsumerLeadershipChanged,
		jetstream.ErrServerShutdown, context.DeadlineExceeded,
		jetstream.ErrJetStreamNotEnabled, // also what a server leads to believe that has just started
	} {
		if errors.Is(err, away) {
			return true
		}
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case noPeers, notAvailable, notLeader, streamOffline, inProcess, consumerOffline, batchIncomplete:
			return true
		default: // an answer
		}
	}
	return false
}

// JetStream's error codes that pass by themselves.
const (
	noPeers         jetstream.ErrorCode = 10005 // too few servers of the cluster are there
	notAvailable    jetstream.ErrorCode = 10008 // the cluster has no leader
	notLeader       jetstream.ErrorCode = 10009
	streamOffline   jetstream.ErrorCode = 10118
	consumerOffline jetstream.ErrorCode = 10119
	inProcess       jetstream.ErrorCode = 10158 // another copy of the event is being stored
	batchIncomplete jetstream.ErrorCode = 10176 // a leader that moved knows half of a batch
)

const (
	// patience is how long an event that nobody confirmed is tried again: as
	// long as a leader that was asked to move takes, and often one that died.
	// It counts from when the trouble began: later events are refused at once.
	patience = 4 * time.Second
	// retryPause is the time between two tries.
	retryPause = 100 * time.Millisecond
	// troubleEnds is after how long without a try nothing is known any more.
	troubleEnds = 10 * time.Second
)

// trouble is what is known of a broker that confirms nothing. Safe for
// concurrent use.
type trouble struct {
	mu          sync.Mutex
	since, last time.Time // of tries that were not confirmed, none between them was; zero: no trouble
	cause       error     // of the last
}

// note takes down how a try ended: nil clears everything.
func (t *trouble) note(err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.since, t.last, t.cause = time.Time{}, time.Time{}, nil
	case Passing(err):
		if t.since.IsZero() || now.Sub(t.last) > troubleEnds {
			t.since = now
		}
		t.last, t.cause = now, err
	}
}

// look says for how long nothing has been confirmed, and why; 0 and nil: as far
// as is known, all is well.
func (t *trouble) look(now time.Time) (time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() || now.Sub(t.last) > troubleEnds {
		return 0, nil
	}
	return now.Sub(t.since), t.cause
}
