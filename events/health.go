package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// healthInterval is how often an embedded broker is asked for its health.
const healthInterval = time.Second

// ErrStoreFailed means that the embedded event store could not write to its
// disk. It takes nothing more until it is opened again, even when there is room
// by then.
var ErrStoreFailed = errors.New("the embedded event store cannot write")

// Watch returns nil when ctx ends, and [ErrStoreFailed] with the reason when
// the store has failed: whoever runs the broker has to end and be started
// again. What was acknowledged is on disk.
func (b *Broker) Watch(ctx context.Context) error {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	var before string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.store.failed():
			return b.store.failure()
		case <-ticker.C:
		}
		health := b.server.Healthz(&server.HealthzOptions{})
		// Said twice: a stream that is just being made is not healthy yet.
		if health.Error != "" && health.Error == before && ctx.Err() == nil {
			return fmt.Errorf("%w: %s; make room on its disk, see that we may write there, and start again", ErrStoreFailed, health.Error)
		}
		before = health.Error
	}
}
