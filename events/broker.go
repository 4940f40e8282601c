package events

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

// Broker is an embedded NATS server with JetStream, reachable from inside
// this process only: it listens on no port.
type Broker struct {
	server *server.Server
	lock   *flock.Flock
	store  *storeSync // nil: every write is synced by itself
}

// BrokerOption changes how a broker is started.
type BrokerOption func(*brokerOptions)

type brokerOptions struct{ syncEachWrite bool }

// SyncEachWrite has the broker sync every write before it acknowledges it, as it
// does by itself where [Broker.Sync] is not to be had.
func SyncEachWrite() BrokerOption { return func(o *brokerOptions) { o.syncEachWrite = true } }

// readyTimeout bounds the recovery of the store at start.
const readyTimeout = 60 * time.Second

// ErrStoreInUse means that another process has the embedded store
// open.
var ErrStoreInUse = errors.New("the embedded event store is in use")

// StartBroker starts an embedded broker on a store directory, which is made
// (mode 0700) when missing. Only one process may open a store: a second one
// gets [ErrStoreInUse].
//
// What the broker acknowledges has been written, but is on disk only after
// [Broker.Sync]: give that to [NewPublisher] and [NewDeadLetters]. Where Sync is
// nil every write is synced before it is acknowledged.
func StartBroker(dir string, log zerolog.Logger, opts ...BrokerOption) (*Broker, error) {
	var o brokerOptions
	for _, set := range opts {
		set(&o)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the event store's directory: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the event store %s: %w", dir, err)
	}
	if !locked {
		return nil, fmt.Errorf("%w: %s is open in another serversync process; stop it, or set NATS_URL to share a broker", ErrStoreInUse, dir)
	}
	b := &Broker{lock: lock}
	if !o.syncEachWrite {
		var why string
		if b.store, why, err = newStoreSync(dir); err != nil {
			return nil, errors.Join(err, lock.Unlock())
		}
		if b.store == nil {
			log.Info().Str("why", why).Msg("the event store syncs every write by itself, which is slower under load")
		}
	}
	if err := b.start(dir, log); err != nil {
		return nil, errors.Join(err, b.store.close(), lock.Unlock())
	}
	return b, nil
}

// Sync returns what brings everything that the broker has acknowledged to the
// disk; nil: it is there already.
func (b *Broker) Sync() func() error {
	if b.store == nil {
		return nil
	}
	return b.store.sync
}

func (b *Broker) start(dir string, log zerolog.Logger) error {
	srv, err := server.NewServer(&server.Options{
		ServerName: "serversync",
		DontListen: true,
		JetStream:  true,
		StoreDir:   dir,
		SyncAlways: b.store == nil,
		NoSigs:     true,
		MaxPayload: maxEventSize,
	})
	if err != nil {
		return fmt.Errorf("configure the embedded broker: %w", err)
	}
	fatal := make(chan string, 1)
	srv.SetLoggerV2(brokerLog{log.With().Str("part", "broker").Logger(), fatal, new(sync.Map)}, false, false, false)
	srv.Start()
	for deadline := time.Now().Add(readyTimeout); !srv.ReadyForConnections(readyCheck); {
		select {
		case reason := <-fatal:
			srv.Shutdown()
			return fmt.Errorf("the embedded broker cannot start on %s: %s; see that we may write there and that its disk has room", dir, reason)
		default:
		}
		if time.Now().After(deadline) {
			srv.Shutdown()
			return fmt.Errorf("the embedded broker was not ready within %s: see its log lines above; is the disk full?", readyTimeout)
		}
	}
	b.server = srv
	return nil
}

// readyCheck is how often a broker that starts is looked at.
const readyCheck = 100 * time.Millisecond

// maxEventSize bounds one event: a kept server is a few kilobytes.
const maxEventSize = 1 << 20

// Connect opens an in-process connection.
func (b *Broker) Connect() (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(b.server), nats.Name("serversync"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded broker: %w", err)
	}
	return nc, nil
}

// Stop shuts the broker down and lets go of the store. Connections must have
// been closed before.
func (b *Broker) Stop() error {
	b.server.Shutdown()
	b.server.WaitForShutdown()
	err := b.store.close()
	if unlocked := b.lock.Unlock(); unlocked != nil {
		err = errors.Join(err, fmt.Errorf("unlock the event store: %w", unlocked))
	}
	return err
}

// brokerLog passes the broker's log on: notices are debugging to us. The first
// fatal line goes to fatal too: the broker goes no further after it.
type brokerLog struct {
	log   zerolog.Logger
	fatal chan<- string
	kinds *sync.Map // of formats, which are few: *rate.Sometimes
}

func (l brokerLog) Noticef(format string, v ...any) { l.log.Debug().Msgf(format, v...) }
func (l brokerLog) Warnf(format string, v ...any)   { l.paced(zerolog.WarnLevel, format, v) }
func (l brokerLog) Errorf(format string, v ...any)  { l.paced(zerolog.ErrorLevel, format, v) }
func (l brokerLog) Debugf(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }
func (l brokerLog) Tracef(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }

// sayAgain is how often the broker's lines of one kind are passed on: one that
// cannot write says so for each message.
const sayAgain = 5 * time.Second

// paced passes on the first line of its kind, and then one each sayAgain.
func (l brokerLog) paced(level zerolog.Level, format string, v []any) {
	kind, _ := l.kinds.LoadOrStore(format, &rate.Sometimes{First: 1, Interval: sayAgain})
	kind.(*rate.Sometimes).Do(func() { l.log.WithLevel(level).Msgf(format, v...) }) //nolint:forcetypeassert // nothing else is stored
}

// Fatalf is said once, by a broker that cannot start.
func (l brokerLog) Fatalf(format string, v ...any) {
	l.log.Error().Msgf(format, v...)
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}

// Room is how large the stream may be here: the default size, or three
// quarters of what the disk had left for the store when it was opened.
func (b *Broker) Room() int64 { return b.RoomFor(defaultMaxBytes) }

// RoomFor is [Broker.Room] for a stream of the wanted size; 0 is the default one.
func (b *Broker) RoomFor(wanted int64) int64 {
	return min(cmp.Or(wanted, defaultMaxBytes), b.server.JetStreamConfig().MaxStore/4*3)
}
