package events

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// BatchSize is how many events a reconciler takes at most at once.
const BatchSize = 500

// StreamOptions are the stream's limits.
type StreamOptions struct {
	// MaxAge is how far back a replay can go; the default is 720 h.
	MaxAge time.Duration
	// MaxBytes bounds the stream. At the limit new events are refused, and
	// their senders told so: nothing that was answered is ever thrown away.
	// 0 is 8 GiB.
	MaxBytes int64
	// Replicas is how many servers keep each event: 1 for the embedded broker. 0
	// is 3 in a cluster, else 1, and leaves alone a stream that has more.
	Replicas int
}

const (
	defaultMaxAge   = 720 * time.Hour
	defaultMaxBytes = 8 << 30
	// duplicateWindow only saves work: the truth about duplicates is in
	// PostgreSQL.
	duplicateWindow = 10 * time.Minute
	// ackWait is how long the broker hears nothing of a delivery before it
	// delivers the event again, which is harmless. It is how long the events
	// wait that a killed process had in hand.
	ackWait = 15 * time.Second
)

// KeepInterval is how often whoever holds deliveries for long tells the broker
// so ([jetstream.Msg.InProgress]); else they would be delivered to others.
const KeepInterval = ackWait / 5

// EnsureStream makes the stream VIRTFUSION, the reconciler's consumer and the
// stream of dead letters, or brings them up to date. Several processes may do so
// at once. The connection must be up, or its error is [nats.ErrDisconnected]:
// what is asked of nobody would be done later, by settings that were guessed.
func EnsureStream(ctx context.Context, js jetstream.JetStream, o StreamOptions) (jetstream.Consumer, error) {
	if o.MaxAge == 0 {
		o.MaxAge = defaultMaxAge
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	replicas, err := o.replicas(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("look at the stream %s: %w", StreamName, explain(err))
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        StreamName,
		Description: "Observations of VirtFusion servers",
		Subjects:    []string{SubjectAll},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxAge:      o.MaxAge,
		MaxBytes:    o.MaxBytes,
		MaxMsgSize:  maxEventSize,
		Replicas:    replicas,
		Duplicates:  min(duplicateWindow, o.MaxAge),

		AllowAtomicPublish: true, // for PublishAll
	})
	if err != nil {
		return nil, fmt.Errorf("make the stream %s: %w", StreamName, explain(err))
	}
	// Dead letters are few, and wait for a person: they are kept at least as
	// long as their originals.
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        DeadStreamName,
		Description: "Events that could not be reconciled, each with its reason",
		Subjects:    []string{DeadSubjectAll},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxAge:      max(o.MaxAge, defaultMaxAge),
		MaxBytes:    min(deadMaxBytes, max(o.MaxBytes/8, minDeadBytes)),
		MaxMsgSize:  maxEventSize,
		Replicas:    replicas,
		Duplicates:  deadWindow,
	})
	if err != nil {
		return nil, fmt.Errorf("make the stream %s: %w", DeadStreamName, explain(err))
	}
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:       ConsumerName,
		Description:   "Brings SkyPANEL's books in step",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: 10 * BatchSize,
		DeliverPolicy: jetstream.DeliverAllPolicy,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
	})
	if err != nil {
		return nil, fmt.Errorf("make the consumer %s: %w", ConsumerName, explain(err))
	}
	return consumer, nil
}

// clusterReplicas is how many servers of a cluster keep each event, so that one may
// be lost.
const clusterReplicas = 3

// replicas is how many there should be.
func (o *StreamOptions) replicas(ctx context.Context, js jetstream.JetStream) (int, error) {
	switch {
	case !js.Conn().IsConnected():
		return 0, nats.ErrDisconnected
	case o.Replicas > 0:
		return o.Replicas, nil
	case js.Conn().ConnectedClusterName() == "":
		return 1, nil
	}
	stream, err := js.Stream(ctx, StreamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return clusterReplicas, nil
	}
	if err != nil {
		return 0, err
	}
	return max(clusterReplicas, stream.CachedInfo().Config.Replicas), nil
}

// explain adds what to do about a refusal of JetStream.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: switch JetStream on for the account of NATS_CREDS", err)
	case errors.As(err, &api) && (api.ErrorCode == insufficientResources || api.ErrorCode == storageExceeded):
		return fmt.Errorf("%w: %w: the account or disk has no room for the stream; make room on the disk, raise the limits of the account, or set NATS_REPLICAS lower", ErrNoRoom, err)
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamNameInUse || api.ErrorCode == unchangeable):
		return fmt.Errorf("%w: a stream of this name is there, made by somebody else, and cannot be changed into ours: remove it if nobody needs it (nats stream rm NAME), or set NATS_URL to an account or a broker of serversync's own", err)
	case errors.As(err, &api) && api.ErrorCode == subjectsOverlap:
		return fmt.Errorf("%w: another stream takes events of virtfusion.users.> too: change its subjects (nats stream ls shows it), or set NATS_URL to an account or a broker of serversync's own", err)
	case errors.As(err, &api) && api.ErrorCode == storeFailed && strings.Contains(api.Description, "maximum bytes"):
		return fmt.Errorf("%w: the stream %s is full; %s", ErrStreamFull, StreamName, fullRemedy)
	case errors.As(err, &api) && api.ErrorCode == noPeers:
		return fmt.Errorf("%w: fewer servers of the cluster are there than keep each event; start them all, or set NATS_REPLICAS=1 and do without copies", err)
	case errors.As(err, &api) && (api.ErrorCode == notAvailable || api.ErrorCode == notLeader):
		return fmt.Errorf("%w: most servers of the cluster must be up and reach each other", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: no answer from JetStream; is it switched on, and may the account of NATS_CREDS use $JS.API.> ?", err)
	default:
		return err
	}
}

