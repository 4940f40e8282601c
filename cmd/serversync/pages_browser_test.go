package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// browser is the one Chromium of all tests of the package. The first test that
// asks starts it, TestMain ends it.
var browser = &chromium{}

type chromium struct {
	mu      sync.Mutex
	started bool
	err     error // that of the start
	ctx     context.Context
	cancel  context.CancelFunc
	dir     string // its profile, and nothing of anybody's
}

// chromiumNames are where a Chromium or Chrome is looked for, as in
// scripts/install-chromium.sh.
var chromiumNames = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

func findChromium() (string, error) {
	if name := os.Getenv("CHROMIUM"); name != "" {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("CHROMIUM is no program: set it to Chromium's path, or unset it: %w", err)
		}
		return path, nil
	}
	for _, name := range chromiumNames {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium: type `make need-chromium` (that is scripts/install-chromium.sh), or set CHROMIUM to the path of one")
}

// use returns the context of the running browser.
func (b *chromium) use(t testing.TB) context.Context {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.started {
		b.started = true
		b.err = b.start()
	}
	if b.err != nil {
		t.Fatalf("the tests of the pages need a browser: %v", b.err)
	}
	return b.ctx
}

func (b *chromium) start() error {
	path, err := findChromium()
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "serversync-chromium-"); err != nil {
		return err
	}
	// As root chromedp adds --no-sandbox, and only then.
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(filepath.Join(b.dir, "profile")),
		// Frames of other sites stay in the page's process, where they are seen.
		chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter,IsolateOrigins,site-per-process"),
		chromedp.Flag("disable-site-isolation-trials", true),
		// Nothing but this machine is asked.
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost"),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("lang", "en-US"),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("mute-audio", true),
	)
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	b.ctx, b.cancel = ctx, func() { stop(); stopAllocator() }
	if err := chromedp.Do(ctx); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	return nil
}

// stop ends the browser, if there is one.
func (b *chromium) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx != nil {
		limit, done := context.WithTimeout(b.ctx, 10*time.Second)
		_ = chromedp.Cancel(limit) // gently at first
		done()
		b.cancel()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
