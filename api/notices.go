package api

import (
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	defaultNotices = 50
	maxNotices     = 200
)

// Notice is something that administrators are told of. Times are UTC.
type Notice struct {
	ID       int64     `json:"id"`
	Kind     string    `json:"kind"` // see docs/notifications.md
	Severity string    `json:"severity"`
	Title    string    `json:"title"`
	Message  string    `json:"message"`  // may hold names that customers chose
	ServerID *int64    `json:"serverId"` // VirtFusion's; null: no single server
	RunID    *string   `json:"runId"`    // null: no run
	At       time.Time `json:"at"`       // when it was found
	// Deliveries are one for each channel that tells of it; none: none was on.
	Deliveries []NoticeDelivery `json:"deliveries"`
}

// NoticeDelivery is what became of a notice by a channel.
type NoticeDelivery struct {
	Channel     string     `json:"channel"` // "skypanel", "webhook", "email"
	State       string     `json:"state"`   // "delivered", "waiting", "failing", "given_up"
	MessageID   string     `json:"messageId"`
	Attempts    int64      `json:"attempts"`
	Error       *string    `json:"error"`       // of the last attempt; null: none failed
	NextAt      *time.Time `json:"nextAt"`      // when it is tried (again); null: it is not
	DeliveredAt *time.Time `json:"deliveredAt"` // null: not yet
}

// listNotices answers GET /api/admin/notices.
func (a *API) listNotices(c echo.Context) error {
	given, err := readParams(c, append([]string{"undelivered"}, pageParams...))
	if err != nil {
		return err
	}
	limit, err := readLimit(given.Get("limit"), defaultNotices, maxNotices)
	if err != nil {
		return err
	}
	var before int64
	if value := given.Get("cursor"); value != "" {
		if before, err = strconv.ParseInt(value, 10, 64); err != nil || before < 1 {
			return badRequest("bad_cursor", "cursor must be the nextCursor of the page before")
		}
	}
	undelivered := false
	if value := given.Get("undelivered"); value != "" {
		if undelivered, err = strconv.ParseBool(value); err != nil {
			return badRequest("bad_undelivered", "undelivered must be true or false")
		}
	}
	found, err := db.SentNotices(c.Request().Context(), a.db, before, undelivered, limit+1)
	if err != nil {
		return fault(err)
	}
	page := Page[Notice]{Items: make([]Notice, 0, limit)}
	if len(found) > limit {
		found = found[:limit]
		page.NextCursor = new(strconv.FormatInt(found[limit-1].ID, 10))
	}
	now := a.now()
	for i := range found {
		page.Items = append(page.Items, toNotice(&found[i], now))
	}
	return succeed(c, page)
}

func toNotice(n *db.SentNotice, now time.Time) Notice {
	v := Notice{
		ID: n.ID, Kind: n.Kind, Severity: string(n.Severity), Title: n.Title, Message: n.Message, ServerID: n.ServerID, RunID: orNull(n.RunID),
		At: n.At.UTC(), Deliveries: make([]NoticeDelivery, len(n.Deliveries)),
	}
	for i := range n.Deliveries {
		d := &n.Deliveries[i]
		to := NoticeDelivery{
			Channel: d.Channel, State: "waiting", MessageID: d.MessageID, Attempts: d.Attempts, Error: orNull(d.Error), DeliveredAt: utc(d.DeliveredAt),
		}
		switch {
		case d.DeliveredAt != nil:
			to.State = "delivered"
		case !now.Before(d.GivenUpAt()):
			to.State = "given_up"
		case d.Error != "":
			to.State = "failing"
		}
		if to.State == "waiting" || to.State == "failing" {
			to.NextAt = new(d.NextAt.UTC())
		}
		v.Deliveries[i] = to
	}
	return v
}
