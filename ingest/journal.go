package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"serversync/events"
	"serversync/internal/httpserver"
)

// What can become of a delivery, as the metric's label and the log say it.
const (
	outcomeAccepted  = "accepted"
	outcomeDuplicate = "duplicate" // accepted; the broker had it already
	outcomeIgnored   = "ignored"
	outcomeFailed    = "failed" // a fault of ours: 500
)

// refusalOutcome names a refusal by its status; "" for one that is none.
func refusalOutcome(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "bad_request"
	case http.StatusUnauthorized:
		return "unauthorized"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	case http.StatusUnsupportedMediaType:
		return "unsupported_media_type"
	case http.StatusUnprocessableEntity:
		return "unprocessable"
	case http.StatusTooManyRequests:
		return "rate_limited"
	case http.StatusServiceUnavailable:
		return "unavailable"
	default:
		return ""
	}
}

// refusalCodes are the codes of our refusals, as the metric's label says them.
var refusalCodes = []string{
	"address_not_allowed", "unauthorized", "too_many_attempts", "unsupported_media_type", "unsupported_encoding", "incomplete_body",
	"too_large", "invalid_json", "unrecognised", "invalid_server", "server_without_id", "not_durable", codeFault,
}

// codeFault is said of a fault of ours, whose answer is a 500.
const codeFault = "internal_error"

// Kinds of deliveries that are ignored. An event's name is VirtFusion's to
// choose, so it is no label.
const (
	ignoredUser     = "user"           // about a user
	ignoredNoServer = "without_server" // about a server that it does not show
	ignoredOther    = "other"
)

// ignoredKind is what an event that was ignored is about.
func ignoredKind(name string) string {
	switch {
	case strings.HasPrefix(name, serverEventPrefix):
		return ignoredNoServer
	case strings.HasPrefix(name, "user."):
		return ignoredUser
	default:
		return ignoredOther
	}
}

// Refusals are logged refusalsLoggedBurst at once and one a second from then
// on: whoever wants to fill our disk shall need more than a loop.
const (
	refusalsLoggedPerSecond = 1
	refusalsLoggedBurst     = 20
)

// entry is what is known of a delivery whatever becomes of it. There is
// nothing in it that a client could hide a secret in, save the event's name,
// which is logged only for deliveries that were let in.
type entry struct {
	arrived   time.Time
	took      time.Duration
	client    netip.Addr
	requestID string
	traceID   string // empty: not recorded
	name      string // VirtFusion's event name; empty while unknown
	duplicate bool   // the broker had the event already
}

// journal counts deliveries and writes one line for each.
type journal struct {
	log        zerolog.Logger
	refusals   *rate.Limiter
	suppressed atomic.Int64 // refusals without a line since the last one with

	deliveries   *prometheus.CounterVec
	refused      *prometheus.CounterVec
	ignored      *prometheus.CounterVec
	seconds      prometheus.Histogram
	lastAccepted *prometheus.GaugeVec // of one time series, from the first delivery on
}

func newJournal(reg prometheus.Registerer, log zerolog.Logger) (*journal, error) {
	j := &journal{
		log:      log,
		refusals: rate.NewLimiter(refusalsLoggedPerSecond, refusalsLoggedBurst),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_webhook_deliveries_total",
			Help: "Webhook deliveries by what became of them.",
		}, []string{"outcome"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_webhook_refusals_total",
			Help: "Webhook deliveries that were not accepted, by the code of the answer.",
		}, []string{"reason"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_webhook_ignored_total",
			Help: "Webhook deliveries that were accepted and hold nothing that we use, by what they are about.",
		}, []string{"kind"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "serversync_webhook_delivery_duration_seconds",
			Help:    "Time from a delivery's arrival until its event was durable, or was given up.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}),
		lastAccepted: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serversync_webhook_last_accepted_timestamp_seconds",
			Help: "When this process last accepted a delivery, in Unix time; absent before the first.",
		}, nil),
	}
	for _, c := range []prometheus.Collector{j.deliveries, j.refused, j.ignored, j.seconds, j.lastAccepted} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register webhook metrics: %w", err)
		}
	}
	// A counter that appears with its first refusal hides that refusal from rate().
	for _, outcome := range []string{outcomeAccepted, outcomeDuplicate, outcomeIgnored, outcomeFailed} {
		j.deliveries.WithLabelValues(outcome)
	}
	for status := http.StatusBadRequest; status <= http.StatusServiceUnavailable; status++ {
		if outcome := refusalOutcome(status); outcome != "" {
			j.deliveries.WithLabelValues(outcome)
		}
	}
	for _, code := range refusalCodes {
		j.refused.WithLabelValues(code)
	}
	for _, kind := range []string{ignoredUser, ignoredNoServer, ignoredOther} {
		j.ignored.WithLabelValues(kind)
	}
	return j, nil
}

