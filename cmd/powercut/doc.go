// Command powercut proves that what serversync answered 202 survives a power
// cut. It runs the real binary in a virtual machine, posts webhooks to it over
// many connections, writes down which were answered 202, and at a random moment
// kills the machine: what was only in its memory is gone. The machine's disk is
// this program, and has a volatile cache, as real ones do: of what was written
// since the last flush it keeps a random part. Then the machine is started again
// on what is left, and the stream is compared with what was answered.
//
// Last come controls, which must lose something, or the rest proves nothing: the
// same ingest wired without the sync, and with one that does not make the answer
// wait.
//
// Everything stays on the loopback interface and beneath one temporary
// directory. What it starts it ends, by process id.
//
//	make powercut ROUNDS=20 SEED=7
package main
