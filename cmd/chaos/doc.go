// Command chaos proves that what serversync answered 202 is in the books, once,
// whatever crashes. It runs the real binary with its embedded stores on a
// directory of its own, sends it the webhooks of a simulated VirtFusion with a
// living fleet, writes down which were answered 202, and meanwhile kills the
// service or its PostgreSQL, fills the disk, or takes permissions away. In the
// end it compares what was answered with the stream and the books.
//
// Everything stays on the loopback interface and beneath one temporary
// directory. What it starts it ends, by process id.
//
//	make chaos ROUNDS=100 SEED=7
package main
