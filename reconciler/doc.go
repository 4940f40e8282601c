// Package reconciler brings SkyPANEL's books in step with what VirtFusion was
// seen to say. It takes events off the stream a batch at a time and, for each
// server, observes (which is the newest observation?), matches (which billing
// rows are this server's?), decides (a pure function: [Decide]) and applies
// (one transaction for the batch, a constant number of statements), and only
// then acknowledges.
//
// It is the only package that changes billing rows.
package reconciler
