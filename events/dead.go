package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Names of the stream of dead letters: events that could not be reconciled.
const (
	DeadStreamName = "VIRTFUSION_DEAD"
	// DeadSubjectAll matches every dead letter; each has a subject of its own,
	// which ends in its id.
	DeadSubjectAll    = deadSubjectPrefix + ">"
	deadSubjectPrefix = "virtfusion-dead."
)

const (
	// deadMaxBytes bounds the stream of dead letters: there should be none.
	deadMaxBytes = 256 << 20
	// minDeadBytes is its size beside a small stream: some tens of them.
	minDeadBytes = 256 << 10
	// deadWindow is how long the broker knows a dead letter's id. A process
	// that dies between writing it and taking the original off the stream
	// writes it again when it is back.
	deadWindow = 24 * time.Hour
)

// DeadLetter is a message of the stream that could not be reconciled, with all
// that is needed to find out why and to send it again.
type DeadLetter struct {
	// ID is the original's message id, or its place in the stream where it had
	// none.
	ID string `json:"id"`
	// Reason is the last fault, in words.
	Reason string `json:"reason"`
	// Attempts counts those that the message itself failed, standing alone.
	Attempts int       `json:"attempts"`
	FirstAt  time.Time `json:"firstAt"` // of the attempts
	LastAt   time.Time `json:"lastAt"`

	// The original.
	Stream   string      `json:"stream"`
	Sequence uint64      `json:"sequence"` // 0: not known
	StoredAt time.Time   `json:"storedAt"`
	Subject  string      `json:"subject"`
	Headers  nats.Header `json:"headers,omitempty"`
	// Data is the original's body; nil, with DataOmitted, when it is too large
	// to be repeated. It then is on Stream at Sequence, for as long as that
	// stream keeps its messages.
	Data        []byte `json:"data,omitempty"`
	DataOmitted bool   `json:"dataOmitted,omitempty"`
}

// NewDeadLetter takes down a message as it came from the stream; the caller
// fills in reason, attempts and times.
func NewDeadLetter(m jetstream.Msg) DeadLetter {
	d := DeadLetter{
		ID: MessageID(m), Stream: StreamName,
		Subject: m.Subject(), Headers: m.Headers(), Data: m.Data(),
	}
	if meta, err := m.Metadata(); err == nil {
		d.Stream, d.Sequence, d.StoredAt = meta.Stream, meta.Sequence.Stream, meta.Timestamp
	}
	return d
}

// MessageID is how attempts at a message are remembered: the id that its
// publisher gave it, or its place in the stream.
func MessageID(m jetstream.Msg) string {
	id := m.Headers().Get(jetstream.MsgIDHeader)
	if id != "" && len(id) <= maxIDLength && strings.Trim(id, idCharacters) == "" {
		return id
	}
	meta, err := m.Metadata()
	if err != nil { // it did not come from a stream
		return "unknown"
	}
	// The time tells the messages of a stream from those of its predecessor of
	// the same name.
	return fmt.Sprintf("%s-%d-%d", meta.Stream, meta.Sequence.Stream, meta.Timestamp.UnixMilli())
}

const (
	maxIDLength = 128
	// idCharacters may stand in one token of a subject, and in a URL.
	idCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
)

// DeadLetters is the stream of dead letters. Safe for concurrent use.
type DeadLetters struct {
	js      jetstream.JetStream
	durable durability
}

// NewDeadLetters uses the stream that [EnsureStream] made.
func NewDeadLetters(js jetstream.JetStream, opts ...Option) *DeadLetters {
	return &DeadLetters{js: js, durable: newDurability(opts)}
}

