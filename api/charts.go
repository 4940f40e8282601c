package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-analyze/charts"
	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"serversync/db"
	"serversync/internal/skypanel"
)

const (
	chartWidth, chartHeight = 800, 320
	// Labels on the axis of time, short ones and long ones: as many as do not touch.
	shortLabels, longLabels = 8, 5

	defaultDays = 30
	maxDays     = 90
)

// chart is what a chart shows: a value of each series for each label.
type chart struct {
	title, unit string
	note        string // below the title
	labels      []string
	names       []string // of the series; a single one needs none
	series      [][]float64
	bars        bool
	empty       bool // nothing was there: note says so
}

// chartsByName are the charts there are. Each reads the days that end with the
// current one (UTC).
var chartsByName = map[string]func(*API, context.Context, []time.Time) (*chart, error){
	"external": (*API).externalChart, "events": (*API).eventsChart, "lag": (*API).lagChart, "revenue": (*API).revenueChart,
	"coverage": (*API).coverageChart,
}

// drawChart answers GET /api/admin/charts/:name, where the name ends in .svg.
func (a *API) drawChart(read func(*API, context.Context, []time.Time) (*chart, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		days, err := readDays(c, a.now(), maxDays)
		if err != nil {
			return err
		}
		data, err := read(a, c.Request().Context(), days)
		if err != nil {
			return fault(err)
		}
		if data.empty {
			data.note = "nothing to show in " + counted(int64(len(days)), "day")
		}
		svg, err := data.svg()
		if err != nil {
			return fmt.Errorf("draw a chart: %w", err)
		}
		c.Response().Header().Set(echo.HeaderContentSecurityPolicy, "default-src 'none'; style-src 'unsafe-inline'")
		return c.Blob(http.StatusOK, "image/svg+xml", svg)
	}
}

// readDays reads how many days are wanted, at most so many, and returns the
// beginning of each.
func readDays(c echo.Context, now time.Time, most int) ([]time.Time, error) {
	given, err := readParams(c, []string{"days"})
	if err != nil {
		return nil, err
	}
	n := defaultDays
	if value := given.Get("days"); value != "" {
		if n, err = strconv.Atoi(value); err != nil || n < 1 || n > most {
			return nil, badRequest("bad_days", "days must be a number from 1 to "+strconv.Itoa(most))
		}
	}
	today := now.UTC().Truncate(24 * time.Hour)
	days := make([]time.Time, n)
	for i := range days {
		days[i] = today.AddDate(0, 0, i+1-n)
	}
	return days, nil
}

func (a *API) externalChart(ctx context.Context, days []time.Time) (*chart, error) {
	found, err := db.FoundByDay(ctx, a.db, days[0])
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(days))
	for _, f := range found {
		if i := slices.IndexFunc(days, f.Day.Equal); i >= 0 {
			values[i] += float64(f.Servers)
		}
	}
	return &chart{title: "External servers found", unit: "servers a day", labels: dayLabels(days), series: [][]float64{values}, bars: true, empty: len(found) == 0}, nil
}

func (a *API) revenueChart(ctx context.Context, days []time.Time) (*chart, error) {
	found, err := db.FoundByDay(ctx, a.db, days[0])
	if err != nil {
		return nil, err
	}
	list, effective := make([]float64, len(days)), make([]float64, len(days))
	for _, f := range found {
		if i := slices.IndexFunc(days, f.Day.Equal); i >= 0 {
			servers := decimal.NewFromInt(f.Servers)
			list[i] += f.Monthly.Mul(servers).InexactFloat64()
			effective[i] += skypanel.EffectiveMonthly(f.Monthly, f.Hours).Mul(servers).InexactFloat64()
		}
	}
	return &chart{
		title: "Revenue recorded, by day of recording", unit: "dollars a month", labels: dayLabels(days),
		names: []string{"by list price", "as charged"}, series: [][]float64{list, effective}, bars: true, empty: len(found) == 0,
	}, nil
}

