package httpserver

import (
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	dropped  prometheus.Counter
	// open are the connections of the server that runs; nil: none does.
	open atomic.Pointer[connections]
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_http_requests_total",
			Help: "HTTP requests answered, by method, route and status.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "serversync_http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30},
		}, []string{"route"}),
	}
	m.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "serversync_http_connections_dropped_total",
		Help: "Connections closed to make room for others, because as many were open as may be.",
	})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "serversync_http_connections",
		Help: "Connections that are open.",
	}, func() float64 {
		if l := m.open.Load(); l != nil {
			return float64(l.count())
		}
		return 0
	})
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.dropped, open} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register HTTP metrics: %w", err)
		}
	}
	return m, nil
}

// observe counts a request under its route, never under its path: strangers
// choose paths and methods, and each label value is a time series.
func (m *metrics) observe(c echo.Context, took time.Duration) {
	route, method := c.Path(), c.Request().Method
	if status := c.Response().Status; route == "" || status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
		route, method = "none", "any"
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(c.Response().Status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}