// Put writes a dead letter and returns once it is on disk.
// duplicate: it was there already. An error wraps [ErrNotDurable]; putting it
// again is harmless.
func (d *DeadLetters) Put(ctx context.Context, letter DeadLetter) (duplicate bool, err error) {
	body, err := json.Marshal(letter)
	if err != nil {
		return false, fmt.Errorf("encode dead letter %s: %w", letter.ID, err)
	}
	if int64(len(body)+headerRoom) > min(d.js.Conn().MaxPayload(), maxEventSize) {
		letter.Data, letter.Headers, letter.DataOmitted = nil, nil, true
		if body, err = json.Marshal(letter); err != nil {
			return false, fmt.Errorf("encode dead letter %s: %w", letter.ID, err)
		}
	}
	ack, err := d.js.Publish(ctx, deadSubjectPrefix+letter.ID, body,
		jetstream.WithMsgID(letter.ID), jetstream.WithExpectStream(DeadStreamName))
	if err != nil {
		return false, fmt.Errorf("write dead letter %s: %w: %w", letter.ID, ErrNotDurable, err)
	}
	if err := d.durable.sync(); err != nil {
		return false, fmt.Errorf("write dead letter %s: %w: %w", letter.ID, ErrNotDurable, err)
	}
	return ack.Duplicate, nil
}

// headerRoom is more than the headers of a dead letter take.
const headerRoom = 1024

// Count is how many dead letters there are.
func (d *DeadLetters) Count(ctx context.Context) (uint64, error) {
	stream, err := d.js.Stream(ctx, DeadStreamName)
	if err != nil {
		return 0, fmt.Errorf("count the dead letters: %w", err)
	}
	return stream.CachedInfo().State.Msgs, nil
}

var (
	// ErrNoDeadLetter means that there is no dead letter of an id (any more).
	ErrNoDeadLetter = errors.New("no such dead letter")
	// ErrNothingLeft means that of a dead letter's original nothing is left that
	// could be tried again.
	ErrNothingLeft = errors.New("nothing is left of the event")
)

// List returns up to limit dead letters, newest first, and the cursor of the
// next page, 0 at the end. A cursor of 0 begins at the newest. One that cannot be
// read (any more) is among them, with a reason that says so.
func (d *DeadLetters) List(ctx context.Context, cursor uint64, limit int) ([]DeadLetter, uint64, error) {
	stream, err := d.js.Stream(ctx, DeadStreamName)
	if err != nil {
		return nil, 0, fmt.Errorf("list the dead letters: %w", err)
	}
	state := stream.CachedInfo().State
	if cursor == 0 || cursor > state.LastSeq {
		cursor = state.LastSeq
	}
	var letters []DeadLetter
	for ; cursor >= max(state.FirstSeq, 1) && len(letters) < limit && state.Msgs > 0; cursor-- {
		m, err := stream.GetMsg(ctx, cursor)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // discarded
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read dead letter at %d: %w", cursor, err)
		}
		letter, err := decodeDead(m)
		if err != nil {
			letter = unreadable(m, err)
		}
		letters = append(letters, letter)
	}
	if cursor < max(state.FirstSeq, 1) {
		cursor = 0
	}
	return letters, cursor, nil
}

// Get returns the dead letter of an id, or [ErrNoDeadLetter].
func (d *DeadLetters) Get(ctx context.Context, id string) (DeadLetter, error) {
	_, m, err := d.find(ctx, id)
	if err != nil {
		return DeadLetter{}, err
	}
	return decodeDead(m)
}

