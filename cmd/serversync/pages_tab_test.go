package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/inspector"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is a page in a browser whose cookies no other tab shares, or a frame of
// one. Its methods end the test when they fail. They wait for what they need:
// an element to be there, a button to be free.
//
// Whatever a page complains of fails the test at its end, unless
// [tab.expectErrors] has said that it would.
type tab struct {
	testing.TB
	*tabState

	base  string // for paths
	frame string // what the frame's URL holds; empty: the page itself
}

// tabState is shared by a page and its frames.
type tabState struct {
	ctx   context.Context
	media map[string]string // as is emulated

	mu       sync.Mutex
	faults   []string
	expected []string
	contexts []scriptContext
}

// scriptContext is where the scripts of a frame run.
type scriptContext struct {
	id    string // unique in the browser
	frame cdp.FrameID
}

// newTab opens a browser on the service. It is signed in nowhere.
func (w *pagesWorld) newTab(t testing.TB) *tab {
	t.Helper()
	return newTab(t, w.base)
}

// signedIn opens a browser in which a user of SkyPANEL is signed in.
func (w *pagesWorld) signedIn(t testing.TB, userID int64) *tab {
	t.Helper()
	p := newTab(t, w.base)
	sid := rand.Text()
	w.exec(`INSERT INTO public.session (sid, sess, expire) VALUES ($1, json_build_object('passport', json_build_object('user', $2::bigint)), now() + interval '1 day')`, sid, userID)
	mac := hmac.New(sha256.New, []byte(pagesSecret))
	mac.Write([]byte(sid))
	cookie := "s:" + sid + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
	_, err := command(p, network.SetCookie, network.SetCookieParams{
		Name: "connect.sid", Value: url.QueryEscape(cookie), URL: w.base, Path: "/", HTTPOnly: new(true), SameSite: network.CookieSameSiteLax,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newTab opens a browser on any server.
func newTab(t testing.TB, base string) *tab {
	t.Helper()
	shared := &tabState{media: make(map[string]string)}
	ctx, cancel := chromedp.NewContext(browser.use(t), chromedp.WithNewBrowserContext())
	shared.ctx = ctx
	p := &tab{TB: t, tabState: shared, base: base}
	t.Cleanup(func() {
		t.Helper()
		defer cancel()
		p.check()
	})
	if err := errors.Join(chromedp.Do(ctx), chromedp.Listen(ctx, p.hear)); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	for _, err := range []error{
		failure(command(p, audits.Enable, cdp.Empty{})),
		// Contexts are told again to those who ask anew.
		failure(command(p, runtime.Disable, cdp.Empty{})),
		failure(command(p, runtime.Enable, cdp.Empty{})),
		// A tab among many has the focus, as the only one of a person would.
		failure(command(p, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})),
		failure(command(p, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"})),
	} {
		if err != nil {
			t.Fatalf("set up a tab: %v", err)
		}
	}
	p.setViewport(1280, 900)
	return p
}

func failure[R any](_ R, err error) error { return err }

// command sends one of the browser's own commands to a tab.
func command[P, R any](p *tab, cmd cdp.Command[P, R], params P) (R, error) {
	ctx, cancel := context.WithTimeout(p.ctx, pagesPatience)
	defer cancel()
	return chromedp.Call(ctx, cmd, params)
}

// hear takes down what a page complains of, and where its scripts run.
func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			p.faults = append(p.faults, "console."+string(e.Type)+": "+words(e.Args))
		}
	case *runtime.EventExceptionThrown:
		d := e.ExceptionDetails
		text := d.Text
		if d.Exception != nil {
			text += " " + words([]*runtime.RemoteObject{d.Exception})
		}
		p.faults = append(p.faults, fmt.Sprintf("exception: %s (%s:%d)", text, d.URL, d.LineNumber+1))
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError {
			p.faults = append(p.faults, fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *audits.EventIssueAdded:
		if d := e.Issue.Details; d != nil && d.ContentSecurityPolicyIssueDetails != nil {
			csp := d.ContentSecurityPolicyIssueDetails
			p.faults = append(p.faults, fmt.Sprintf("content security policy: %s refuses %s (%s)", csp.ViolatedDirective, csp.BlockedURL, csp.ContentSecurityPolicyViolationType))
		}
	case *inspector.EventTargetCrashed:
		p.faults = append(p.faults, "the page crashed")
	case *cdppage.EventJavascriptDialogOpening:
		p.faults = append(p.faults, "a dialog of the browser: "+e.Message)
		go func() { _, _ = command(p, cdppage.HandleJavaScriptDialog, cdppage.HandleJavaScriptDialogParams{}) }()
	case *runtime.EventExecutionContextCreated:
		var aux struct {
			FrameID   cdp.FrameID `json:"frameId"`
			IsDefault bool        `json:"isDefault"`
		}
		if json.Unmarshal(e.Context.AuxData, &aux) == nil && aux.IsDefault {
			p.contexts = append(p.contexts, scriptContext{id: e.Context.UniqueID, frame: aux.FrameID})
		}
	case *runtime.EventExecutionContextDestroyed:
		p.contexts = slices.DeleteFunc(p.contexts, func(c scriptContext) bool { return c.id == e.ExecutionContextUniqueID })
	case *runtime.EventExecutionContextsCleared:
		p.contexts = nil
	}
}

// words are the arguments of a call of the console.
func words(args []*runtime.RemoteObject) string {
	var all []string
	for _, a := range args {
		var text string
		switch {
		case a.Description != "":
			all = append(all, a.Description)
		case json.Unmarshal(a.Value, &text) == nil:
			all = append(all, text)
		default:
			all = append(all, string(a.Value))
		}
	}
	return strings.Join(all, " ")
}

// consoleErrors are what the page complained of so far and was not expected to:
// errors in its scripts or on the console, failed requests, and what its policy
// refused.
func (p *tab) consoleErrors() []string {
	_, _ = command(p, runtime.Evaluate, runtime.EvaluateParams{Expression: "0"}) // what was said before has arrived then
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, fault := range p.faults {
		if !slices.ContainsFunc(p.expected, func(part string) bool { return strings.Contains(fault, part) }) {
			all = append(all, fault)
		}
	}
	return all
}

// expectErrors says which complaints are none: those that hold one of these
// parts.
func (p *tab) expectErrors(parts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = append(p.expected, parts...)
}

// check ends a tab's part of a test.
func (p *tab) check() {
	p.Helper()
	for _, fault := range p.consoleErrors() {
		p.Errorf("the page complains: %s", fault)
	}
	if !p.Failed() {
		return
	}
	if text, err := p.visibleText(); err == nil {
		p.Logf("the page shows:\n%s", text)
	}
	if shot, err := p.capture(); err == nil {
		path := filepath.Join(p.ArtifactDir(), strings.ReplaceAll(p.Name(), "/", "_")+".png")
		if os.WriteFile(path, shot, 0o600) == nil {
			p.Logf("how it looks (kept with go test -artifacts): %s", path)
		}
	}
}

// open goes to a path of the service, or to a URL, waits until the page has
// loaded, and returns how it was answered.
func (p *tab) open(path string) *network.Response {
	p.Helper()
	target := path
	if !strings.Contains(path, "://") {
		target = p.base + path
	}
	ctx, cancel := context.WithTimeout(p.ctx, pagesPatience)
	defer cancel()
	answer, err := chromedp.Run(ctx, chromedp.NavigateResponse(target))
	if err != nil {
		p.Fatalf("open %s: %v", target, err)
	}
	return answer
}

// reload loads the page again.
func (p *tab) reload() {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, pagesPatience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Reload()); err != nil {
		p.Fatalf("reload: %v", err)
	}
}

// inFrame is a frame of the page, also one of another origin: the one whose URL
// holds a part. It need not be there yet.
func (p *tab) inFrame(part string) *tab {
	return &tab{TB: p.TB, tabState: p.tabState, base: p.base, frame: part}
}

// context is where the scripts of the frame run; empty: those of the page.
func (p *tab) context() (string, error) {
	if p.frame == "" {
		return "", nil
	}
	tree, err := command(p, cdppage.GetFrameTree, cdp.Empty{})
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for frames := tree.FrameTree.ChildFrames; len(frames) > 0; {
		f := frames[0]
		frames = append(frames[1:], f.ChildFrames...)
		if !strings.Contains(f.Frame.URL, p.frame) {
			continue
		}
		for _, c := range slices.Backward(p.contexts) {
			if c.frame == f.Frame.ID {
				return c.id, nil
			}
		}
	}
	return "", fmt.Errorf("there is no frame %q", p.frame)
}

// evaluate gives the value of an expression as JSON, nil for undefined. The
// functions of pagesPrelude are there for it; a promise is waited for.
func (p *tab) evaluate(expression string) (json.RawMessage, error) {
	return p.script("(async () => {" + pagesPrelude + "\nreturn (" + expression + "\n) })()")
}

func (p *tab) script(source string) (json.RawMessage, error) {
	id, err := p.context()
	if err != nil {
		return nil, err
	}
	answer, err := command(p, runtime.Evaluate, runtime.EvaluateParams{
		Expression: source, UniqueContextID: id, AwaitPromise: new(true), ReturnByValue: new(true), Silent: new(true),
	})
	if err != nil {
		return nil, err
	}
	if e := answer.ExceptionDetails; e != nil {
		return nil, fmt.Errorf("%s %s", e.Text, words([]*runtime.RemoteObject{e.Exception}))
	}
	return json.RawMessage(answer.Result.Value), nil
}

// eval gives the value of an expression, decoded from JSON into into, a pointer
// (nil: nothing is to be known). It may call deep(selector), deepAll(selector),
// textOf(element), valueOf and visible(element).
func (p *tab) eval(expression string, into any) {
	p.Helper()
	value, err := p.evaluate(expression)
	if err != nil {
		p.Fatalf("%s: %v", expression, err)
	}
	if into == nil {
		return
	}
	if len(value) == 0 {
		value = json.RawMessage("null")
	}
	if err := json.Unmarshal(value, into); err != nil {
		p.Fatalf("%s is %s: %v", expression, value, err)
	}
}

// waitFor waits until an expression is true, or anything else that counts as
// true. It may use what [tab.eval] may.
func (p *tab) waitFor(expression string) {
	p.Helper()
	p.await(expression, func() error {
		value, err := p.evaluate("!!(" + expression + ")")
		if err == nil && string(value) != "true" {
			err = errors.New("it is not")
		}
		return err
	})
}

// await waits until something succeeds; what it did not need is no error.
func (p *tab) await(what string, try func() error) {
	p.Helper()
	deadline := time.NewTimer(pagesPatience)
	defer deadline.Stop()
	ticker := time.NewTicker(pagesTick)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			p.Fatalf("waited in vain for %s: %v\nthe page complains: %q", what, err, p.consoleErrors())
		}
		if err := p.ctx.Err(); err != nil {
			p.Fatalf("the tab is gone while waiting for %s: %v", what, context.Cause(p.ctx))
		}
	}
}

