package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ReplayHeader is on every message that a replay published, and says which: a
// later replay passes it over, or replays would grow with each.
const ReplayHeader = "Serversync-Replay"

const (
	// filtersAtOnce is how many subjects one consumer reads.
	filtersAtOnce = 200
	// readIdle is how long nothing may come before the broker is asked whether
	// there is more.
	readIdle = 3 * time.Second
	// readBeat is how often the broker says that it is there. Twice without, which
	// has to be before readIdle, the reader is made anew, at another server;
	// readTries is how often that is tried, with pauses of up to 10 s.
	readBeat  = time.Second
	readTries = 5
	// readPatience is how long a broker may be away before a reading ends.
	readPatience = 30 * time.Second
	// forgetReader is how long the broker keeps a consumer whose process died.
	forgetReader = time.Minute
)

// Replayer reads the stream's past, and publishes it again. Safe for concurrent
// use.
type Replayer struct {
	js        jetstream.JetStream
	publisher *Publisher
}

// NewReplayer uses the stream that [EnsureStream] made.
func NewReplayer(js jetstream.JetStream, p *Publisher) *Replayer {
	return &Replayer{js: js, publisher: p}
}

// Held is what the stream holds.
type Held struct {
	// Last is the sequence of its last message; 0: there never was one.
	Last uint64
	// Begins is from when on everything is there that was ever stored: the time
	// of the oldest message, or, where none was cut off, the stream's creation.
	Begins time.Time
}

// Holds looks what the stream holds.
func (r *Replayer) Holds(ctx context.Context) (Held, error) {
	stream, err := r.js.Stream(ctx, StreamName)
	if err != nil {
		return Held{}, fmt.Errorf("look what the stream holds: %w", explain(err))
	}
	info := stream.CachedInfo()
	held := Held{Last: info.State.LastSeq, Begins: info.Created}
	switch {
	case info.State.FirstSeq > 1 && info.State.Msgs > 0:
		held.Begins = info.State.FirstTime
	case info.State.LastSeq > 0 && info.State.Msgs == 0:
		held.Begins = info.State.LastTime
	}
	return held, nil
}

// Past is a part of the stream: the events of some owners and servers, by
// VirtFusion's ids, that were stored in a span of time.
type Past struct {
	Owners  []int64
	Servers []int64
	// Since and Until are times of the stream, inclusive; zero: no bound.
	Since, Until time.Time
	// Last is the sequence of the last message that counts.
	Last uint64
}

// Read calls do for each event of a part of the stream, once, in the order of
// the stream. What a replay published, and what cannot be read, is left out. An
// error of do ends the reading.
func (r *Replayer) Read(ctx context.Context, past Past, do func(e *Event) error) error {
	return r.read(ctx, past, false, func(m jetstream.Msg) error {
		e, err := Decode(m.Data())
		if err != nil {
			return nil //nolint:nilerr // it is among the dead letters, or will be, or is for a newer version's replay
		}
		return do(&e)
	})
}

// ServersIn lists the servers of which a part of the stream tells, in order.
func (r *Replayer) ServersIn(ctx context.Context, past Past) ([]int64, error) {
	found := make(map[int64]struct{})
	err := r.read(ctx, past, true, func(m jetstream.Msg) error {
		tokens := strings.Split(m.Subject(), ".")
		if id, err := strconv.ParseInt(tokens[len(tokens)-2], 10, 64); err == nil && id > 0 {
			found[id] = struct{}{}
		}
		return nil
	})
	ids := make([]int64, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, err
}

// read goes through a part of the stream. The broker refuses a consumer whose
// filters overlap, as an owner's and a server's do, and one consumer takes only
// so many: so there are several, and their messages are merged.
func (r *Replayer) read(ctx context.Context, past Past, headersOnly bool, do func(m jetstream.Msg) error) error {
	if past.Last == 0 {
		return nil
	}
	var readers []*reader
	defer func() {
		for _, rd := range readers {
			rd.messages.Stop()
		}
	}()
	for _, filters := range past.filters() {
		rd, err := r.reader(ctx, past, filters, headersOnly)
		if err != nil {
			return fmt.Errorf("read the stream: %w", explain(err))
		}
		if rd != nil {
			readers = append(readers, rd)
		}
	}
	for {
		var first *reader
		for _, rd := range readers {
			if err := rd.fill(ctx); err != nil {
				return fmt.Errorf("read the stream: %w", explain(err))
			}
			if rd.next != nil && (first == nil || rd.sequence < first.sequence) {
				first = rd
			}
		}
		if first == nil {
			return nil
		}
		m, sequence := first.next, first.sequence
		for _, rd := range readers { // an owner's and a server's reader have the same one
			if rd.next != nil && rd.sequence == sequence {
				rd.next = nil
			}
		}
		if m.Headers().Get(ReplayHeader) != "" {
			continue
		}
		if err := do(m); err != nil {
			return err
		}
	}
}

// filters are the subjects to read, a consumer's each.
func (p *Past) filters() [][]string {
	var all [][]string
	add := func(ids []int64, before, after string) {
		for some := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(ids))), filtersAtOnce) {
			subjects := make([]string, len(some))
			for i, id := range some {
				subjects[i] = before + strconv.FormatInt(id, 10) + after
			}
			all = append(all, subjects)
		}
	}
	add(p.Owners, "virtfusion.users.", ".servers.*.*")
	add(p.Servers, "virtfusion.users.*.servers.", ".*")
	return all
}

