package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"serversync/db"
)

// minSecret is the least length of a secret, in bytes, that Standard Webhooks
// allows.
const minSecret = 24

// Webhook tells by HTTP, signed as standardwebhooks.com describes.
type Webhook struct {
	url    string
	signer *standardwebhooks.Webhook
	client *http.Client
	now    func() time.Time
}

// NewWebhook checks where messages go and what signs them: a secret of at least 24
// bytes in base64, with `whsec_` before it or not. Any host will do, private ones
// too: the operator has chosen it.
func NewWebhook(target, secret string) (*Webhook, error) {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("NOTIFY_WEBHOOK_URL must be an http or https address without a password")
	}
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil || len(secret) < minSecret*4/3 {
		return nil, fmt.Errorf("NOTIFY_WEBHOOK_SECRET must be at least %d random bytes in base64: echo whsec_$(openssl rand -base64 32) makes one", minSecret)
	}
	client := &http.Client{
		Timeout:       sendTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Webhook{url: target, signer: signer, client: client, now: time.Now}, nil
}

// payload is what is sent.
type payload struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"` // when the message was made
	Data      struct {
		Notices []payloadNotice `json:"notices"`
	} `json:"data"`
}

type payloadNotice struct {
	Subject  string    `json:"subject"` // the same is never told twice
	Kind     string    `json:"kind"`
	Severity string    `json:"severity"`
	Title    string    `json:"title"`
	Message  string    `json:"message"`
	ServerID *int64    `json:"serverId"`
	RunID    *string   `json:"runId"`
	At       time.Time `json:"at"`
}

// payloadType names what is sent, for receivers of several kinds.
const payloadType = "serversync.notices"

func (*Webhook) name() string { return "webhook" }

func (w *Webhook) send(ctx context.Context, m *db.NoticeMessage) error {
	body, err := json.Marshal(toPayload(m))
	if err != nil {
		return err
	}
	at := w.now()
	signature, err := w.signer.Sign(m.ID, at, body)
	if err != nil {
		return fmt.Errorf("sign the webhook: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "serversync")
	request.Header.Set(standardwebhooks.HeaderWebhookID, m.ID)
	request.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	request.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	response, err := w.client.Do(request)
	if err != nil {
		return hideURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("the receiver of NOTIFY_WEBHOOK_URL answered %s; redirects are not followed", response.Status)
	}
	return nil
}

// hideURL keeps the address out of the log: it may hold a secret.
func hideURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("reach NOTIFY_WEBHOOK_URL: %w", err)
}

func toPayload(m *db.NoticeMessage) payload {
	p := payload{Type: payloadType, Timestamp: m.MadeAt.UTC()}
	p.Data.Notices = make([]payloadNotice, len(m.Notices))
	for i := range m.Notices {
		n := &m.Notices[i]
		p.Data.Notices[i] = payloadNotice{
			Subject: n.Subject, Kind: n.Kind, Severity: string(n.Severity), Title: n.Title, Message: n.Message, ServerID: n.ServerID, At: n.At.UTC(),
		}
		if n.RunID != "" {
			p.Data.Notices[i].RunID = &n.RunID
		}
	}
	return p
}
