package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/events"
)

// deadLetters are the events that could not be reconciled. Requeue and Discard
// return [events.ErrNoDeadLetter] when there is none of an id, Requeue
// [events.ErrNothingLeft] when the event itself is gone.
type deadLetters interface {
	// List returns up to limit of them, newest first, and the cursor of the next
	// page, 0 at the end. A cursor of 0 begins at the newest.
	List(ctx context.Context, cursor uint64, limit int) ([]events.DeadLetter, uint64, error)
	// Requeue puts the event back and deletes the dead letter.
	Requeue(ctx context.Context, id string) error
	Discard(ctx context.Context, id string) error
}

const (
	defaultLetters = 20
	maxLetters     = 100
)

// DeadLetter is an event that could not be reconciled. Times are UTC.
type DeadLetter struct {
	ID       string    `json:"id"`
	Reason   string    `json:"reason"` // the last fault, in words
	Attempts int       `json:"attempts"`
	FirstAt  time.Time `json:"firstAt"` // of the attempts
	LastAt   time.Time `json:"lastAt"`
	Subject  string    `json:"subject"`
	Sequence uint64    `json:"sequence"` // on the stream; 0: unknown
	StoredAt time.Time `json:"storedAt"`
	// Event is the event, when it can be read; else Text is what there is of it.
	Event   json.RawMessage `json:"event"`
	Text    *string         `json:"text"`
	Omitted bool            `json:"omitted"` // too large to be shown; it can be requeued
}

// maxShownText bounds what is shown of an event that is no JSON.
const maxShownText = 4096

// listDeadLetters answers GET /api/admin/dead-letters.
func (a *API) listDeadLetters(c echo.Context) error {
	limit, cursor, err := readLettersPage(c)
	if err != nil {
		return err
	}
	if a.letters == nil {
		return fault(ErrNotReady)
	}
	found, next, err := a.letters.List(c.Request().Context(), cursor, limit)
	if err != nil {
		return brokerFault(err)
	}
	page := Page[DeadLetter]{Items: make([]DeadLetter, len(found))}
	for i := range found {
		page.Items[i] = toDeadLetter(&found[i])
	}
	if next > 0 {
		page.NextCursor = new(strconv.FormatUint(next, 10))
	}
	return succeed(c, page)
}

func readLettersPage(c echo.Context) (limit int, cursor uint64, err error) {
	given, err := readParams(c, pageParams)
	if err != nil {
		return 0, 0, err
	}
	if limit, err = readLimit(given.Get("limit"), defaultLetters, maxLetters); err != nil {
		return 0, 0, err
	}
	if value := given.Get("cursor"); value != "" {
		if cursor, err = strconv.ParseUint(value, 10, 64); err != nil || cursor == 0 {
			return 0, 0, badRequest("bad_cursor", "cursor must be the nextCursor of the page before")
		}
	}
	return limit, cursor, nil
}

// requeueDeadLetter answers POST /api/admin/dead-letters/:id/requeue.
func (a *API) requeueDeadLetter(c echo.Context) error {
	return a.settleDeadLetter(c, "requeued: the event is tried again", deadLetters.Requeue)
}

// discardDeadLetter answers DELETE /api/admin/dead-letters/:id.
func (a *API) discardDeadLetter(c echo.Context) error {
	return a.settleDeadLetter(c, "discarded: the event is not tried again", deadLetters.Discard)
}

// Settled names a dead letter that there is no more.
type Settled struct {
	ID string `json:"id"`
}

func (a *API) settleDeadLetter(c echo.Context, message string, settle func(deadLetters, context.Context, string) error) error {
	if a.letters == nil {
		return fault(ErrNotReady)
	}
	id := c.Param("id")
	if err := settle(a.letters, c.Request().Context(), id); err != nil {
		return brokerFault(err)
	}
	a.log.Info().Str("by", caller(c).name).Str("letter", id).Msg("a dead letter was " + message)
	return c.JSON(http.StatusOK, successBody{Success: true, Message: message, Data: Settled{ID: id}})
}

// brokerFault is the answer to an error of the dead letters.
func brokerFault(err error) error {
	if errors.Is(err, events.ErrNoDeadLetter) {
		return refuse(http.StatusNotFound, "dead_letter_not_found", "there is no dead letter with this id (any more); GET /api/admin/dead-letters lists them")
	}
	if errors.Is(err, events.ErrNothingLeft) {
		return refuse(http.StatusConflict, "dead_letter_unusable", "nothing is left of this event that could be tried again: discard it; what the server looks like is learnt at the next sweep")
	}
	e := refuse(http.StatusServiceUnavailable, "broker_unavailable", "the broker cannot be used right now; GET /readyz says more")
	e.RetryAfter, e.Err = 5*time.Second, err
	return e
}

func toDeadLetter(d *events.DeadLetter) DeadLetter {
	v := DeadLetter{
		ID: d.ID, Reason: d.Reason, Attempts: d.Attempts, FirstAt: d.FirstAt.UTC(), LastAt: d.LastAt.UTC(),
		Subject: d.Subject, Sequence: d.Sequence, StoredAt: d.StoredAt.UTC(), Omitted: d.DataOmitted,
	}
	switch {
	case d.DataOmitted:
	case json.Valid(d.Data):
		v.Event = d.Data
	default:
		v.Text = new(shortened(string(d.Data), maxShownText))
	}
	return v
}