// reader is one consumer of a part of the stream.
type reader struct {
	past     *Past
	consumer jetstream.Consumer
	messages jetstream.MessagesContext
	more     bool // there may be messages after next
	next     jetstream.Msg
	sequence uint64        // next's
	silent   time.Duration // since when the broker says nothing of it
}

// reader makes a consumer; nil: there is nothing for it.
func (r *Replayer) reader(ctx context.Context, past Past, filters []string, headersOnly bool) (*reader, error) {
	config := jetstream.OrderedConsumerConfig{
		FilterSubjects: filters, DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: headersOnly, InactiveThreshold: forgetReader,
		MaxResetAttempts: readTries,
	}
	if !past.Since.IsZero() {
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &past.Since
	}
	consumer, err := r.js.OrderedConsumer(ctx, StreamName, config)
	if err != nil {
		return nil, err
	}
	if consumer.CachedInfo().NumPending == 0 { // as it was made
		return nil, nil //nolint:nilnil // nothing to read is an answer
	}
	rd := &reader{past: &past, consumer: consumer, more: true}
	rd.messages, err = consumer.Messages(jetstream.PullHeartbeat(readBeat))
	return rd, err
}

// fill sets next, unless it is set or there is no more.
func (rd *reader) fill(ctx context.Context) error {
	for rd.next == nil && rd.more {
		wait, cancel := context.WithTimeout(ctx, readIdle)
		m, err := rd.messages.Next(jetstream.NextContext(wait))
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
			// What was announced may have been cut off meanwhile.
			info, err := rd.consumer.Info(ctx)
			if Passing(err) || errors.Is(err, jetstream.ErrConsumerNotFound) {
				// Its leader is gone, and it with it: the client makes another one,
				// which goes on where this one was.
				if rd.silent += readIdle; rd.silent < readPatience {
					continue
				}
			}
			if err != nil {
				return err
			}
			rd.more = info.NumPending > 0
			continue
		case err != nil:
			return err
		}
		rd.silent = 0
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		rd.more = meta.NumPending > 0 && meta.Sequence.Stream < rd.past.Last
		if meta.Sequence.Stream > rd.past.Last || !rd.past.Until.IsZero() && meta.Timestamp.After(rd.past.Until) {
			rd.more = false
			return nil
		}
		rd.next, rd.sequence = m, meta.Sequence.Stream
	}
	return nil
}

// Republish puts events on the stream again, in their order, and returns when
// all of them are on disk. The same event twice is published once. An error is
// as [Publisher.PublishAll]'s.
func (r *Replayer) Republish(ctx context.Context, events []*Event) error {
	seen := make(map[string]struct{}, len(events))
	distinct := make([]*Event, 0, len(events))
	for _, e := range events {
		if err := e.Seal(); err != nil {
			return err
		}
		if _, twice := seen[e.ID]; !twice {
			seen[e.ID] = struct{}{}
			distinct = append(distinct, e)
		}
	}
	return r.publisher.PublishAll(ctx, distinct)
}
