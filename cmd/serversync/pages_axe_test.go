package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
)

// axeFinding is a rule of axe-core that a page breaks.
type axeFinding struct {
	ID      string `json:"id"`
	Impact  string `json:"impact"` // minor, moderate, serious or critical
	Help    string `json:"help"`
	HelpURL string `json:"helpUrl"`
	Nodes   []struct {
		Target  json.RawMessage `json:"target"` // selectors, one within the other
		HTML    string          `json:"html"`
		Summary string          `json:"failureSummary"`
	} `json:"nodes"`
}

func (f *axeFinding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): %s\n  %s", f.ID, f.Impact, f.Help, f.HelpURL)
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, "\n  %s\n    %s\n    %s", n.Target, n.HTML, strings.ReplaceAll(n.Summary, "\n", "\n    "))
	}
	return b.String()
}

// axeSource is axe-core, which npm has fetched.
var axeSource = sync.OnceValues(func() (string, error) {
	source, err := os.ReadFile(filepath.FromSlash("../../web/testdata/axe/node_modules/axe-core/axe.min.js"))
	if err != nil {
		return "", fmt.Errorf("no axe-core: type `make need-axe` (that is scripts/install-axe.sh): %w", err)
	}
	return string(source), nil
})

// axe has axe-core look for what keeps people from using the page as it is now.
// What is serious or critical fails the test, the rest is logged.
func (p *tab) axe() {
	p.Helper()
	for _, f := range p.axeFindings() {
		if f.Impact == "serious" || f.Impact == "critical" {
			p.Errorf("axe: %s", f.String())
		} else {
			p.Logf("axe: %s", f.String())
		}
	}
}

func (p *tab) axeFindings() []axeFinding {
	p.Helper()
	source, err := axeSource()
	if err != nil {
		p.Fatal(err)
	}
	// A world of its own: it sees the page, and the page's policy does not bind
	// it.
	tree, err := command(p, cdppage.GetFrameTree, cdp.Empty{})
	if err != nil {
		p.Fatal(err)
	}
	world, err := command(p, cdppage.CreateIsolatedWorld, cdppage.CreateIsolatedWorldParams{FrameID: tree.FrameTree.Frame.ID, WorldName: "axe"})
	if err != nil {
		p.Fatal(err)
	}
	answer, err := command(p, runtime.Evaluate, runtime.EvaluateParams{
		ContextID: world.ExecutionContextID, AwaitPromise: new(true), ReturnByValue: new(true),
		Expression: source + "\n;axe.run(document, {resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations))",
	})
	if err == nil && answer.ExceptionDetails != nil {
		err = fmt.Errorf("%s %s", answer.ExceptionDetails.Text, words([]*runtime.RemoteObject{answer.ExceptionDetails.Exception}))
	}
	if err != nil {
		p.Fatalf("axe: %v", err)
	}
	var text string
	if err := json.Unmarshal(answer.Result.Value, &text); err != nil {
		p.Fatalf("axe: %v", err)
	}
	var all []axeFinding
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		p.Fatalf("axe: %v", err)
	}
	return all
}
