package main

import (
	"context"
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
	billed := make(map[int64]int)                      // new billing rows, by the transaction that makes them
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
		owner := slices.IndexFunc(t.columns, func(c tableColumn) bool { return c.name == "billing_id" })
		parts := make([][]int64, transactions)
		for i := range all {
			for _, id := range part(added, i, transactions) {
				to := i
				if name == "public.virtfusion_hourly_billing" {
					billed[id] = i
				} else if row := t.rows[id]; owner >= 0 && row[owner] != nil { // not before the row that it refers to
					to = max(i, billed[asInt64(row[owner])])
				}
				parts[to] = append(parts[to], id)
			}
		}
		for i := range all {
			all[i] = t.insert(all[i], name, parts[i])
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

// asInt64 of what the driver gives for a number.
func asInt64(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case int32:
		return int64(n)
	}
	return 0
}
