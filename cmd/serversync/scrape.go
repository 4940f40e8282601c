package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

const (
	// scrapeWait is how long a scrape waits for one source, readTimeout how long
	// the source may take: a later scrape has the answer then.
	scrapeWait  = 500 * time.Millisecond
	readTimeout = 5 * time.Second
)

// observedDesc says of each source whether what is exported of it is true now.
var observedDesc = prometheus.NewDesc("serversync_observed",
	"Whether this process could look at a source (broker, database, disk) for this scrape; while it is 0, what is known from there is left out.",
	[]string{"source"}, nil)

// source exports what one dependency knows when it is asked. Of many scrapes
// within a while one asks. What it cannot learn it leaves out: a zero or an
// old value would be believed.
type source[T any] struct {
	name  string
	every time.Duration // how long an answer is good
	read  func(ctx context.Context) (T, error)
	descs []*prometheus.Desc
	show  func(ch chan<- prometheus.Metric, value T, now time.Time)
	log   zerolog.Logger

	mu      sync.Mutex
	value   T
	at      time.Time     // of the value; zero: there is none
	err     error         // of the last question
	reading chan struct{} // closed when the question that is open is answered; nil: none is
}

// Describe implements [prometheus.Collector].
func (s *source[T]) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range s.descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *source[T]) Collect(ch chan<- prometheus.Metric) {
	value, ok := s.latest()
	observed := 0.0
	if ok {
		observed = 1
		s.show(ch, value, time.Now())
	}
	ch <- prometheus.MustNewConstMetric(observedDesc, prometheus.GaugeValue, observed, s.name)
}

// latest is the answer of the moment; false: there is none that is good. It
// waits for at most scrapeWait.
func (s *source[T]) latest() (T, bool) {
	s.mu.Lock()
	if s.good() {
		defer s.mu.Unlock()
		return s.value, true
	}
	if s.reading == nil {
		s.reading = make(chan struct{})
		go s.ask(s.reading)
	}
	reading := s.reading
	s.mu.Unlock()

	timer := time.NewTimer(scrapeWait)
	defer timer.Stop()
	select {
	case <-reading:
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, s.good()
}

// good reports whether the value is still to be believed. A question that takes
// its time does no harm to the last answer until that is twice as old.
func (s *source[T]) good() bool {
	age := time.Since(s.at)
	return !s.at.IsZero() && s.err == nil && (age < s.every || s.reading != nil && age < 2*s.every)
}

// ask puts the question.
func (s *source[T]) ask(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	value, err := s.read(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		s.log.Warn().Err(err).Str("source", s.name).Msg("metrics leave out what cannot be learnt there; they come back by themselves")
	}
	s.err, s.reading = err, nil
	if err == nil {
		s.value, s.at = value, time.Now()
	}
	close(done)
}
