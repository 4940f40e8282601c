package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// pingSubject is where each running process of ours answers who it is.
const pingSubject = "serversync.ping"

// Presence is what a running process says of itself.
type Presence struct {
	Roles     []string  `json:"roles"`
	Version   string    `json:"version"`
	Host      string    `json:"host"`
	StartedAt time.Time `json:"startedAt"`
}

// AnswerPings answers [Ping] until stop is called. A broker that is away is
// subscribed to when it is back.
func AnswerPings(nc *nats.Conn, p Presence) (stop func(), err error) {
	answer, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode our presence: %w", err)
	}
	subscription, err := nc.Subscribe(pingSubject, func(m *nats.Msg) { _ = m.Respond(answer) }) // who asks waits no longer than it wants to
	if err != nil {
		return nil, fmt.Errorf("answer %s: %w", pingSubject, err)
	}
	return func() { _ = subscription.Unsubscribe() }, nil
}

// Ping asks all running processes who they are, and collects their answers until
// wait has passed. Who does not answer in time is not there. An account that may
// not ask gets [nats.ErrPermissionViolation].
func Ping(ctx context.Context, nc *nats.Conn, wait time.Duration) ([]Presence, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	inbox := nc.NewRespInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("ask who runs: %w", err)
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := nc.PublishRequest(pingSubject, inbox, nil); err != nil {
		return nil, fmt.Errorf("ask who runs: %w", err)
	}
	var all []Presence
	for {
		m, err := answers.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders):
			if refusal := nc.LastError(); len(all) == 0 && errors.Is(refusal, nats.ErrPermissionViolation) && strings.Contains(refusal.Error(), pingSubject) {
				return nil, fmt.Errorf("ask who runs: %w", refusal)
			}
			return all, nil
		case err != nil:
			return all, fmt.Errorf("ask who runs: %w", err)
		}
		var p Presence
		if json.Unmarshal(m.Data, &p) == nil && len(p.Roles) > 0 {
			all = append(all, p)
		}
	}
}
