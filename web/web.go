// Package web is the pages that people look at: the customer's, the
// administrator's, and the element that other panels embed. It is plain files
// without a build step, embedded in the binary. They know nothing but what the
// HTTP API tells them.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

//go:embed index.html admin.html server-sync.js assets
var files embed.FS

// Config is how the pages are served.
type Config struct {
	// FrameAncestors are the origins whose pages may show the customer's page
	// in a frame; empty: nobody's. The administrator's is never framed.
	FrameAncestors []string
	// Quiet is called for each request of a file that belongs to a page, which
	// is not worth a line in the log. May be nil.
	Quiet func(echo.Context)
}

// policy is what browsers are to refuse: scripts, styles and connections that
// are not ours, markup made of text, forms that send elsewhere. What is between
// quotes is a keyword of Content-Security-Policy.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors "

// file is one that is served.
type file struct {
	body []byte
	kind string // its media type
	etag string
}

// Register adds the routes of the pages. It fails when two files would have the
// same route, or one has no known type.
func Register(e *echo.Echo, c Config) error {
	all, err := load()
	if err != nil {
		return err
	}
	ancestors := "'none'"
	if len(c.FrameAncestors) > 0 {
		ancestors = "'self' " + strings.Join(c.FrameAncestors, " ")
	}
	gzip := middleware.GzipWithConfig(middleware.GzipConfig{MinLength: 512})
	for name, f := range all {
		switch name {
		case "index.html":
			e.GET("/", page(f, ancestors), gzip)
		case "admin.html":
			e.GET("/admin", page(f, "'none'"), gzip)
			e.Pre(withoutSlash("/admin"))
		default:
			e.GET("/"+name, c.asset(f), gzip)
		}
	}
	return nil
}

// types are the media types of what there is. The system's own table may say
// others, and a browser takes no module that is called otherwise.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func load() (map[string]file, error) {
	all := make(map[string]file)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		kind := types[path.Ext(name)]
		if kind == "" {
			return fmt.Errorf("web/%s: no known type", name)
		}
		sum := sha256.Sum256(body)
		all[name] = file{body: body, kind: kind, etag: `W/"` + hex.EncodeToString(sum[:8]) + `"`}
		return nil
	})
	return all, err
}

// page answers with a page, and with what it may do.
func page(f file, ancestors string) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set(echo.HeaderContentSecurityPolicy, policy+ancestors)
		if ancestors == "'none'" {
			h.Set(echo.HeaderXFrameOptions, "DENY") // for what does not know the policy
		}
		h.Set(echo.HeaderReferrerPolicy, "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
		return f.answer(c)
	}
}

// withoutSlash sends who asks for a page with a slash at its end to the page:
// what it names relative to itself would not be found from there. The way back is
// relative too, for proxies that take a path away.
func withoutSlash(path string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if c.Request().URL.Path != path+"/" {
				return next(c)
			}
			return c.Redirect(http.StatusPermanentRedirect, ".."+path)
		}
	}
}

// asset answers with a file that a page needs. Pages of other origins may read
// it too: nothing in it is anybody's secret, and they embed the element.
func (cfg Config) asset(f file) echo.HandlerFunc {
	return func(c echo.Context) error {
		if cfg.Quiet != nil {
			cfg.Quiet(c)
		}
		h := c.Response().Header()
		h.Set(echo.HeaderAccessControlAllowOrigin, "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		return f.answer(c)
	}
}

// answer sends the file unless the browser has it.
func (f file) answer(c echo.Context) error {
	h := c.Response().Header()
	h.Set(echo.HeaderCacheControl, "no-cache") // ask each time, by the tag
	h.Set("ETag", f.etag)
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	for tag := range strings.SplitSeq(c.Request().Header.Get("If-None-Match"), ",") {
		if strings.TrimSpace(tag) == f.etag {
			return c.NoContent(http.StatusNotModified)
		}
	}
	return c.Blob(http.StatusOK, f.kind, f.body)
}
