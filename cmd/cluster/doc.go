// Command cluster proves that what serversync answered 202 is in the books, once,
// when it runs on many machines and any of them fails. It runs a real cluster of
// three NATS servers, two ingest, two reconcile and two api processes of the real
// binary (both of which also sweep, if they lead), and a real PostgreSQL; each NATS
// server is reached through links that can be cut. Under a steady load of webhooks
// of a simulated VirtFusion, which tries the other ingest when one does not answer
// 202, it kills processes, moves and kills leaders, cuts servers off, takes the
// majority away, ends PostgreSQL, and restarts everything in turn; meanwhile it
// asks /readyz for the truth. In the end it compares what was answered with the
// stream and the books.
//
// Everything stays on the loopback interface and beneath one temporary
// directory. What it starts it ends, by process id.
//
//	make cluster ROUNDS=15 SEED=7
package main
