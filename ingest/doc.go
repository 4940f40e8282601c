// Package ingest turns VirtFusion's state into events: what VirtFusion tells
// us (the webhook endpoint) and, later, what we ask it (sweeps and pulls).
// Whatever the way, one translator makes the event, and it copies an
// allow-list of fields: VirtFusion's objects carry passwords, keys and
// screenshots, and none of them may reach the stream, the database or a log.
package ingest