// record notes what became of a delivery: e is its event, nil when there is
// none; err is the refusal, nil when it was accepted or ignored.
func (j *journal) record(entry *entry, e *events.Event, err error) {
	outcome := outcomeOf(entry, e, err)
	j.deliveries.WithLabelValues(outcome).Inc()
	switch {
	case err != nil:
		j.refused.WithLabelValues(refusalCode(err)).Inc()
	case e == nil:
		j.ignored.WithLabelValues(ignoredKind(entry.name)).Inc()
	}
	if e != nil {
		j.seconds.Observe(entry.took.Seconds())
	}
	if e != nil && err == nil {
		j.lastAccepted.WithLabelValues().Set(float64(entry.arrived.UnixMilli()) / 1000)
	}

	line := j.line(entry, e, outcome)
	if line == nil || !line.Enabled() {
		return
	}
	line.Str("outcome", outcome).
		Str("client", entry.client.String()).
		Str("requestId", entry.requestID).
		Dur("durationMs", entry.took)
	if entry.traceID != "" {
		line.Str("traceId", entry.traceID)
	}
	if entry.name != "" {
		line.Str("name", cleanText(entry.name))
	}
	if e != nil {
		line.Str("event", e.ID).Int64("server", e.Server.ID).Int64("owner", e.OwnerID()).
			Str("kind", string(e.Kind)).Bool("failed", e.Failed).Time("observedAt", e.ObservedAt)
	}
	if err != nil {
		line.Err(err)
		if refusal, ok := errors.AsType[*httpserver.StatusError](err); ok {
			line.Str("why", refusal.Message)
		}
	}
	if e != nil && err != nil {
		line.Str("do", "VirtFusion does not repeat it: sweep once the broker takes events again (serversync sweep), or wait for the next sweep")
	}
	line.Msg("webhook delivery")
}

// line opens the log line, or returns nil when there shall be none.
func (j *journal) line(entry *entry, e *events.Event, outcome string) *zerolog.Event {
	switch {
	case outcome == outcomeAccepted, outcome == outcomeDuplicate:
		return j.log.Info()
	case outcome == outcomeIgnored:
		return j.log.Debug()
	case e != nil: // let in, understood, and lost: each of them matters
		return j.log.Error()
	case !j.refusals.AllowN(entry.arrived, 1):
		j.suppressed.Add(1)
		return nil
	default:
		return j.log.Warn().Int64("suppressed", j.suppressed.Swap(0))
	}
}

// refusalCode is the code that a refused delivery was answered with.
func refusalCode(err error) string {
	if refusal, ok := errors.AsType[*httpserver.StatusError](err); ok && slices.Contains(refusalCodes, refusal.Code) {
		return refusal.Code
	}
	return codeFault
}

func outcomeOf(entry *entry, e *events.Event, err error) string {
	switch {
	case err == nil && e == nil:
		return outcomeIgnored
	case err == nil && entry.duplicate:
		return outcomeDuplicate
	case err == nil:
		return outcomeAccepted
	}
	if refusal, ok := errors.AsType[*httpserver.StatusError](err); ok {
		if outcome := refusalOutcome(refusal.Status); outcome != "" {
			return outcome
		}
	}
	return outcomeFailed
}
