package web_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"serversync/web"
)

// served are the pages as a browser gets them.
type served struct {
	*httptest.Server
	quiet int // requests that are not worth a line in the log
	paths []string
}

func serve(t *testing.T, ancestors ...string) *served {
	t.Helper()
	e := echo.New()
	s := &served{}
	if err := web.Register(e, web.Config{FrameAncestors: ancestors, Quiet: func(echo.Context) { s.quiet++ }}); err != nil {
		t.Fatal(err)
	}
	for _, r := range e.Routes() {
		s.paths = append(s.paths, r.Path)
	}
	s.Server = httptest.NewServer(e)
	t.Cleanup(s.Close)
	return s
}

// answer is what came back, its body as it was sent.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (s *served) get(t *testing.T, path string, header ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept-Encoding", "identity")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, body}
}

// file is one that is embedded, and where it is served.
type file struct {
	name, path string
	text       string
}

// files are all that are embedded.
func files(t *testing.T) []file {
	t.Helper()
	var all []file
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && name != "." && name != "assets" && !strings.HasPrefix(name, "assets/") {
			return orSkip(err)
		}
		if d.IsDir() || path.Ext(name) == ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f := file{name, "/" + name, string(text)}
		switch name {
		case "index.html":
			f.path = "/"
		case "admin.html":
			f.path = "/admin"
		}
		all = append(all, f)
		return nil
	})
	if err != nil || len(all) < 4 {
		t.Fatalf("%d files, %v", len(all), err)
	}
	return all
}

// orSkip is the error, else that a folder is not looked into.
func orSkip(err error) error {
	if err != nil {
		return err
	}
	return fs.SkipDir
}

func TestEveryFileIsServed(t *testing.T) {
	t.Parallel()
	s := serve(t)
	kinds := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	}
	all := files(t)
	for _, f := range all {
		a := s.get(t, f.path)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != kinds[path.Ext(f.name)] || string(a.body) != f.text {
			t.Errorf("%s: %d, %q, %d bytes of %d", f.path, a.status, a.header.Get("Content-Type"), len(a.body), len(f.text))
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %v", f.path, a.header)
		}
		isPage := path.Ext(f.name) == ".html"
		if cors := a.header.Get("Access-Control-Allow-Origin"); (cors == "*") == isPage || isPage && cors != "" {
			t.Errorf("%s may be read by %q", f.path, cors)
		}
		if a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s may be read with a cookie", f.path)
		}
		if isPage == (a.header.Get("Cross-Origin-Resource-Policy") == "cross-origin") {
			t.Errorf("%s: embedded by others: %q", f.path, a.header.Get("Cross-Origin-Resource-Policy"))
		}
	}
	if len(s.paths) != len(all) {
		t.Errorf("%d routes for %d files: %v", len(s.paths), len(all), s.paths)
	}
	if s.quiet != len(all)-2 { // all but the two pages
		t.Errorf("%d requests were quiet of %d", s.quiet, len(all))
	}
	for _, none := range []string{"/index.html", "/admin.html", "/assets/", "/assets/none.js", "/web.go", "/assets/../web.go", "/testdata"} {
		if a := s.get(t, none); a.status != http.StatusNotFound {
			t.Errorf("%s: %d", none, a.status)
		}
	}
}

// directives reads a Content-Security-Policy.
func directives(t *testing.T, a answer) map[string]string {
	t.Helper()
	all := make(map[string]string)
	values := a.header.Values("Content-Security-Policy")
	if len(values) != 1 {
		t.Fatalf("policies: %q", values)
	}
	for part := range strings.SplitSeq(values[0], ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), " ")
		if _, twice := all[name]; twice {
			t.Errorf("%s is there twice: %s", name, values[0])
		}
		all[name] = value
	}
	return all
}

