package events

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// liveSubject is where is announced what just happened, on core NATS: nothing of
// it is kept. Whoever missed something reads the database, which has it all.
const liveSubject = "serversync.live"

// The types of announcements.
const (
	LiveRun    = "run"    // a run has come further, or has ended: read it
	LiveServer = "server" // something of a server changed
)

// Announcement is something that just happened.
type Announcement struct {
	Type  string `json:"type"`
	RunID string `json:"runId,omitempty"`
	// UserID is the SkyPANEL user whom it concerns; nil: nobody in particular.
	UserID *int64 `json:"userId,omitempty"`
	// Server is set for [LiveServer].
	Server *ServerChange `json:"server,omitempty"`
}

// ServerChange is what became of one server.
type ServerChange struct {
	ID      int64  `json:"id"` // VirtFusion's
	Name    string `json:"name"`
	Status  string `json:"status"`
	Billing string `json:"billing"` // 'on', 'off'
	Reason  string `json:"billingReason,omitempty"`
	Outcome string `json:"outcome"` // 'new', 'updated', 'unchanged'
	What    string `json:"what"`    // in words
}

// Live announces what just happened to whoever watches, in this process and in
// others. Nothing waits for it, and nothing rests on it.
type Live struct {
	nc  *nats.Conn
	log zerolog.Logger
}

// NewLive announces over a connection.
func NewLive(nc *nats.Conn, log zerolog.Logger) *Live { return &Live{nc: nc, log: log} }

// Announce tells it to whoever watches now. A broker that is away drops it.
func (l *Live) Announce(a Announcement) {
	data, err := json.Marshal(a)
	if err == nil {
		err = l.nc.Publish(liveSubject+"."+a.Type, data)
	}
	if err != nil {
		l.log.Debug().Err(err).Msg("an announcement was lost")
	}
}

// Watch calls hear for each announcement, one after the other, until stop is
// called. hear must not wait for anybody.
func (l *Live) Watch(hear func(Announcement)) (stop func(), err error) {
	subscription, err := l.nc.Subscribe(liveSubject+".*", func(m *nats.Msg) {
		var a Announcement
		if err := json.Unmarshal(m.Data, &a); err != nil {
			l.log.Debug().Err(err).Msg("an announcement cannot be read")
			return
		}
		hear(a)
	})
	if err != nil {
		return nil, fmt.Errorf("watch what happens: %w", err)
	}
	return func() { _ = subscription.Unsubscribe() }, nil
}
