package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// results are what was measured.
type results struct {
	mu       sync.Mutex
	sections []*measured
}

// measured is what a section found.
type measured struct {
	name, title string
	text        []string // what the figures are
	figures     []*figure
	ratios      []ratio
}

// figure is one thing that was measured, in several rounds.
type figure struct {
	name, unit string
	ceiling    bool // not ours: what it is held against
	rounds     []float64
}

// ratio is a comparison of two figures, or of two parts of one.
type ratio struct {
	name    string
	value   float64
	target  target
	meaning string
}

// target is what a ratio is to be; its zero value demands nothing.
type target struct {
	bound float64
	sense sense
}

type sense int

const (
	anything sense = iota
	least
	most
)

func atLeast(bound float64) target { return target{bound, least} }
func atMost(bound float64) target  { return target{bound, most} }

func (t target) String() string {
	switch t.sense {
	case least:
		return fmt.Sprintf("≥ %.3g", t.bound)
	case most:
		return fmt.Sprintf("≤ %.3g", t.bound)
	default:
		return ""
	}
}

// met says in a word whether a value is what it is to be.
func (t target) met(value float64) string {
	switch {
	case t.sense == anything:
		return ""
	case t.sense == most && value <= t.bound, t.sense == least && value >= t.bound:
		return "met"
	default:
		return "**missed**"
	}
}

func (r *results) section(name, title string, text ...string) *measured {
	m := &measured{name: name, title: title, text: text}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sections = append(r.sections, m)
	return m
}

// note adds a round's value to a figure.
func (m *measured) note(name, unit string, value float64) { m.figure(name, unit).add(value) }

// ceiling is note of something that is not ours.
func (m *measured) ceiling(name, unit string, value float64) {
	f := m.figure(name, unit)
	f.ceiling = true
	f.add(value)
}

func (m *measured) figure(name, unit string) *figure {
	if i := slices.IndexFunc(m.figures, func(f *figure) bool { return f.name == name }); i >= 0 {
		return m.figures[i]
	}
	m.figures = append(m.figures, &figure{name: name, unit: unit})
	return m.figures[len(m.figures)-1]
}

func (f *figure) add(value float64) { f.rounds = append(f.rounds, value) }

// values are a figure's, round by round; none of one that was not measured.
func (m *measured) values(name string) []float64 {
	for _, f := range m.figures {
		if f.name == name {
			return f.rounds
		}
	}
	return nil
}

// compare adds the median of one figure's share in another, round by round.
func (m *measured) compare(name, of, with string, t target, meaning string) {
	m.ratios = append(m.ratios, ratio{name, median(quotients(m.values(of), m.values(with))), t, meaning})
}

// hold adds a figure's median as it is, to be held against a target.
func (m *measured) hold(name, figure string, t target, meaning string) {
	m.ratios = append(m.ratios, ratio{name, median(m.values(figure)), t, meaning})
}

// never adds the worst of a figure, which has to be 0.
func (m *measured) never(name, figure, meaning string) {
	m.ratios = append(m.ratios, ratio{name, slices.Max(append(m.values(figure), 0)), atMost(0), meaning})
}

// print writes what a section found, for whoever waits.
func (m *measured) print(out io.Writer) {
	for _, f := range m.figures {
		name := f.name
		if f.ceiling {
			name = "· " + name
		}
		fmt.Fprintf(out, "  %-52s %12s %-10s %s – %s\n", name, number(median(f.rounds)), f.unit, number(slices.Min(f.rounds)), number(slices.Max(f.rounds)))
	}
	for _, r := range m.ratios {
		fmt.Fprintf(out, "  = %-50s %12s %-10s %s\n", r.name, number(r.value), r.target, strings.Trim(r.target.met(r.value), "*"))
	}
}

// printRatios writes the lines by which others read the comparisons.
func (r *results) printRatios(out io.Writer) {
	for _, m := range r.sections {
		for _, x := range m.ratios {
			fmt.Fprintf(out, "ratio %s %.3f\n", x.name, x.value)
		}
	}
}

// number writes a value as exactly as it is worth, thousands apart.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