// Requeue puts the original of a dead letter back at the end of its stream,
// where it has as many attempts as any other event, and discards the dead
// letter. [ErrNoDeadLetter] when there is none of the id, [ErrNothingLeft] when the
// original is gone.
func (d *DeadLetters) Requeue(ctx context.Context, id string) error {
	stream, m, err := d.find(ctx, id)
	if err != nil {
		return err
	}
	letter, err := decodeDead(m)
	if err != nil {
		return fmt.Errorf("requeue dead letter %s: %w: %w", id, ErrNothingLeft, err)
	}
	original := nats.NewMsg(letter.Subject)
	original.Data = letter.Data
	if letter.DataOmitted {
		if original.Data, err = d.original(ctx, &letter); err != nil {
			return err
		}
	}
	// An id of its own: the broker may still know the original's. The dead
	// letter's place makes it the same however often this is tried.
	original.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("requeue-%d-%s", m.Sequence, letter.ID[:min(len(letter.ID), maxIDLength/2)]))
	if run := letter.Headers.Get(ReplayHeader); run != "" {
		original.Header.Set(ReplayHeader, run)
	}
	if _, err := d.js.PublishMsg(ctx, original, jetstream.WithExpectStream(StreamName)); err != nil {
		return fmt.Errorf("requeue dead letter %s: %w: %w", id, ErrNotDurable, err)
	}
	if err := d.durable.sync(); err != nil {
		return fmt.Errorf("requeue dead letter %s: %w: %w", id, ErrNotDurable, err)
	}
	return discard(ctx, stream, m.Sequence, id)
}

// Discard deletes a dead letter. [ErrNoDeadLetter] when there is none of the
// id.
func (d *DeadLetters) Discard(ctx context.Context, id string) error {
	stream, m, err := d.find(ctx, id)
	if err != nil {
		return err
	}
	return discard(ctx, stream, m.Sequence, id)
}

func discard(ctx context.Context, stream jetstream.Stream, sequence uint64, id string) error {
	if err := stream.DeleteMsg(ctx, sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("discard dead letter %s: %w", id, err)
	}
	return nil
}

func (d *DeadLetters) find(ctx context.Context, id string) (jetstream.Stream, *jetstream.RawStreamMsg, error) {
	if id == "" || strings.Trim(id, idCharacters) != "" {
		return nil, nil, fmt.Errorf("%w: %q", ErrNoDeadLetter, id)
	}
	stream, err := d.js.Stream(ctx, DeadStreamName)
	if err != nil {
		return nil, nil, fmt.Errorf("look for dead letter %s: %w", id, err)
	}
	m, err := stream.GetLastMsgForSubject(ctx, deadSubjectPrefix+id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil, fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look for dead letter %s: %w", id, err)
	}
	return stream, m, nil
}

// original reads a body that was too large to be repeated.
func (d *DeadLetters) original(ctx context.Context, letter *DeadLetter) ([]byte, error) {
	stream, err := d.js.Stream(ctx, letter.Stream)
	if err != nil {
		return nil, fmt.Errorf("read the original of dead letter %s: %w", letter.ID, err)
	}
	m, err := stream.GetMsg(ctx, letter.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("%w: dead letter %s was too large to be repeated, and %s has no message %d any more", ErrNothingLeft, letter.ID, letter.Stream, letter.Sequence)
	}
	if err != nil {
		return nil, fmt.Errorf("read the original of dead letter %s, %d on %s: %w", letter.ID, letter.Sequence, letter.Stream, err)
	}
	if m.Subject != letter.Subject || !m.Time.Equal(letter.StoredAt) { // a successor of the stream that it was on
		return nil, fmt.Errorf("%w: dead letter %s was too large to be repeated, and message %d of %s is another", ErrNothingLeft, letter.ID, letter.Sequence, letter.Stream)
	}
	return m.Data, nil
}

// unreadable stands for a dead letter that is none of ours, or was damaged.
func unreadable(m *jetstream.RawStreamMsg, err error) DeadLetter {
	return DeadLetter{
		ID: strings.TrimPrefix(m.Subject, deadSubjectPrefix), FirstAt: m.Time, LastAt: m.Time, StoredAt: m.Time, Data: m.Data,
		Reason: fmt.Sprintf("this dead letter cannot be read (%v): discard it; what the server looks like is learnt at the next sweep", err),
	}
}

func decodeDead(m *jetstream.RawStreamMsg) (DeadLetter, error) {
	var letter DeadLetter
	if err := json.Unmarshal(m.Data, &letter); err != nil {
		return letter, fmt.Errorf("read dead letter at %d: %w", m.Sequence, err)
	}
	return letter, nil
}
