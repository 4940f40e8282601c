package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"serversync/api"
)

// watcher looks at a run until it no longer runs.
type watcher struct {
	client *adminClient
	meter  meter
	// every is the pause between two looks; the first ones come sooner.
	every time.Duration
	// patience is how long the service may not answer.
	patience time.Duration
	// unclaimed is how long nobody may work on a run before it is looked into.
	unclaimed time.Duration
	now       func() time.Time
}

func newWatcher(client *adminClient, out io.Writer, quiet bool) *watcher {
	w := &watcher{client: client, every: time.Second, patience: time.Minute, unclaimed: 5 * time.Second, now: time.Now}
	switch width, terminal := terminalWidth(out); {
	case quiet:
		w.meter = &lineMeter{out: out, every: -1}
	case terminal:
		w.every, w.meter = 300*time.Millisecond, &barMeter{out: out, width: width}
	default:
		w.meter = &lineMeter{out: out, every: 5 * time.Second}
	}
	return w
}

const (
	// firstLook is when a run is looked at for the second time; it may be over.
	firstLook = 100 * time.Millisecond
	// lookTimeout bounds one look.
	lookTimeout = 15 * time.Second
)

// watch returns a run once it is no longer running. An error means that the
// watching ended, not the run; it says how to go on.
func (w *watcher) watch(ctx context.Context, id string) (run api.Run, err error) {
	defer func() { w.meter.end() }()
	var lost, begun time.Time // since when: the service does not answer, nobody works on the run
	var told bool
	for pace := min(firstLook, w.every); ; pace = min(2*pace, w.every) {
		var seen api.Run
		err := w.look(ctx, id, &seen)
		switch now := w.now(); {
		case ctx.Err() != nil:
			return run, fmt.Errorf("stopped watching; run %s goes on. To watch it again: serversync sweep --watch %s", printable(id), printable(id))
		case err == nil:
			run, lost = seen, time.Time{}
			w.meter.show(&run, now)
			if run.State != "running" {
				return run, nil
			}
			if begun.IsZero() || !unclaimed(&run) {
				begun = now
			}
			if !told && now.Sub(begun) >= w.unclaimed {
				told, begun = w.tellUnclaimed(ctx, &run), now
			}
		case !mayPass(err):
			return run, err
		case lost.IsZero():
			lost = now
			w.meter.say(fmt.Sprintf("the service does not answer (%s); trying again for %s", printable(err.Error()), w.patience))
		case now.Sub(lost) >= w.patience:
			return run, fmt.Errorf("the service has not answered for %s; run %s goes on, or is taken up when the service is back. To watch it again: serversync sweep --watch %s",
				w.patience, printable(id), printable(id))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pace):
		}
	}
}

// unclaimed reports that a run waits for the process that sweeps.
func unclaimed(run *api.Run) bool {
	return run.Kind == "sweep" && run.Phase == "queued" || run.Phase == "approved"
}

func (w *watcher) look(ctx context.Context, id string, run *api.Run) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return w.client.call(ctx, http.MethodGet, runPath(id), nil, run)
}

// tellUnclaimed says so when no process is there to take a sweep, and reports
// whether it did.
func (w *watcher) tellUnclaimed(ctx context.Context, run *api.Run) bool {
	var o api.Overview
	if err := w.client.call(ctx, http.MethodGet, "/api/admin/overview", nil, &o); err != nil || o.Sweeping {
		return false
	}
	w.meter.say(fmt.Sprintf("no process with the role sweep is running: run %s waits until one is. Start serversync serve with that role; Ctrl-C ends the watching", printable(run.ID)))
	return true
}

// mayPass reports that the service may yet answer: it is away, starting, or
// without its database.
func mayPass(err error) bool {
	if refused, ok := errors.AsType[*apiError](err); ok {
		return refused.status >= http.StatusInternalServerError
	}
	_, away := errors.AsType[*noServiceError](err)
	return away
}
