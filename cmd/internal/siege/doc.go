// Package siege is what the programs share that torment the real service and then
// compare its books with what it answered: [World] is a simulated VirtFusion with
// a living fleet and the ledger of the webhooks that were answered 202, [Process]
// a program that is started again and again, and [Missing], [Doubled], [Stored]
// look through books and stream.
package siege

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Pause waits, unless ctx ends first.
func Pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// FreeAddress is an address of the loopback interface on which nobody listens.
func FreeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return addr, nil
}
