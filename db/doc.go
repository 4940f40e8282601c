// Package db holds what serversync keeps and reads in PostgreSQL: bun models
// of SkyPANEL's tables and of our own schema "serversync", the migrations, and
// every SQL statement.
//
// serversync is a guest in SkyPANEL's database. SkyPANEL's tables get columns
// and indexes at most; everything else of ours lives in the schema
// "serversync". SkyPANEL's timestamps are "timestamp without time zone",
// written as UTC; ours are "timestamp with time zone".
//
// Queries take a [bun.IDB], so that the caller owns the transaction. A batch
// costs a constant number of statements: rows travel as arrays, one per
// column, and are joined through unnest.
package db
