package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

type options struct {
	maxConns int
	appName  string
}

// Option adjusts [Open].
type Option func(*options)

// WithMaxConns bounds the pool; the default is 10. SkyPANEL shares the server,
// so the pool stays small.
func WithMaxConns(n int) Option { return func(o *options) { o.maxConns = n } }

// WithApplicationName sets what pg_stat_activity shows; the default is
// "serversync".
func WithApplicationName(name string) Option { return func(o *options) { o.appName = name } }

// Open returns a bun database over pgx. It connects lazily: an error means
// that the DSN cannot be parsed, never that the server is away. The DSN is a
// URL or a keyword/value string as libpq reads it; of several hosts the first is
// used that fits target_session_attrs.
func Open(dsn string, opts ...Option) (*bun.DB, error) {
	o := options{maxConns: 10, appName: "serversync"}
	for _, opt := range opts {
		opt(&o)
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("parse the database DSN: %w", err)
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = o.appName
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	pool := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(prepareSession), stdlib.OptionResetSession(leaveStandby))
	pool.SetMaxOpenConns(o.maxConns)
	pool.SetMaxIdleConns(o.maxConns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	return bun.NewDB(pool, pgdialect.New()), nil
}

// leaveStandby has the pool drop a connection to a server that only reads, when
// it is taken up again: after a failover the name may lead to another one by
// now. PostgreSQL tells its clients by itself what it is.
func leaveStandby(_ context.Context, conn *pgx.Conn) error {
	if conn.PgConn().ParameterStatus("in_hot_standby") == "on" {
		return driver.ErrBadConn
	}
	return nil
}

// ErrReadOnly means that the server is a standby, or lets us read alone.
var ErrReadOnly = errors.New("this PostgreSQL is read-only; see that DATABASE_URL leads to the primary: list all hosts, and add target_session_attrs=read-write")

// Writable returns nil when the database answers and can be written to, and
// [ErrReadOnly] when it answers and cannot.
func Writable(ctx context.Context, database *bun.DB) error {
	var readOnly bool
	if err := database.NewRaw(`SELECT current_setting('transaction_read_only')::bool`).Scan(ctx, &readOnly); err != nil {
		return err
	}
	if readOnly {
		return ErrReadOnly
	}
	return nil
}

// prepareSession fixes what a batch's statements rely on. A client that vanished
// without a word, with its machine, is given up after half a minute, not after
// the hours that are the kernel's default: its locks on servers, and on the
// lead, would keep everybody else waiting. Plans are made anew
// for each execution: a generic plan cached while a table was nearly empty
// would go on scanning it as it grows, and planning costs little beside a
// batch. A page at random costs about as much as the next one: by PostgreSQL's
// default, which has disks in mind that turn, a batch of 500 would rather read
// 50,000 rows whole, in 42 ms instead of 6. Both are set by a statement rather
// than as a start-up parameter, since connection poolers refuse unknown
// start-up parameters.
func prepareSession(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `SET plan_cache_mode = force_custom_plan; SET random_page_cost = 1.1; SET TIME ZONE 'UTC';
		SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3`); err != nil {
		return fmt.Errorf("prepare the database session: %w", err)
	}
	return nil
}

// native is database/sql beneath bun. bun writes arguments into the SQL text;
// a batch's arrays go as real parameters instead, so that the text stays the
// same, is prepared once, and PostgreSQL parses no literals.
type native interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// nativeOf finds the database/sql handle that a bun handle wraps.
func nativeOf(idb bun.IDB) native {
	switch h := idb.(type) {
	case bun.Tx:
		return h.Tx
	case *bun.DB:
		return h.DB
	case bun.Conn:
		return h.Conn
	default:
		panic(fmt.Sprintf("db: no native handle beneath %T", idb)) // a programming error: bun has only these three
	}
}

// queryAll runs a statement with native parameters and collects its rows;
// scan reads one of them.
func queryAll[T any](ctx context.Context, idb bun.IDB, scan func(*sql.Rows) (T, error), statement string, args ...any) ([]T, error) {
	rows, err := nativeOf(idb).QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err below reports what matters
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}
