package db_test

import (
	"strings"
	"testing"

	"github.com/uptrace/bun"
)

// shape lists what a schema is made of, one thing a line: what it is, its table,
// and the rest.
func shape(t *testing.T, database *bun.DB, schema string) []string {
	t.Helper()
	return strings.Split(table(t, database, `
		SELECT * FROM (
			SELECT format('column %s.%s %s null:%s default:%s identity:%s', c.table_name, c.column_name,
				concat_ws(' ', c.data_type, c.numeric_precision, c.numeric_scale, c.character_maximum_length), c.is_nullable, c.column_default, c.identity_generation)
			FROM information_schema.columns c WHERE c.table_schema = '`+schema+`'
			UNION ALL
			SELECT format('constraint %s.%s %s', r.relname, c.conname, pg_get_constraintdef(c.oid))
			FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid WHERE c.connamespace = '`+schema+`'::regnamespace
			UNION ALL
			SELECT format('index %s.%s %s', tablename, indexname, indexdef) FROM pg_indexes WHERE schemaname = '`+schema+`'
			UNION ALL
			SELECT format('function %s %s', p.oid::regprocedure, md5(p.prosrc)) FROM pg_proc p WHERE p.pronamespace = '`+schema+`'::regnamespace
			UNION ALL
			SELECT format('trigger %s.%s %s', r.relname, g.tgname, pg_get_triggerdef(g.oid))
			FROM pg_trigger g JOIN pg_class r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal AND r.relnamespace = '`+schema+`'::regnamespace
		) AS m (line) ORDER BY line COLLATE "C"`), "\n")
}
