package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/internal/httpserver"
	"serversync/virtfusion"
)

const (
	webhookPath = "/webhooks/virtfusion"

	// maxBodyBytes is the largest body that is read; VirtFusion's are a few
	// kilobytes, with a console screenshot a few hundred.
	maxBodyBytes = 1 << 20

	// bodyRoom is how much memory bodies may take while they are read and
	// understood; whoever is authenticated waits for it.
	bodyRoom = 32 << 20

	defaultPublishTimeout = 10 * time.Second
)

// WebhookConfig says who may deliver.
type WebhookConfig struct {
	// Tokens that are accepted, in plain; several for rotation. Empty: every
	// delivery is refused, unless AllowUnauthenticated.
	Tokens []string
	// AllowUnauthenticated accepts deliveries without a token when Tokens is
	// empty. It means nothing when there are tokens.
	AllowUnauthenticated bool
	// AllowCIDRs are the addresses that may deliver. Empty: any.
	AllowCIDRs []netip.Prefix
	// PublishTimeout is how long an answer waits for the broker. Default: 10 s.
	PublishTimeout time.Duration
}

// publisher seals an event and stores it durably: without an error, it is on
// disk.
type publisher interface {
	Publish(ctx context.Context, e *events.Event) (events.Ack, error)
}

// Webhook is the endpoint to which VirtFusion pushes. VirtFusion does not
// repeat a delivery, so it answers 202 only for what is on disk, and never
// refuses an authenticated delivery for being one too many.
type Webhook struct {
	cfg       WebhookConfig
	tokens    tokenSet
	publisher publisher
	flood     *httpserver.Attempts
	bodies    *httpserver.Bodies
	journal   *journal
	now       func() time.Time
}

// NewWebhook makes the endpoint. Its metrics go to reg and its one line per
// delivery to log; now is the clock. It fails on an empty token or when reg
// refuses its metrics.
func NewWebhook(cfg WebhookConfig, p publisher, reg prometheus.Registerer, log zerolog.Logger, now func() time.Time) (*Webhook, error) {
	tokens, err := newTokenSet(cfg.Tokens)
	if err != nil {
		return nil, err
	}
	journal, err := newJournal(reg, log)
	if err != nil {
		return nil, err
	}
	if cfg.PublishTimeout <= 0 {
		cfg.PublishTimeout = defaultPublishTimeout
	}
	return &Webhook{cfg: cfg, tokens: tokens, publisher: p, flood: httpserver.NewAttempts(), bodies: httpserver.NewBodies(bodyRoom), journal: journal, now: now}, nil
}

// Register adds POST /webhooks/virtfusion, on a router whose errors are
// answered by package httpserver.
func (w *Webhook) Register(e *echo.Echo) { e.POST(webhookPath, w.handle) }

// acceptedBody is the answer to a delivery that was not refused.
type acceptedBody struct {
	Success bool   `json:"success"`           // always true
	ID      string `json:"id,omitempty"`      // the event's id; empty when ignored
	Ignored bool   `json:"ignored,omitempty"` // nothing in it that we use
}

func (w *Webhook) handle(c echo.Context) error {
	httpserver.OwnLog(c)
	entry := entry{arrived: w.now(), client: httpserver.ClientAddr(c), requestID: httpserver.RequestID(c), traceID: httpserver.TraceID(c)}

	e, err := w.accept(c, &entry)
	if err == nil && e != nil {
		entry.duplicate, err = w.publish(c.Request().Context(), e)
	}
	entry.took = w.now().Sub(entry.arrived)
	w.journal.record(&entry, e, err)

	switch {
	case err != nil:
		return err
	case e == nil:
		return c.JSON(http.StatusAccepted, acceptedBody{Success: true, Ignored: true})
	default:
		return c.JSON(http.StatusAccepted, acceptedBody{Success: true, ID: e.ID})
	}
}

// accept decides whether a delivery is taken, in this order: address,
// authentication, content type, size, JSON, meaning. It returns the
// event, nil when there is nothing in the delivery that we use, or the refusal.
func (w *Webhook) accept(c echo.Context, entry *entry) (*events.Event, error) {
	if err := w.admit(c, entry); err != nil {
		return nil, err
	}
	if err := checkContentType(c.Request().Header); err != nil {
		return nil, err
	}
	body, release, err := w.readBody(c)
	defer release()
	if err != nil {
		return nil, err
	}
	hook, err := virtfusion.DecodeWebhook(body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_json", "the body must be one JSON object")
	}
	return understand(&hook, c.Request().Header, entry)
}