func (a *API) eventsChart(ctx context.Context, days []time.Time) (*chart, error) {
	tallies, err := db.ObservedByHour(ctx, a.db, days[0])
	if err != nil {
		return nil, err
	}
	hours := hoursOf(days, a.now())
	values := make([]float64, len(hours))
	for _, t := range tallies {
		if i := int(t.Hour.Sub(hours[0]) / time.Hour); i < len(values) {
			values[i] = float64(t.Count)
		}
	}
	return &chart{title: "Events that told something new of a server", unit: "events an hour", labels: hourLabels(hours), series: [][]float64{values}, empty: len(tallies) == 0}, nil
}

func (a *API) lagChart(ctx context.Context, days []time.Time) (*chart, error) {
	samples, err := db.LagByHour(ctx, a.db, days[0])
	if err != nil {
		return nil, err
	}
	hours := hoursOf(days, a.now())
	values := make([]float64, len(hours))
	for i := range values {
		values[i] = charts.GetNullValue() // nobody looked
	}
	for _, s := range samples {
		if i := int(s.At.Sub(hours[0]) / time.Hour); i < len(values) {
			values[i] = float64(s.Events)
		}
	}
	if len(samples) == 0 {
		clear(values)
	}
	return &chart{title: "Events not reconciled yet, the most in each hour", unit: "events", labels: hourLabels(hours), series: [][]float64{values}, empty: len(samples) == 0}, nil
}

// hoursOf are the hours of the days, up to now.
func hoursOf(days []time.Time, now time.Time) []time.Time {
	var hours []time.Time
	for h := days[0]; !h.After(now); h = h.Add(time.Hour) {
		hours = append(hours, h)
	}
	return hours
}

func dayLabels(days []time.Time) []string {
	labels := make([]string, len(days))
	for i, d := range days {
		labels[i] = d.Format("2 Jan")
	}
	return labels
}

func hourLabels(hours []time.Time) []string {
	layout := "2 Jan"
	if len(hours) <= 3*24 {
		layout = "2 Jan 15:04"
	}
	labels := make([]string, len(hours))
	for i, h := range hours {
		labels[i] = h.UTC().Format(layout)
	}
	return labels
}

// The colours can be told from a light ground and from a dark one: there is no
// ground of our own.
var chartTheme = charts.MakeTheme(charts.ThemeOption{
	AxisStrokeColor:    charts.ColorFromHex("#767676"),
	AxisSplitLineColor: charts.ColorFromHex("#76767650"),
	BackgroundColor:    charts.ColorTransparent,
	TextColor:          charts.ColorFromHex("#767676"),
	SeriesColors:       []charts.Color{charts.ColorFromHex("#3b82f6"), charts.ColorFromHex("#d97706")},
})

// svg draws a chart. The library escapes every text.
func (c *chart) svg() ([]byte, error) {
	p := charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: chartWidth, Height: chartHeight, Theme: chartTheme})
	small := charts.FontStyle{FontSize: 10}
	title := charts.TitleOption{Text: c.title, Subtext: c.note, FontStyle: charts.FontStyle{FontSize: 13}, SubtextFontStyle: small}
	legend := charts.LegendOption{SeriesNames: c.names, Show: new(len(c.names) > 1), Offset: charts.OffsetStr{Left: charts.PositionRight}, FontStyle: small}
	count := shortLabels
	if len(c.labels) > 0 && len(c.labels[0]) > len("28 Feb") {
		count = longLabels
	}
	times := charts.CategoryAxisOption{Labels: c.labels, LabelCount: min(count, len(c.labels)), Title: "UTC", LabelFontStyle: small, TitleFontStyle: small}
	values := []charts.ValueAxisOption{{Title: c.unit, Min: new(0.0), Unit: 1, PreferNiceIntervals: new(true), LabelFontStyle: small, TitleFontStyle: small}}
	format := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	var err error
	if c.bars {
		option := charts.NewBarChartOptionWithData(c.series)
		option.Theme, option.Title, option.Legend, option.CategoryAxis, option.ValueAxis, option.ValueFormatter = chartTheme, title, legend, times, values, format
		err = p.BarChart(option)
	} else {
		option := charts.NewLineChartOptionWithData(c.series)
		option.Theme, option.Title, option.Legend, option.XAxis, option.YAxis, option.ValueFormatter = chartTheme, title, legend, times, values, format
		option.Symbol = charts.Symbol{Shape: charts.SymbolNone}
		err = p.LineChart(option)
	}
	if err != nil {
		return nil, err
	}
	return p.Bytes()
}
