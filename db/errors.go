package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Fault says what an error of the database means for the work that met it.
type Fault int

// The faults.
const (
	// FaultPassing: the database is away, busy, or another transaction was
	// first. The same work will succeed later.
	FaultPassing Fault = iota
	// FaultOfData: PostgreSQL refuses a value. The same work will never
	// succeed; work beside it may.
	FaultOfData
	// FaultOfSetup: a table, column or privilege is missing. Nothing will
	// succeed until somebody mends it, and no data is to blame.
	FaultOfSetup
)

// Stale reports that the work was decided from rows that have changed since:
// one is not as it was read ([ErrStale]), or the user whom it names was
// deleted meanwhile. Deciding again from fresh rows will most likely do.
func Stale(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return errors.Is(err, ErrStale) || ok && pg.Code == "23503" // foreign_key_violation
}

// ColumnMissing reports that a column which a statement names does not exist:
// SkyPANEL's schema tool may have dropped it. [AddMissingColumns] adds it again
// if it is one of ours.
func ColumnMissing(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "42703" // undefined_column
}

// Remedy says what a person has to do about an error of the database.
func Remedy(err error) string {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if Classify(err) == FaultPassing {
			return "see that PostgreSQL runs, and that this machine reaches the host and port of DATABASE_URL"
		}
		return "run `serversync doctor`: it says what is missing"
	}
	switch class := pg.Code[:min(2, len(pg.Code))]; {
	case pg.Code == "42P01" && strings.Contains(pg.Message, `"public.`): // SkyPANEL's table
		return "DATABASE_URL must be SkyPANEL's own database, with all of SkyPANEL's tables: `serversync doctor` names those that are missing"
	case pg.Code == "42703", pg.Code == "42P01", class == "3F": // column, table, schema
		return "as the owner of the tables, run `serversync migrate`: it adds what is missing"
	case pg.Code == "42501": // insufficient_privilege
		return "grant our role what it lacks: `serversync doctor` lists it"
	case class == "28":
		return "check the user and the password of DATABASE_URL, and pg_hba.conf"
	case class == "3D":
		return "check the database name of DATABASE_URL"
	case pg.Code == "53300": // too_many_connections
		return "as a superuser raise max_connections (then restart PostgreSQL), or the role's limit: ALTER ROLE … CONNECTION LIMIT -1"
	case pg.Code == "57014": // query_canceled
		return "see that the role's statement_timeout leaves a minute (ALTER ROLE … SET statement_timeout = '60s'), and whether PostgreSQL is overloaded"
	case class == "57", class == "08":
		return "see that PostgreSQL runs; while it starts, wait for it"
	default:
		return "run `serversync doctor`; if it finds nothing, report this line"
	}
}

// Classify sorts an error by what to do about it. Errors that do not come
// from the database are [FaultOfData]: the work itself is at fault.
func Classify(err error) Fault {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch class := pg.Code[:min(2, len(pg.Code))]; class {
		case "21", "22", "23", "54": // cardinality violation, data exception, integrity constraint violation, a value beyond PostgreSQL's limits
			return FaultOfData
		case "42", "3D", "3F", "28": // undefined or forbidden object, unknown database or schema, refused role
			return FaultOfSetup
		default: // 08 connection, 40 rollback, 53 resources, 55 lock, 57 operator, 58 system, XX internal
			return FaultPassing
		}
	}
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.Is(err, ErrStale),
		errors.As(err, &connect), errors.As(err, &network),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, sql.ErrTxDone),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		pgconn.SafeToRetry(err), strings.Contains(err.Error(), "conn closed"): // pgx has no sentinel for its closed connection
		return FaultPassing
	}
	return FaultOfData
}
