package db_test

import (
	"testing"
	"time"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestHowTheBooksStand(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	read := func() db.BooksState {
		t.Helper()
		s, err := db.ReadBooksState(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := read(); s.LastSweep != nil || s.LastComplete != nil || s.Missing != 0 || s.BooksPassAt != nil || len(s.Servers) != 0 {
		t.Errorf("of empty books: %+v", s)
	}

	began := runNow()
	sweep := func(id, state string, started time.Time, total int64, dryRun bool) {
		t.Helper()
		exec(t, database, `INSERT INTO serversync.runs (id, kind, state, phase, dry_run, requested_by, started_at, ended_at, beat_at, worker, progress, problems, note)
			VALUES (?, 'sweep', ?, 'ended', ?, 'clock', ?, ?, ?, '', jsonb_build_object('total', ?::bigint, 'since', ?::timestamptz), '[]', '')`,
			id, state, dryRun, started, started.Add(time.Minute), started, total, started.Add(time.Second))
	}
	server := func(id int64, status string, first, last time.Time) {
		t.Helper()
		exec(t, database, `INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
			VALUES (?, ?, ?, 'sweep', 'e', ?, ?)`, id, status, first, first, last)
	}
	sweep("complete", db.RunSucceeded, began, 5, false)
	sweep("later", db.RunIncomplete, began.Add(time.Hour), 900, false)
	sweep("dry", db.RunSucceeded, began.Add(2*time.Hour), 900, true)
	day := 24 * time.Hour
	server(1, "external", began.Add(-day), began.Add(2*time.Second)) // listed
	server(2, "conflict", began.Add(30*time.Second), began.Add(day)) // found by it, and seen since
	server(3, "gone", began.Add(-day), began.Add(time.Minute))       // listed, gone since
	server(4, "external", began.Add(-day), began.Add(-time.Minute))  // not listed
	server(5, "external", began.Add(time.Hour), began.Add(day))      // made later: makes up for nobody

	s := read()
	if s.LastComplete == nil || s.LastComplete.ID != "complete" || s.LastComplete.Servers != 5 || !s.LastComplete.At.Equal(began.Add(time.Minute)) {
		t.Errorf("the last complete sweep: %+v", s.LastComplete)
	}
	if s.LastSweep == nil || s.LastSweep.ID != "later" || s.LastSweep.State != db.RunIncomplete {
		t.Errorf("the last sweep: %+v", s.LastSweep)
	}
	if s.Missing != 2 {
		t.Errorf("%d servers are missing, want 2 of the 5 that were listed", s.Missing)
	}
	var counted int64
	for _, c := range s.Servers {
		counted += c.Servers
	}
	if counted != 4 {
		t.Errorf("%d servers are counted, want the 4 that are not gone", counted)
	}
}