// What a page may do is said where it is served, and nothing of it lets markup
// in a name become more than text.
func TestWhatAPageMayDo(t *testing.T) {
	t.Parallel()
	const one, two = "https://panel.example.com", "http://10.0.0.5:3000"
	for _, test := range []struct {
		ancestors    []string
		path, framed string
		denied       string // X-Frame-Options
	}{
		{nil, "/", "'none'", "DENY"},
		{nil, "/admin", "'none'", "DENY"},
		{[]string{one, two}, "/", "'self' " + one + " " + two, ""},
		{[]string{one, two}, "/admin", "'none'", "DENY"},
	} {
		a := serve(t, test.ancestors...).get(t, test.path)
		may := directives(t, a)
		for name, want := range map[string]string{
			"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "base-uri": "'none'", "form-action": "'self'",
			"require-trusted-types-for": "'script'", "frame-ancestors": test.framed,
		} {
			if got, ok := may[name]; !ok || got != want {
				t.Errorf("%s with %v: %s is %q, want %q", test.path, test.ancestors, name, got, want)
			}
		}
		for name, value := range may {
			for _, bad := range []string{"unsafe-", "*", "data:", "blob:", "http"} {
				if strings.Contains(value, bad) && name != "frame-ancestors" {
					t.Errorf("%s: %s %s", test.path, name, value)
				}
			}
		}
		if got := a.header.Get("X-Frame-Options"); got != test.denied {
			t.Errorf("%s with %v: X-Frame-Options %q", test.path, test.ancestors, got)
		}
		if a.header.Get("Referrer-Policy") != "same-origin" || a.header.Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("%s: %v", test.path, a.header)
		}
	}
}

// What a browser has is not sent again, and what it has not comes compressed
// if it asks for that.
func TestFilesAreSentOnce(t *testing.T) {
	t.Parallel()
	s := serve(t)
	tags := map[string]string{}
	for _, f := range files(t) {
		tag := s.get(t, f.path).header.Get("ETag")
		if tag == "" || tags[tag] != "" {
			t.Errorf("%s and %s have the tag %q", f.path, tags[tag], tag)
		}
		tags[tag] = f.path
		for _, known := range []string{tag, `"old", ` + tag + ` ,"older"`} {
			a := s.get(t, f.path, "If-None-Match", known, "Accept-Encoding", "gzip")
			if a.status != http.StatusNotModified || len(a.body) > 0 || a.header.Get("ETag") != tag || a.header.Get("Content-Encoding") != "" {
				t.Errorf("%s with %s: %d, %v, %d bytes", f.path, known, a.status, a.header, len(a.body))
			}
			if isPage := path.Ext(f.name) == ".html"; isPage && a.header.Get("Content-Security-Policy") == "" {
				t.Errorf("%s: a browser that has it takes its old policy for it", f.path)
			}
		}
		if a := s.get(t, f.path, "If-None-Match", `W/"0000000000000000"`); a.status != http.StatusOK {
			t.Errorf("%s with another tag: %d", f.path, a.status)
		}
		a := s.get(t, f.path, "Accept-Encoding", "gzip")
		if long := len(f.text) > 512; (a.header.Get("Content-Encoding") == "gzip") != long {
			t.Errorf("%s, %d bytes, in the encoding %q", f.path, len(f.text), a.header.Get("Content-Encoding"))
		} else if long {
			if unpacked := unpack(t, a.body); unpacked != f.text || !strings.Contains(strings.Join(a.header.Values("Vary"), " "), "Accept-Encoding") {
				t.Errorf("%s: %d bytes of %d, Vary %q", f.path, len(unpacked), len(f.text), a.header.Values("Vary"))
			}
		}
	}
}

func unpack(t *testing.T, body []byte) string {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	tags     = regexp.MustCompile(`(?s)<!--.*?-->|<([a-zA-Z][\w-]*)((?:[^"'>]|"[^"]*"|'[^']*')*)>`)
	attrs    = regexp.MustCompile(`([\w:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))`)
	modules  = regexp.MustCompile(`(?m)(?:^(?:import|export|\})[^'"\n]*\bfrom\s*|^import\s*|\bimport\(\s*)['"]([^'"]+)['"]`)
	literals = regexp.MustCompile("['\"`]([\\w./-]+\\.(?:js|css|svg|html))['\"`]")
	urls     = regexp.MustCompile(`(?i)\b(?:https?|wss?)://[^\s'"<>` + "`" + `)]*|['"(=]\s*//[\w.-]+\.\w+`)
	styled   = regexp.MustCompile(`(?i)url\(\s*['"]?([^'")]+)`)
	examples = []string{"http://www.w3.org/", "https://www.w3.org/", "https://serversync.example.com/server-sync.js"}
	// others are what other packages serve.
	others = regexp.MustCompile(`^/(api/.*|openapi\.yaml|schemas/.*|metrics|readyz|healthz)$`)
)

