package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamState is what the broker itself knows of the stream and of how far the
// reconciler has come, whether or not one runs.
type StreamState struct {
	Messages uint64
	Bytes    uint64
	// MaxBytes is where the stream refuses more; below 1: nowhere.
	MaxBytes int64
	// LastAt is when the newest message was stored; zero: there is none.
	LastAt time.Time
	// Waiting is how many events no reconciler was given yet, InHand how many
	// were given to one that has not acknowledged them.
	Waiting, InHand int64
	// OldestAt is when the oldest event that is not acknowledged was stored;
	// zero: there is none.
	OldestAt time.Time
	// DeadLetters is how many dead letters wait for a person.
	DeadLetters uint64
}

// Inspect asks the broker how stream, consumer and dead letters stand: three
// questions, and a fourth where something waits.
func Inspect(ctx context.Context, js jetstream.JetStream) (StreamState, error) {
	stream, err := js.Stream(ctx, StreamName)
	if err != nil {
		return StreamState{}, fmt.Errorf("inspect the stream: %w", explain(err))
	}
	info := stream.CachedInfo()
	s := StreamState{
		Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
	}
	if info.State.LastSeq > 0 {
		s.LastAt = info.State.LastTime
	}
	consumer, err := stream.Consumer(ctx, ConsumerName)
	if err != nil {
		return StreamState{}, fmt.Errorf("inspect the consumer: %w", explain(err))
	}
	progress := consumer.CachedInfo()
	s.Waiting, s.InHand = int64(progress.NumPending), int64(progress.NumAckPending) //nolint:gosec // G115: a stream holds less than 2^63 events
	if s.Waiting+s.InHand > 0 {
		if s.OldestAt, err = storedAfter(ctx, stream, progress.AckFloor.Stream); err != nil {
			return StreamState{}, err
		}
	}
	dead, err := js.Stream(ctx, DeadStreamName)
	if err != nil {
		return StreamState{}, fmt.Errorf("inspect the dead letters: %w", explain(err))
	}
	s.DeadLetters = dead.CachedInfo().State.Msgs
	return s, nil
}

// storedAfter is when the first message after a place was stored that is still
// there, for what was deleted waits no longer; zero: there is none.
func storedAfter(ctx context.Context, stream jetstream.Stream, place uint64) (time.Time, error) {
	m, err := stream.GetMsg(ctx, place+1, jetstream.WithGetMsgSubject(SubjectAll))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("look at the oldest event that waits: %w", err)
	}
	return m.Time, nil
}