// ErrNoRoom means that the broker cannot reserve what the stream may take; for a
// moment also when several processes make it at once.
var ErrNoRoom = errors.New("no room for the stream")

// ErrStreamFull means that the stream has reached its size limit. What is on it
// stays until it is older than its age limit; new events are refused.
var ErrStreamFull = errors.New("the stream takes no more")

// fullRemedy is what to do about a stream that is full.
const fullRemedy = "raise STREAM_MAX_BYTES (and the room on the broker's disk), or lower STREAM_MAX_AGE, and restart serve"

// nearlyFull is the part of its size limit at which a stream counts as full: an
// event has a megabyte at most, and whoever looks must not wait for the last one.
const nearlyFull = 0.98

// StreamRoom returns an [ErrStreamFull], which says what to do, when the stream
// has no room for more.
func StreamRoom(ctx context.Context, js jetstream.JetStream) error {
	stream, err := js.Stream(ctx, StreamName)
	if err != nil {
		return fmt.Errorf("look at the stream %s: %w", StreamName, explain(err))
	}
	info := stream.CachedInfo()
	if limit := info.Config.MaxBytes; limit > 0 && float64(info.State.Bytes) >= nearlyFull*float64(limit) {
		return fmt.Errorf("%w: %s has %d of at most %d MB; %s", ErrStreamFull, StreamName, info.State.Bytes>>20, limit>>20, fullRemedy)
	}
	return nil
}

// JetStream's error code for an event that it could not store, for one of several
// reasons.
const storeFailed jetstream.ErrorCode = 10077

// JetStream's error codes for a stream that is somebody else's.
const (
	unchangeable    jetstream.ErrorCode = 10052 // its storage or retention is another
	subjectsOverlap jetstream.ErrorCode = 10065
)

// JetStream's error codes for a reservation that does not fit.
const (
	insufficientResources jetstream.ErrorCode = 10023 // in a cluster
	storageExceeded       jetstream.ErrorCode = 10047 // on one server
)

// QueueAge is how long the oldest event that the reconciler has not acknowledged
// has been on the stream; 0: there is none.
func QueueAge(ctx context.Context, js jetstream.JetStream, now time.Time) (time.Duration, error) {
	consumer, err := js.Consumer(ctx, StreamName, ConsumerName)
	if err != nil {
		return 0, fmt.Errorf("measure the queue: %w", explain(err))
	}
	info := consumer.CachedInfo()
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return 0, nil
	}
	stream, err := js.Stream(ctx, StreamName)
	if err != nil {
		return 0, fmt.Errorf("measure the queue: %w", explain(err))
	}
	oldest, err := storedAfter(ctx, stream, info.AckFloor.Stream)
	if err != nil || oldest.IsZero() {
		return 0, err
	}
	return max(0, now.Sub(oldest)), nil
}

// QueueDepth is how many events the reconciler has not acknowledged yet: those
// that wait, and those in hand.
func QueueDepth(ctx context.Context, js jetstream.JetStream) (int64, error) {
	consumer, err := js.Consumer(ctx, StreamName, ConsumerName)
	if err != nil {
		return 0, fmt.Errorf("measure the queue: %w", explain(err))
	}
	info := consumer.CachedInfo()
	return int64(info.NumPending) + int64(info.NumAckPending), nil //nolint:gosec // G115: a stream holds less than 2^63 events
}

// Applied is the sequence of the newest message on the stream, and the one up to
// which the reconciler has acknowledged all.
func Applied(ctx context.Context, js jetstream.JetStream) (last, acknowledged uint64, err error) {
	stream, err := js.Stream(ctx, StreamName) // first: what is stored meanwhile is newer
	if err != nil {
		return 0, 0, fmt.Errorf("look how far the reconciler is: %w", explain(err))
	}
	last = stream.CachedInfo().State.LastSeq
	consumer, err := js.Consumer(ctx, StreamName, ConsumerName)
	if err != nil {
		return 0, 0, fmt.Errorf("look how far the reconciler is: %w", explain(err))
	}
	info := consumer.CachedInfo()
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return last, last, nil
	}
	return last, info.AckFloor.Stream, nil
}
