package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/template"
	"time"
)

// What stands between these is written by hand, and stays when the document is
// written anew.
const (
	keepFrom = "<!-- by hand: kept by make bench -->"
	keepTo   = "<!-- end of what is by hand -->"
)

var document = template.Must(template.New("performance.md").Funcs(template.FuncMap{"number": number}).Parse(`# Performance

Written by ` + "`{{.Command}}`" + ` on {{.Date}}, in {{.Took}}. Every figure is the median of so many rounds as stand beside it, up to {{.Rounds}}; those in italics are not ours, but what ours are held against. What is compared was measured in the same run, in alternating rounds; a ratio is the median of those of the rounds, so that a machine that slows down for a while slows both sides. Absolute figures drift with the machine; ratios hold.

Everything is real: the webhook endpoint over TCP on the loopback interface, the embedded broker and PostgreSQL with the settings that they have in production, on one disk. The load client is in the same process and shares the processors with what it measures.

| | |
|---|---|
{{range .Machine}}| {{.What}} | {{.Is}} |
{{end}}
## What was proved

| ratio | | target | | what it means |
|---|---|---|---|---|
{{range .Sections}}{{range .Ratios}}| ` + "`{{.Name}}`" + ` | {{printf "%.2f" .Value}} | {{.Target}} | {{.Met}} | {{.Meaning}} |
{{end}}{{end}}
{{range .Sections}}## {{.Title}}

{{range .Text}}{{.}}

{{end}}| | median | | least – most | rounds |
|---|---|---|---|---|
{{range .Figures}}| {{if .Ceiling}}*{{.Name}}*{{else}}{{.Name}}{{end}} | {{number .Median}} | {{.Unit}} | {{.Least}} – {{.Most}} | {{.Rounds}} |
{{end}}
{{end}}## Profiles, and what they said

` + keepFrom + `{{.ByHand}}` + keepTo + `
`))

// A document's data are what the template reads, with exported names.
type (
	docData struct {
		Command, Date, Took, ByHand string
		Rounds                      int
		Machine                     []fact
		Sections                    []docSection
	}
	docSection struct {
		Title   string
		Text    []string
		Figures []docFigure
		Ratios  []docRatio
	}
	docFigure struct {
		Name, Unit, Least, Most string
		Ceiling                 bool
		Median                  float64
		Rounds                  int
	}
	docRatio struct {
		Name, Target, Met, Meaning string
		Value                      float64
	}
)

// write writes the document.
func (b *bench) write(path string) error {
	byHand, err := keptByHand(path)
	if err != nil {
		return err
	}
	data := docData{
		Command: b.command, Date: b.started.UTC().Format("2 January 2006"), Took: time.Since(b.started).Round(time.Second).String(),
		ByHand: byHand, Rounds: b.rounds, Machine: b.machine,
	}
	for _, m := range b.results.sections {
		s := docSection{Title: m.title, Text: m.text}
		for _, f := range m.figures {
			s.Figures = append(s.Figures, docFigure{
				Name: f.name, Unit: f.unit, Ceiling: f.ceiling, Median: median(f.rounds), Rounds: len(f.rounds),
				Least: number(slices.Min(f.rounds)), Most: number(slices.Max(f.rounds)),
			})
		}
		for _, r := range m.ratios {
			s.Ratios = append(s.Ratios, docRatio{Name: r.name, Value: r.value, Target: r.target.String(), Met: r.target.met(r.value), Meaning: r.meaning})
		}
		data.Sections = append(data.Sections, s)
	}
	var text bytes.Buffer
	if err := document.Execute(&text, data); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil { //nolint:gosec // G306: a document for everybody
		return fmt.Errorf("write the document: %w", err)
	}
	return nil
}

// keptByHand is what a person wrote into the document that is there.
func keptByHand(path string) (string, error) {
	const none = "\n\nNothing was written yet: `make profile BENCH=reconcile` makes profiles.\n\n"
	old, err := os.ReadFile(path) //nolint:gosec // G304: the document that is to be written
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return "", fmt.Errorf("read what was written by hand: %w", err)
	}
	_, after, begun := strings.Cut(string(old), keepFrom)
	kept, _, ended := strings.Cut(after, keepTo)
	if !begun || !ended {
		return none, nil
	}
	return kept, nil
}
