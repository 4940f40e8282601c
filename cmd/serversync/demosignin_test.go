package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// gate is the demo's output. It holds the demo up when that introduces itself,
// until the test lets it go on.
type gate struct {
	logBuffer
	reached, open chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	n, err := g.logBuffer.Write(p)
	if bytes.Contains(p, []byte("demo is running")) {
		close(g.reached)
		<-g.open
	}
	return n, err
}

// demoed is a demo that runs until the test ends.
type demoed struct {
	base, dir string
	out       *gate
	log       *logBuffer
}

func startDemo(t *testing.T) *demoed {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	c, err := read(t, demoSettings(), "--listen-addr=127.0.0.1:0", "--data-dir="+dir, "--log-level=debug")
	if err != nil {
		t.Fatal(err)
	}
	c.demo = true
	d := &demoed{dir: dir, out: &gate{reached: make(chan struct{}), open: make(chan struct{})}, log: &logBuffer{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- demo(ctx, &c, simulation{rate: 1, size: 3, seed: 1}, d.out, newLogger(&c, d.log)) }()
	letOn := sync.OnceFunc(func() { close(d.out.open) })
	t.Cleanup(func() {
		letOn()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demo did not end cleanly: %v\n%s", err, d.log.String())
		}
	})
	select {
	case <-d.out.reached:
	case err := <-ended:
		ended <- err
		t.Fatalf("the demo ended at once: %v", err)
	}
	d.base = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(d.out.String())
	eventually(t, "the demo is ready", func() bool {
		status, _ := get(t, d.base+"/readyz")
		return status == http.StatusOK
	})
	if strings.Contains(d.log.String(), "leads the sweeps") {
		t.Error("it sweeps before it is connected")
	}
	letOn()
	return d
}

// links are those that were printed for somebody, in order.
func (d *demoed) links(name string) []string {
	var all []string
	for _, found := range regexp.MustCompile(regexp.QuoteMeta(name)+`.* (http://\S+/demo/sign-in/\S+)`).FindAllStringSubmatch(d.out.String(), -1) {
		all = append(all, found[1])
	}
	return all
}

// landed is what came of following a link.
type landed struct {
	status  int
	header  http.Header
	cookies []*http.Cookie
	body    string
}

// follow asks for a link as a browser does, without what it leads to.
func follow(t *testing.T, method, link string, header ...string) landed {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, link, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: it may be kept by caches", link)
	}
	return landed{response.StatusCode, response.Header, response.Cookies(), string(body)}
}

// as asks for something with a cookie.
func as(t *testing.T, cookie *http.Cookie, url string) (int, string) {
	t.Helper()
	l := follow(t, http.MethodGet, url, "Cookie", cookie.Name+"="+cookie.Value)
	return l.status, l.body
}

// signedIn follows a link and returns the session's cookie.
func (d *demoed) signedIn(t *testing.T, link, page string) *http.Cookie {
	t.Helper()
	l := follow(t, http.MethodGet, link)
	if l.status != http.StatusSeeOther || l.header.Get("Location") != page || l.header.Get("Referrer-Policy") != "no-referrer" || len(l.cookies) != 1 {
		t.Fatalf("%s: %+v", link, l)
	}
	if c := l.cookies[0]; c.Name != "connect.sid" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || !strings.HasPrefix(c.Value, "s%3A") {
		t.Errorf("the cookie: %+v", c)
	}
	return l.cookies[0]
}

