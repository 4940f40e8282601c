package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"serversync/api"
	"serversync/db"
)

// meter shows how far a run has come.
type meter interface {
	show(run *api.Run, now time.Time)
	// say tells something besides.
	say(line string)
	// end leaves the place clean.
	end()
}

// terminalWidth is how many columns a terminal has; false: it is none.
func terminalWidth(out io.Writer) (columns int, terminal bool) {
	f, isFile := out.(*os.File)
	if !isFile || !isatty.IsTerminal(f.Fd()) {
		return 0, false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		columns = 80
	}
	return columns, true
}

// lineMeter writes a line when a run begins a phase, and while it gets ahead,
// but at most one each few seconds.
type lineMeter struct {
	out io.Writer
	// every is the least time between two lines of one phase; below 0: nothing
	// is shown, only said.
	every time.Duration

	pace
	phase string
	last  int64 // how far the last line said it was
	at    time.Time
}

func (m *lineMeter) show(run *api.Run, now time.Time) {
	if m.every < 0 || run.State != "running" {
		return
	}
	done, _ := position(run)
	left := m.left(run, now)
	if run.Phase == m.phase && (done == m.last || now.Sub(m.at) < m.every) {
		return
	}
	m.phase, m.last, m.at = run.Phase, done, now
	m.say(progressWords(run, left))
}

func (m *lineMeter) say(line string) { printf(m.out, "%s\n", printable(line)) }

func (m *lineMeter) end() {}

// barMeter draws a bar on a terminal.
type barMeter struct {
	out   io.Writer
	width int

	pace
	bar   *progressbar.ProgressBar
	phase string
	known bool // how long the phase takes
}

const (
	// barWidth is the bar's own, barRoom what it takes with its percentage and
	// frame.
	barWidth = 20
	barRoom  = barWidth + 12
	// barSteps is what a whole bar counts. It is never reached: a bar that is
	// full is one that has ended.
	barSteps = 1000
)

func (m *barMeter) show(run *api.Run, now time.Time) {
	if run.State != "running" {
		return
	}
	done, of := position(run)
	words := clip(printable(progressWords(run, m.left(run, now))), m.width-barRoom)
	if m.bar == nil || m.phase != run.Phase || m.known != (of > 0) {
		m.end()
		m.phase, m.known, m.bar = run.Phase, of > 0, newBar(m.out, of > 0)
	}
	if of > 0 {
		_ = m.bar.Set64(min(done*barSteps/of, barSteps-1)) // a terminal that is gone is no reason to stop
	}
	m.bar.Describe(words)
}

// newBar is a bar, or, where nobody knows how long something takes, a sign of
// life.
func newBar(out io.Writer, known bool) *progressbar.ProgressBar {
	steps := int64(-1)
	if known {
		steps = barSteps
	}
	return progressbar.NewOptions64(steps,
		progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(barWidth), progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSpinnerType(14), progressbar.OptionSetSpinnerChangeInterval(0), // else it turns, and draws, for ever
		progressbar.OptionSetTheme(progressbar.ThemeASCII))
}

func (m *barMeter) say(line string) {
	m.end()
	printf(m.out, "%s\n", printable(line))
}

func (m *barMeter) end() {
	if m.bar != nil {
		_ = m.bar.Clear()
		_ = m.bar.Exit()
		m.bar = nil
	}
}

// clip cuts a text to a number of columns.
func clip(s string, columns int) string {
	if utf8.RuneCountInString(s) <= columns {
		return s
	}
	runes := []rune(s)
	return string(runes[:max(columns-1, 0)]) + "…"
}

// position is how far a run is in its phase; of 0: nobody knows.
func position(run *api.Run) (done, of int64) {
	switch p := &run.Progress; run.Phase {
	case "listing":
		return p.Page, p.Pages
	case "reviewing":
		return p.Reviewed, p.Total
	case "applying", "finishing":
		return run.Processed, run.Expected
	}
	return 0, 0
}

// pace tells how long a phase will still take.
type pace struct {
	of    string
	from  int64
	since time.Time
}

// left is how long a phase will still take, as long as it goes on as it did
// since it was first looked at; 0: nobody knows.
func (p *pace) left(run *api.Run, now time.Time) time.Duration {
	done, of := position(run)
	if p.of != run.Phase || p.since.IsZero() || done < p.from {
		p.of, p.from, p.since = run.Phase, done, now
	}
	took := now.Sub(p.since)
	if done <= p.from || done >= of || took < time.Second {
		return 0
	}
	return time.Duration(float64(took) * float64(of-done) / float64(done-p.from)).Round(time.Second)
}

// progressWords say how far a run has come.
func progressWords(run *api.Run, left time.Duration) string {
	p := &run.Progress
	words := run.Phase
	switch run.Phase {
	case "queued", "approved":
		return run.Phase + ": waiting to be taken up"
	case "listing":
		if p.Pages == 0 && run.Kind != db.RunSweep {
			return "looking at what it concerns"
		}
		if p.Pages == 0 {
			return "listing: waiting for VirtFusion's first page"
		}
		words = fmt.Sprintf("listing: page %d of %d, %d of %d servers, %d differ", p.Page, p.Pages, p.Listed, p.Total, p.Drift)
	case "asking":
		words = fmt.Sprintf("asking VirtFusion: %d servers differ, %d were not listed", p.Drift, p.Missing)
	case "reviewing":
		words = fmt.Sprintf("reviewing: %d servers compared with SkyPANEL, %d differ", p.Reviewed, p.Drift)
	case "preview":
		words = fmt.Sprintf("working out what %d findings would change", max(run.Expected, p.Drift))
	case "applying", "finishing":
		words = fmt.Sprintf("%s: %d of %d servers, %d new, %d updated, %d failed", run.Phase, run.Processed, run.Expected, run.New, run.Updated, run.Failed)
	}
	if left > 0 {
		words += fmt.Sprintf(", %s left", left)
	}
	if p.Calls > 0 {
		words += ", " + counted(p.Calls, "API call")
		if p.CallsPerSecond > 0 {
			words += fmt.Sprintf(" (at most %g a second)", p.CallsPerSecond)
		}
	}
	return cmp.Or(words, "at work")
}