// Everything that a page, a script or a style names is there, and is ours.
func TestWhatIsNamedIsThere(t *testing.T) {
	t.Parallel()
	s := serve(t)
	var asked int
	look := func(f *file, reference string) {
		t.Helper()
		if strings.HasPrefix(reference, "#") {
			return
		}
		base, err := url.Parse(s.URL + f.path)
		if err != nil {
			t.Fatal(err)
		}
		there, err := base.Parse(reference)
		if err != nil {
			t.Errorf("%s names %q: %v", f.name, reference, err)
			return
		}
		if there.Host == base.Host && others.MatchString(there.Path) {
			return
		}
		asked++
		if a := s.get(t, there.Path); there.Host != base.Host || a.status != http.StatusOK {
			t.Errorf("%s names %s: %d", f.name, there, a.status)
		}
	}
	for _, f := range files(t) {
		switch path.Ext(f.name) {
		case ".html":
			for _, tag := range tags.FindAllStringSubmatch(f.text, -1) {
				for _, attr := range attrs.FindAllStringSubmatch(tag[2], -1) {
					if name := strings.ToLower(attr[1]); name == "src" || name == "href" || name == "action" {
						look(&f, attr[2]+attr[3]+attr[4])
					}
				}
			}
		case ".js":
			for _, found := range literals.FindAllStringSubmatch(f.text, -1) {
				if !strings.HasPrefix(found[1], ".") { // relative to where all is served
					found[1] = "/" + strings.TrimPrefix(found[1], "/")
				}
				look(&f, found[1])
			}
			for _, found := range modules.FindAllStringSubmatch(f.text, -1) {
				if !strings.HasPrefix(found[1], "./") && !strings.HasPrefix(found[1], "../") {
					t.Errorf("%s imports %q, which no browser finds", f.name, found[1])
				}
				look(&f, found[1])
			}
		case ".css":
			for _, found := range styled.FindAllStringSubmatch(f.text, -1) {
				look(&f, found[1])
			}
		}
		for _, there := range urls.FindAllString(f.text, -1) {
			if !slices.ContainsFunc(examples, func(known string) bool { return strings.HasPrefix(there, known) }) {
				t.Errorf("%s names another origin: %s", f.name, there)
			}
		}
	}
	if asked < 4 {
		t.Errorf("only %d names were found", asked)
	}
}

// The pages hold no script, no style and no handler of their own: their policy
// would refuse them.
func TestNothingIsInline(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if path.Ext(f.name) != ".html" {
			continue
		}
		for _, tag := range tags.FindAllStringSubmatch(f.text, -1) {
			element, hasSource := strings.ToLower(tag[1]), false
			for _, attr := range attrs.FindAllStringSubmatch(tag[2], -1) {
				name, value := strings.ToLower(attr[1]), attr[2]+attr[3]+attr[4]
				hasSource = hasSource || name == "src"
				if name == "style" || strings.HasPrefix(name, "on") || strings.HasPrefix(strings.ToLower(value), "javascript:") {
					t.Errorf("%s: %s", f.name, tag[0])
				}
			}
			if element == "style" || element == "base" || element == "script" && !hasSource {
				t.Errorf("%s: %s", f.name, tag[0])
			}
		}
	}
}

// All files together, as they are sent, stay small.
func TestThePagesAreSmall(t *testing.T) {
	t.Parallel()
	const most = 100 << 10
	s := serve(t)
	var sum int
	for _, f := range files(t) {
		sum += len(s.get(t, f.path, "Accept-Encoding", "gzip").body)
	}
	t.Logf("%d bytes", sum)
	if sum > most {
		t.Errorf("%d bytes, at most %d", sum, most)
	}
}
