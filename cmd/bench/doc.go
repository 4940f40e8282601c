// Command bench proves the speed. It runs the real parts (the webhook endpoint
// over TCP, the embedded broker, the reconciler, the sweep, the API) on a real
// PostgreSQL, both as durable as in production, beneath one temporary
// directory, and beside each of them what the same machine can do at best, or
// what the plain way of doing it costs: in the same run, in alternating rounds,
// so that a machine that others use too slows both. The load client is in the
// same process and shares its processors.
//
// It prints a line `ratio NAME VALUE` for each comparison, and writes all
// figures to docs/performance.md.
//
//	make bench
//	make bench BENCH='ingest|growth' ROUNDS=3
//	make profile BENCH=reconcile
package main
