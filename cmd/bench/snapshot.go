package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// byTrigger are tables that triggers fill: whoever writes the others writes them.
var byTrigger = []string{"serversync.words_due"}

// snapshot is what was in all tables, by their names.
type snapshot map[string]*contents

// contents are a table's.
type contents struct {
	columns []tableColumn
	key     int // the column that is the primary key; -1: there is no such one
	rows    map[int64][]any
	count   int64
}

type tableColumn struct{ name, typ string }

// snapshot reads all tables. Of those whose key is not one number it only
// counts the rows.
func (k *books) snapshot(ctx context.Context) (snapshot, error) {
	tables, err := k.tables(ctx)
	if err != nil {
		return nil, err
	}
	for name, t := range tables {
		if err := k.read(ctx, name, t); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return tables, nil
}

// tables are those of SkyPANEL and ours, without their rows.
func (k *books) tables(ctx context.Context) (snapshot, error) {
	rows, err := k.DB.DB.QueryContext(ctx, `
		SELECT n.nspname || '.' || c.relname, a.attname, format_type(a.atttypid, NULL),
			coalesce(i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND a.atttypid IN ('int4'::regtype, 'int8'::regtype), false)
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
		WHERE c.relkind = 'r' AND n.nspname IN ('public', 'serversync')
		ORDER BY c.oid, a.attnum`)
	if err != nil {
		return nil, fmt.Errorf("look for tables: %w", err)
	}
	defer rows.Close()
	found := make(snapshot)
	for rows.Next() {
		var table string
		var c tableColumn
		var key bool
		if err := rows.Scan(&table, &c.name, &c.typ, &key); err != nil {
			return nil, fmt.Errorf("look for tables: %w", err)
		}
		if slices.Contains(byTrigger, table) {
			continue
		}
		t := found[table]
		if t == nil {
			t = &contents{key: -1, rows: make(map[int64][]any)}
			found[table] = t
		}
		if key {
			t.key = len(t.columns)
		}
		t.columns = append(t.columns, c)
	}
	return found, rows.Err()
}

func (k *books) read(ctx context.Context, name string, t *contents) error {
	if t.key < 0 {
		var err error
		t.count, err = k.count(ctx, name)
		return err
	}
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = pgx.Identifier{c.name}.Sanitize()
	}
	rows, err := k.DB.DB.QueryContext(ctx, `SELECT `+strings.Join(names, ", ")+` FROM `+name) //nolint:gosec // G202: our own tables
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		row := make([]any, len(t.columns))
		into := make([]any, len(row))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		id, ok := row[t.key].(int64)
		if !ok {
			return fmt.Errorf("its key is %T, not a number", row[t.key])
		}
		t.rows[id] = row
	}
	t.count = int64(len(t.rows))
	return rows.Err()
}

// errDiffer means that two ways of writing the same did not write the same.
var errDiffer = errors.New("raw SQL has not written what the reconciler has written")

// sameAs compares what is in all tables of two databases, those that triggers
// fill too.
func (k *books) sameAs(ctx context.Context, other *books) error {
	tables, err := k.tables(ctx)
	if err != nil {
		return err
	}
	for _, name := range append(slices.Collect(maps.Keys(tables)), byTrigger...) {
		if name == "serversync.migrations" {
			continue
		}
		a, err := k.sum(ctx, name)
		if err != nil {
			return err
		}
		b, err := other.sum(ctx, name)
		if err != nil {
			return err
		}
		if a != b {
			return fmt.Errorf("%w: %s has %s there, %s here", errDiffer, name, b, a)
		}
	}
	return nil
}

// sum is how many rows a table has, and what is in them.
func (k *books) sum(ctx context.Context, name string) (string, error) {
	var sum sql.NullString
	err := k.DB.DB.QueryRowContext(ctx, `SELECT count(*) || ' rows of the sum ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM `+name+` t`).Scan(&sum)
	if err != nil {
		return "", fmt.Errorf("add up %s: %w", name, err)
	}
	return sum.String, nil
}