// admit refuses those who may not deliver at all.
func (w *Webhook) admit(c echo.Context, entry *entry) error {
	allowed := len(w.cfg.AllowCIDRs) == 0 ||
		slices.ContainsFunc(w.cfg.AllowCIDRs, func(p netip.Prefix) bool { return p.Contains(entry.client) })
	if !allowed {
		return refuse(http.StatusForbidden, "address_not_allowed", "deliveries from this address are not accepted; see WEBHOOK_ALLOW_CIDRS")
	}
	if len(w.tokens) == 0 && w.cfg.AllowUnauthenticated {
		return nil
	}
	if w.tokens.accepts(c.Request().Header.Get(echo.HeaderAuthorization)) {
		httpserver.Known(c)
		return nil
	}
	if !w.flood.Fail(entry.client, entry.arrived) {
		err := refuse(http.StatusTooManyRequests, "too_many_attempts", "too many deliveries without a valid token from this address")
		err.RetryAfter = time.Minute
		return err
	}
	c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="serversync"`)
	return refuse(http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer and the webhook's token in base64, as VirtFusion does; see WEBHOOK_TOKENS")
}

func checkContentType(h http.Header) error {
	mediaType, _, err := mime.ParseMediaType(h.Get(echo.HeaderContentType))
	usable := err == nil || errors.Is(err, mime.ErrInvalidMediaParameter)
	if !usable || mediaType != echo.MIMEApplicationJSON {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "the Content-Type must be application/json")
	}
	if encoding := h.Get(echo.HeaderContentEncoding); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_encoding", "the body must not be compressed")
	}
	return nil
}

// readBody reads at most maxBodyBytes; release it when it is understood. A byte
// order mark is dropped: RFC 8259 leaves that to the reader, and a delivery
// refused is a delivery lost.
func (w *Webhook) readBody(c echo.Context) (body []byte, release func(), err error) {
	body, release, err = w.bodies.Read(c, maxBodyBytes)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, release, refuse(http.StatusRequestEntityTooLarge, "too_large", "the body must not be larger than 1 MiB")
	}
	if err != nil {
		return nil, release, refuse(http.StatusBadRequest, "incomplete_body", "the body ended early, or took too long")
	}
	return bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")), release, nil
}

// understand finds out what a delivery says. The headers speak where the body
// is silent. It returns nil for what we do not use: events that are not about
// a server, and those that come without one.
func understand(hook *virtfusion.Webhook, h http.Header, entry *entry) (*events.Event, error) {
	d := readDelivery(hook, h, entry.arrived)
	entry.name = d.name
	if d.name == "" {
		return nil, refuse(http.StatusBadRequest, "unrecognised", "neither the body nor "+virtfusion.HeaderEvent+" names an event")
	}
	if !strings.HasPrefix(d.name, serverEventPrefix) {
		return nil, nil //nolint:nilnil // nothing to publish and nothing wrong: ignored
	}
	switch hook.Data.ServerKind() {
	case virtfusion.ServerMissing, virtfusion.ServerFalse:
		return nil, nil //nolint:nilnil // as above
	case virtfusion.ServerObject:
	case virtfusion.ServerUnreadable:
		return nil, refuse(http.StatusUnprocessableEntity, "invalid_server", "data.server must be an object, or false")
	}
	server, err := hook.Data.DecodeServer()
	if err != nil || server.ID <= 0 {
		return nil, refuse(http.StatusUnprocessableEntity, "server_without_id", "data.server has no id above 0")
	}
	return d.event(&server), nil
}

func readDelivery(hook *virtfusion.Webhook, h http.Header, arrived time.Time) *delivery {
	d := &delivery{
		name:       strings.TrimSpace(hook.Event),
		status:     strings.TrimSpace(hook.EventStatus),
		receivedAt: arrived,
		packageID:  hook.Data.Args.PackageID,
	}
	if d.name == "" {
		d.name = strings.TrimSpace(h.Get(virtfusion.HeaderEvent))
	}
	if d.status == "" {
		d.status = strings.TrimSpace(h.Get(virtfusion.HeaderEventStatus))
	}
	var inHeader *time.Time
	if t, err := time.Parse(time.RFC3339, h.Get(virtfusion.HeaderCreated)); err == nil {
		inHeader = &t
	}
	d.created = firstPlausible(arrived, hook.Created, inHeader)
	return d
}

// publish goes on when the client has gone: VirtFusion will not come back with
// what it once delivered. It reports whether the broker had the event already.
func (w *Webhook) publish(ctx context.Context, e *events.Event) (duplicate bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.PublishTimeout)
	defer cancel()
	ack, err := w.publisher.Publish(ctx, e)
	if err != nil {
		refusal := refuse(http.StatusServiceUnavailable, "not_durable", "the event could not be stored; deliver it again")
		refusal.RetryAfter = 5 * time.Second
		refusal.Err = fmt.Errorf("publish event %s: %w", e.ID, err)
		return false, refusal
	}
	return ack.Duplicate, nil
}

func refuse(status int, code, message string) *httpserver.StatusError {
	return &httpserver.StatusError{Status: status, Code: code, Message: message}
}
