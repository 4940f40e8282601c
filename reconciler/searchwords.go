package reconciler

import (
	"context"
	"time"

	"serversync/db"
)

const (
	// wordsInterval is how often it is looked for servers whose words, which
	// searches look at, are to be written anew.
	wordsInterval = time.Second
	// wordsLimit is how many are written at once: after a flood of events it is
	// them that the database is for.
	wordsLimit = 2000
)

// RunWords writes what searches look at, a while after the servers, until ctx
// ends. A search finds every server at once all the same; it is faster so.
func (r *Reconciler) RunWords(ctx context.Context) error {
	ticker := time.NewTicker(wordsInterval)
	defer ticker.Stop()
	pause := passingFaults()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, err := db.KeepWords(ctx, r.db, wordsLimit); err != nil && ctx.Err() == nil {
			wait := pause.NextBackOff()
			r.warn(err, 0, wait)
			sleep(ctx, wait)
			continue
		}
		pause.Reset()
	}
}
