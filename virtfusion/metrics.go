package virtfusion

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what clients ask and are answered; names begin with
// serversync_virtfusion_. Several clients may share them. Nil counts nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	waited   *prometheus.HistogramVec
	seconds  prometheus.Histogram
	offset   *prometheus.GaugeVec // of one time series, from the first answer on
}

// Results of a request, beside the words for each [Kind] of failure.
const (
	resultOK = "ok"
	// resultGivenUp: whoever asked stopped waiting, or had no time left for the
	// budget's next slot.
	resultGivenUp = "given_up"
)

// NewMetrics makes the metrics and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_virtfusion_requests_total", Help: "Requests to VirtFusion's API, each attempt, by what came of it.",
		}, []string{"result"}),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "serversync_virtfusion_budget_wait_seconds", Help: "How long requests waited for their turn in VIRTFUSION_RPS.",
			Buckets: []float64{.001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"class"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "serversync_virtfusion_request_duration_seconds", Help: "Time from sending a request to the end of VirtFusion's answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		offset: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serversync_virtfusion_clock_offset_seconds",
			Help: "VirtFusion's clock less ours by its last answer, to about a second; absent before the first.",
		}, nil),
	}
	reg.MustRegister(m.requests, m.waited, m.seconds, m.offset)
	// A counter that appears with its first failure hides that failure from rate().
	for _, result := range append([]string{resultOK, resultGivenUp}, kindWords()...) {
		m.requests.WithLabelValues(result)
	}
	return m
}

// word is the kind as a label's value.
func (k Kind) word() string { return strings.ReplaceAll(k.String(), " ", "_") }

// kindWords are all of them.
func kindWords() []string {
	var words []string
	for k := KindUnauthorized; k <= KindOutcomeUnknown; k++ {
		words = append(words, k.word())
	}
	return words
}

// waits takes how long a request waits for the budget, until what it returns is
// called: with nil, or with why the request gave up.
func (m *Metrics) waits(ctx context.Context, clock func() time.Time) func(error) {
	if m == nil {
		return func(error) {}
	}
	asked := clock()
	return func(err error) {
		m.waited.WithLabelValues(classOf(ctx)).Observe(clock().Sub(asked).Seconds())
		if err != nil {
			m.requests.WithLabelValues(resultGivenUp).Inc()
		}
	}
}

// answered counts an attempt that was sent.
func (m *Metrics) answered(took time.Duration, err error) {
	if m == nil {
		return
	}
	m.seconds.Observe(took.Seconds())
	result := resultOK
	if failed, ok := errors.AsType[*Error](err); ok {
		result = failed.Kind.word()
	} else if err != nil {
		result = resultGivenUp
	}
	m.requests.WithLabelValues(result).Inc()
}

// clockOffset takes by how much VirtFusion's clock is ahead of ours.
func (m *Metrics) clockOffset(offset time.Duration) {
	if m != nil {
		m.offset.WithLabelValues().Set(offset.Seconds())
	}
}
