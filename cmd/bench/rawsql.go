package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// rawRows is how many events raw SQL writes in one transaction.
const rawRows = 500

// byTrigger are tables that triggers fill: whoever writes the others writes them.
var byTrigger = []string{"serversync.server_words"}

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

// write is one statement of one transaction.
type write struct {
	table     string
	statement string
	args      []any
}

// since returns the transactions that make one snapshot of an earlier one, so
// many of them.
func (s snapshot) since(before snapshot, transactions int) ([][]write, error) {
	all := make([][]write, transactions)
	for _, name := range slices.Sorted(maps.Keys(s)) { // the tables of public first, which in this order refer to each other
		t, was := s[name], before[name]
		if t.key < 0 {
			if t.count != was.count {
				return nil, fmt.Errorf("%s has changed, and nobody has taught raw SQL how to write it", name)
			}
			continue
		}
		var added, changed []int64
		touched := make([]bool, len(t.columns))
		for id, row := range t.rows {
			old, known := was.rows[id]
			if !known {
				added = append(added, id)
				continue
			}
			differs := false
			for i := range row {
				if !reflect.DeepEqual(row[i], old[i]) {
					touched[i], differs = true, true
				}
			}
			if differs {
				changed = append(changed, id)
			}
		}
		for i := range all {
			all[i] = t.insert(all[i], name, part(added, i, transactions))
			all[i] = t.update(all[i], name, touched, part(changed, i, transactions))
		}
	}
	return all, nil
}

// part is the ith of n parts of some keys, sorted.
func part(ids []int64, i, n int) []int64 {
	slices.Sort(ids)
	return ids[len(ids)*i/n : len(ids)*(i+1)/n]
}

func (t *contents) insert(to []write, name string, ids []int64) []write {
	if len(ids) == 0 {
		return to
	}
	every := make([]int, len(t.columns))
	for i := range every {
		every[i] = i
	}
	from, values, args := t.arrays(every, ids)
	return append(to, write{name, fmt.Sprintf(`INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s`, name, t.names(every), values, from), args})
}

func (t *contents) update(to []write, name string, touched []bool, ids []int64) []write {
	if len(ids) == 0 {
		return to
	}
	columns := []int{t.key}
	var sets []string
	for i, is := range touched {
		if is {
			columns = append(columns, i)
		}
	}
	from, values, args := t.arrays(columns, ids)
	for i, value := range strings.Split(values, ", ")[1:] {
		sets = append(sets, t.columns[columns[i+1]].name+" = "+value)
	}
	key := t.columns[t.key].name
	return append(to, write{name, fmt.Sprintf(`UPDATE %s t SET %s FROM %s WHERE t.%s = v.%s`, name, strings.Join(sets, ", "), from, key, key), args})
}

func (t *contents) names(columns []int) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = t.columns[c].name
	}
	return strings.Join(all, ", ")
}

// arrays are columns of some rows, as unnest takes them, and how their values
// are written behind it.
func (t *contents) arrays(columns []int, ids []int64) (from, values string, args []any) {
	var params, selected []string
	for i, c := range columns {
		column := t.columns[c]
		typ, cast := column.typ, ""
		var arg any
		switch typ {
		case "integer", "bigint":
			arg = columnOf[int64](t, c, ids)
		case "boolean":
			arg = columnOf[bool](t, c, ids)
		case "timestamp with time zone", "timestamp without time zone":
			arg = columnOf[time.Time](t, c, ids)
		case "text":
			arg = columnOf[string](t, c, ids)
		default: // as the service does it: text, which PostgreSQL reads
			arg, cast, typ = textOf(t, c, ids), "::"+typ, "text"
		}
		args = append(args, arg)
		params = append(params, fmt.Sprintf("$%d::%s[]", i+1, typ))
		selected = append(selected, "v."+column.name+cast)
	}
	return fmt.Sprintf("unnest(%s) AS v (%s)", strings.Join(params, ", "), t.names(columns)), strings.Join(selected, ", "), args
}

// columnOf is a column of some rows.
func columnOf[T any](t *contents, column int, ids []int64) []*T {
	all := make([]*T, len(ids))
	for i, id := range ids {
		if v, ok := t.rows[id][column].(T); ok {
			all[i] = &v
		}
	}
	return all
}

func textOf(t *contents, column int, ids []int64) []*string {
	all := make([]*string, len(ids))
	for i, id := range ids {
		switch v := t.rows[id][column].(type) {
		case nil:
		case []byte:
			all[i] = new(string(v))
		default:
			all[i] = new(fmt.Sprint(v))
		}
	}
	return all
}

// write does transactions, one after the other on one connection, and returns
// how long that took, and of it each table.
func (k *books) write(ctx context.Context, all [][]write) (took time.Duration, byTable map[string]time.Duration, err error) {
	conn, err := pgx.Connect(ctx, k.dsn)
	if err != nil {
		return 0, nil, fmt.Errorf("connect: %w", err)
	}
	byTable = make(map[string]time.Duration)
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	started := time.Now()
	for _, writes := range all {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return 0, nil, fmt.Errorf("begin: %w", err)
		}
		for _, w := range writes {
			before := time.Now()
			if _, err := tx.Exec(ctx, w.statement, w.args...); err != nil {
				return 0, nil, fmt.Errorf("%s: %w", w.statement, err)
			}
			byTable[w.table] += time.Since(before)
		}
		if err := tx.Commit(ctx); err != nil {
			return 0, nil, fmt.Errorf("commit: %w", err)
		}
	}
	return time.Since(started), byTable, nil
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