// visibleText is all that can be read on the page.
func (p *tab) visibleText() (string, error) {
	value, err := p.evaluate("textOf(document.body)")
	if err != nil {
		return "", err
	}
	var text string
	err = json.Unmarshal(value, &text)
	return text, err
}

// setViewport sets the size of the window, in CSS pixels.
func (p *tab) setViewport(width, height int64) {
	p.Helper()
	if _, err := command(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1,
	}); err != nil {
		p.Fatalf("set the window's size: %v", err)
	}
}

// emulate sets a media feature, such as prefers-color-scheme to dark,
// prefers-reduced-motion to reduce, or forced-colors to active; an empty value
// takes that back.
func (p *tab) emulate(feature, value string) {
	p.Helper()
	p.media[feature] = value
	var all []*emulation.MediaFeature
	for name, value := range p.media {
		all = append(all, &emulation.MediaFeature{Name: name, Value: value})
	}
	if _, err := command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: all}); err != nil {
		p.Fatalf("emulate %s: %v", feature, err)
	}
}

func (p *tab) dark()          { p.Helper(); p.emulate("prefers-color-scheme", "dark") }
func (p *tab) reducedMotion() { p.Helper(); p.emulate("prefers-reduced-motion", "reduce") }

// screenshot sets the size of the window and, where SCREENS names a directory,
// writes a picture of the page there, of at most two windows' height, or of the
// window with a dialog. It returns the picture, a PNG.
func (p *tab) screenshot(name string, width, height int64) []byte {
	p.Helper()
	p.setViewport(width, height)
	// What came into sight with the size is drawn with the frame after the next.
	p.eval("document.fonts.ready.then(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(drawn, 100)))))", nil)
	shot, err := p.capture()
	if err != nil {
		p.Fatalf("take the picture %s: %v", name, err)
	}
	if dir := os.Getenv("SCREENS"); dir != "" {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".png"), shot, 0o644)
		}
		if err != nil {
			p.Fatal(err)
		}
	}
	return shot
}

// capture is a picture of the whole page.
func (p *tab) capture() ([]byte, error) {
	sizes, err := command(p, cdppage.GetLayoutMetrics, cdp.Empty{})
	if err != nil {
		return nil, err
	}
	whole := sizes.CSSContentSize
	windows := 2
	if p.count("dialog") > 0 { // it is in the first one
		windows = 1
	}
	whole.Height = min(whole.Height, float64(windows)*sizes.CSSVisualViewport.ClientHeight)
	answer, err := command(p, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{
		CaptureBeyondViewport: new(true),
		Clip:                  &cdppage.Viewport{Width: whole.Width, Height: whole.Height, Scale: 1},
	})
	if err != nil {
		return nil, err
	}
	return answer.Data, nil
}