// The demo's links sign a customer and the administrator in, each once, and the
// next one is always at hand. They find something to see.
func TestTheDemo(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	const beatriz, ada = "Beatriz Barros", "Ada Admin"
	customer, admin := d.links(beatriz), d.links(ada)
	if len(customer) != 1 || len(admin) != 1 {
		t.Fatalf("links: %q, %q in\n%s", customer, admin, d.out.String())
	}

	// Who only looks at a link does not use it up.
	for _, l := range []landed{
		follow(t, http.MethodHead, customer[0]),
		follow(t, http.MethodGet, customer[0], "Sec-Purpose", "prefetch;prerender"),
		follow(t, http.MethodGet, customer[0], "Purpose", "prefetch"),
	} {
		if l.status != http.StatusNoContent || len(l.cookies) > 0 || l.body != "" {
			t.Errorf("a look: %+v", l)
		}
	}
	if l := follow(t, http.MethodGet, d.base+"/demo/sign-in/"+strings.Repeat("A", 26)); l.status != http.StatusNotFound || !strings.Contains(l.body, "sign in as") {
		t.Errorf("an unknown link: %+v", l)
	}

	cookie := d.signedIn(t, customer[0], "/")
	if status, body := as(t, cookie, d.base+"/api/user/me"); status != http.StatusOK || !strings.Contains(body, `"data":{"id":2,"name":"Beatriz Barros","admin":false}`) {
		t.Errorf("the customer: %d %s", status, body)
	}
	if status, body := as(t, cookie, d.base+"/api/admin/overview"); status != http.StatusForbidden {
		t.Errorf("the customer on the admin's route: %d %s", status, body)
	}
	if l := follow(t, http.MethodGet, customer[0]); l.status != http.StatusGone || len(l.cookies) > 0 || !strings.Contains(l.body, "sign in as "+beatriz) {
		t.Errorf("a used link: %+v", l)
	}
	boss := d.signedIn(t, admin[0], "/admin")
	if status, body := as(t, boss, d.base+"/api/user/me"); status != http.StatusOK || !strings.Contains(body, `"data":{"id":1,"name":"Ada Admin","admin":true}`) {
		t.Errorf("the admin: %d %s", status, body)
	}

	// Of many at once one gets in.
	customer = d.links(beatriz)
	if len(customer) != 2 || len(d.links(ada)) != 2 || customer[0] == customer[1] {
		t.Fatalf("links: %q, %q", customer, d.links(ada))
	}
	statuses := make([]int, 20)
	var wg sync.WaitGroup
	for i := range statuses {
		wg.Go(func() {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, customer[1], http.NoBody)
			if err != nil {
				t.Error(err)
				return
			}
			response, err := http.DefaultTransport.RoundTrip(request)
			if err != nil {
				t.Error(err)
				return
			}
			_ = response.Body.Close()
			statuses[i] = response.StatusCode
		})
	}
	wg.Wait()
	slices.Sort(statuses)
	if want := append([]int{http.StatusSeeOther}, slices.Repeat([]int{http.StatusGone}, len(statuses)-1)...); !slices.Equal(statuses, want) {
		t.Errorf("twenty at once: %v", statuses)
	}
	if n := len(d.links(beatriz)); n != 3 {
		t.Errorf("%d links were printed", n)
	}
	for _, link := range slices.Concat(d.links(beatriz), d.links(ada)) {
		if token := link[strings.LastIndex(link, "/")+1:]; strings.Contains(d.log.String(), token) {
			t.Errorf("the log holds %s", token)
		}
	}
	d.introducesItself(t)
	d.hasSomethingToSee(t, boss)
}

// hasSomethingToSee waits until there is a bit of everything, and looks at how
// the first sweep went.
func (d *demoed) hasSomethingToSee(t *testing.T, admin *http.Cookie) {
	t.Helper()
	type server struct {
		Name, Status, Billing, BillingReason string
	}
	read := func(path string, into any) {
		t.Helper()
		status, body := as(t, admin, d.base+path)
		if err := json.Unmarshal([]byte(body), into); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, status, body, err)
		}
	}
	for path, wants := range map[string][]server{
		"user=2":          {{"shop", "external", "on", ""}, {"blog", "external", "on", ""}, {"render", "external", "off", "unpriced"}},
		"status=native":   {{"", "native", "on", ""}},
		"status=unlinked": {{"stray", "unlinked", "off", ""}},
	} {
		eventually(t, path, func() bool {
			var list struct{ Data struct{ Items []server } }
			read("/api/admin/servers?limit=200&"+path, &list)
			return !slices.ContainsFunc(wants, func(want server) bool {
				return !slices.ContainsFunc(list.Data.Items, func(s server) bool {
					return s == want || want.Name == "" && s.Status == want.Status && s.Billing == want.Billing
				})
			})
		})
	}
	eventually(t, "the first sweep has succeeded", func() bool {
		var list struct {
			Data []struct{ Kind, State string }
		}
		read("/api/admin/runs", &list)
		for _, r := range list.Data {
			if r.State != "running" && r.State != "succeeded" {
				t.Fatalf("runs: %+v\n%s", list.Data, d.log.String())
			}
		}
		return len(list.Data) > 0 && list.Data[len(list.Data)-1].State == "succeeded"
	})
}

// introducesItself does what the introduction says is to be done.
func (d *demoed) introducesItself(t *testing.T) {
	t.Helper()
	var ran int
	for _, found := range regexp.MustCompile(`(?m)^ +(?:commands +)?`+regexp.QuoteMeta(os.Args[0])+` ((?:status|sweep|explain).*)$`).FindAllStringSubmatch(d.out.String(), -1) {
		ran++
		eventually(t, found[1], func() bool {
			var out bytes.Buffer
			return run(t.Context(), append([]string{"serversync"}, strings.Fields(found[1])...), &out, &out) == exitDone
		})
	}
	if ran != 3 {
		t.Errorf("%d commands in\n%s", ran, d.out.String())
	}
	aligned := regexp.MustCompile(`^  (\S.{10}| {11}) \S`)
	_, introduced, _ := strings.Cut(d.out.String(), "Ctrl-C.\n")
	introduced, _, _ = strings.Cut(introduced, "Each line below")
	for line := range strings.SplitSeq(introduced, "\n") {
		if line != "" && !aligned.MatchString(line) {
			t.Errorf("out of line: %s", line)
		}
	}
}
