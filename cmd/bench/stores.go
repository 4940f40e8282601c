package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/pgserver"
	"serversync/db/skypanelsim"
	"serversync/events"
)

// stores is the PostgreSQL of a run, started when it is first needed.
type stores struct {
	postgres *pgserver.Server
	made     int
}

// templateName is the database that all others are copies of: migrated, with the
// company in it.
const templateName = "bench_template"

// startTimeout bounds the start of PostgreSQL.
const startTimeout = 2 * time.Minute

func (b *bench) startPostgres(ctx context.Context) error {
	if b.stores.postgres != nil {
		return nil
	}
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	b.stores.postgres, err = pgserver.Start(start, pgserver.Config{Dir: filepath.Join(b.dir, "postgres"), Durability: pgserver.Durable, Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	if err := b.admin(ctx, `CREATE DATABASE `+templateName); err != nil {
		return err
	}
	database, err := db.Open(b.stores.postgres.DSN(templateName))
	if err != nil {
		return err
	}
	if _, err = db.Migrate(ctx, database, db.MigrateOptions{CreateSkyPANEL: true}); err == nil {
		err = skypanelsim.Seed(ctx, database, company())
	}
	return errors.Join(err, database.Close())
}

// admin does something that concerns whole databases.
func (b *bench) admin(ctx context.Context, statement string) error {
	database, err := db.Open(b.stores.postgres.DSN("postgres"), db.WithMaxConns(1))
	if err != nil {
		return err
	}
	if _, err := database.DB.ExecContext(ctx, statement); err != nil {
		err = fmt.Errorf("%s: %w", statement, err)
		return errors.Join(err, database.Close())
	}
	return database.Close()
}

// books is a database.
type books struct {
	*bun.DB

	name, dsn string
	bench     *bench
}

// books copies a database; whoever gets it drops it.
func (b *bench) books(ctx context.Context, from string) (*books, error) {
	if err := b.startPostgres(ctx); err != nil {
		return nil, err
	}
	b.stores.made++
	k := &books{name: fmt.Sprintf("bench_%d", b.stores.made), bench: b}
	if err := b.admin(ctx, `CREATE DATABASE `+k.name+` TEMPLATE `+from+` STRATEGY file_copy`); err != nil {
		return nil, err
	}
	k.dsn = b.stores.postgres.DSN(k.name)
	var err error
	k.DB, err = db.Open(k.dsn)
	return k, err
}

// drop closes and drops the database.
func (k *books) drop(ctx context.Context) error {
	return errors.Join(k.Close(), k.bench.admin(context.WithoutCancel(ctx), `DROP DATABASE `+k.name+` WITH (FORCE)`))
}

// disconnect ends what is open, so that the database can be copied; what is
// done with it next connects again.
func (k *books) disconnect() error {
	if err := k.Close(); err != nil {
		return fmt.Errorf("disconnect from %s: %w", k.name, err)
	}
	var err error
	k.DB, err = db.Open(k.dsn)
	return err
}

// exec runs statements on one connection.
func (k *books) exec(ctx context.Context, statements ...string) error {
	conn, err := k.DB.DB.Conn(ctx)
	if err != nil {
		return err
	}
	for _, s := range statements {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			first, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
			return errors.Join(fmt.Errorf("%s: %w", first, err), conn.Close())
		}
	}
	return conn.Close()
}

// count counts a table's rows.
func (k *books) count(ctx context.Context, table string) (int64, error) {
	var n int64
	err := k.DB.DB.QueryRowContext(ctx, `SELECT count(*) FROM `+table).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", table, err)
	}
	return n, nil
}

// settle leaves the next measurement nothing to do that is not its own.
func (k *books) settle(ctx context.Context) error { return k.exec(ctx, `CHECKPOINT`) }

func (s *stores) close(ctx context.Context) error {
	if s.postgres == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return s.postgres.Stop(ctx)
}

// broker is an embedded broker with the stream on it.
type broker struct {
	*events.Broker

	nc        *nats.Conn
	js        jetstream.JetStream
	consumer  jetstream.Consumer
	publisher *events.Publisher
}

func (b *bench) startBroker(ctx context.Context, name string, opts ...events.BrokerOption) (*broker, error) {
	var k broker
	var err error
	if k.Broker, err = events.StartBroker(filepath.Join(b.dir, name), zerolog.Nop(), opts...); err != nil {
		return nil, err
	}
	if k.nc, err = k.Connect(); err != nil {
		return nil, errors.Join(err, k.Stop())
	}
	fail := func(err error) (*broker, error) {
		k.nc.Close()
		return nil, errors.Join(err, k.Stop())
	}
	if k.js, err = jetstream.New(k.nc); err != nil {
		return fail(fmt.Errorf("use JetStream: %w", err))
	}
	if k.consumer, err = events.EnsureStream(ctx, k.js, events.StreamOptions{MaxBytes: k.Room()}); err != nil {
		return fail(err)
	}
	if k.publisher, err = events.NewPublisher(k.nc, events.WithSync(k.Sync())); err != nil { //nolint:contextcheck // its groups belong to nobody's context
		return fail(err)
	}
	return &k, nil
}

func (k *broker) close() error {
	k.publisher.Close()
	k.nc.Close()
	return k.Stop()
}

// purge empties the stream.
func (k *broker) purge(ctx context.Context) error {
	stream, err := k.js.Stream(ctx, events.StreamName)
	if err != nil {
		return fmt.Errorf("look up the stream: %w", err)
	}
	if err := stream.Purge(ctx); err != nil {
		return fmt.Errorf("empty the stream: %w", err)
	}
	return nil
}

// queue is how many events the reconciler has not acknowledged.
func (k *broker) queue(ctx context.Context) (int64, error) { return events.QueueDepth(ctx, k.js) }
