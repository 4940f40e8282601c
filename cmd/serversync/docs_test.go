package main

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"serversync/db/dbtest"
	"serversync/internal/openapitest"
	"serversync/schemas"
)

// repository is the root, as seen from here.
const repository = "../.."

// documents are the pages that people read, by their path from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(repository, path)
		if err != nil {
			return err
		}
		if entry.IsDir() && (name != "." && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" || name == "data") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		pages[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 40 {
		t.Fatalf("%d pages, there are more", len(pages))
	}
	return pages
}

var (
	fence      = regexp.MustCompile("(?ms)^( *)```([a-z]*)\n(.*?)^ *```$")
	inlineCode = regexp.MustCompile("`([^`\n]+)`")
	pageLink   = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading    = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// blocks are the fenced blocks of a page in one language.
func blocks(text, language string) (all []string) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[2] == language {
			all = append(all, m[3])
		}
	}
	return all
}

// snippets are what a page shows as code: its blocks of commands, and what stands
// between backticks.
func snippets(text string) []string {
	all := append(blocks(text, "console"), blocks(text, "sh")...)
	for _, m := range inlineCode.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all = append(all, m[1])
	}
	return all
}

// TestLinksLeadSomewhere follows each link from page to page, to its heading.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages := documents(t)
	for name, text := range pages {
		text = inlineCode.ReplaceAllString(fence.ReplaceAllString(text, ""), "code")
		for _, m := range pageLink.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			path := name
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			if _, err := os.Stat(filepath.Join(repository, path)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(pages[path]), anchor) {
				t.Errorf("%s links to %s, which has no such heading", name, m[1])
			}
		}
	}
}

// anchors are the names of a page's headings, as GitHub makes them.
func anchors(text string) (all []string) {
	dropped := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

// TestDocumentedCommandsExist looks up each command of ours that a page shows, and
// its flags. `make guide` runs those of the guides.
func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	invocation := regexp.MustCompile(`(?:^|[\s;|(])(?:bin/)?serversync ((?:[a-z]+)(?: [^;|)\n]*)?)`)
	app := root(nil, nil)
	seen := 0
	for name, text := range documents(t) {
		if name == "CHANGELOG.md" || strings.HasPrefix(name, "docs/decisions/") {
			continue // which tell what was
		}
		for _, code := range snippets(text) {
			for _, m := range invocation.FindAllStringSubmatch(strings.ReplaceAll(code, "\\\n", " "), -1) {
				words := strings.Fields(m[1])
				i := slices.IndexFunc(app.Commands, func(c *cli.Command) bool { return c.Name == words[0] })
				if i < 0 {
					t.Errorf("%s: there is no command %q (in %q)", name, words[0], m[0])
					continue
				}
				seen++
				for _, word := range words[1:] {
					flag, _, _ := strings.Cut(strings.Trim(word, "[]`,."), "=")
					if strings.HasPrefix(flag, "#") {
						break
					}
					if !strings.HasPrefix(flag, "--") || flag == "--help" {
						continue
					}
					if !slices.ContainsFunc(app.Commands[i].Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), flag[2:]) }) {
						t.Errorf("%s: %s has no flag %s", name, words[0], flag)
					}
				}
			}
		}
	}
	if seen < 60 {
		t.Errorf("%d commands were found, there are more", seen)
	}
}

// TestDocumentedRoutesExist looks up each route of the API that a page shows.
func TestDocumentedRoutesExist(t *testing.T) {
	t.Parallel()
	route := regexp.MustCompile(`(?:(GET|POST|DELETE|PUT) |-X (GET|POST|DELETE|PUT) )?(?:https?://[^/\s'"]+)?(/(?:api|webhooks)/[a-zA-Z0-9/:.{}*_-]+)`)
	doc := openapitest.Load(t, schemas.FS())
	known := make(map[string]bool) // "/api/admin/servers/*/undo": as one route of any method
	hole := regexp.MustCompile(`\{[^}]+\}`)
	for path, item := range doc.Paths.Map() {
		known[hole.ReplaceAllString(path, "*")] = true
		for method := range item.Operations() {
			known[method+" "+hole.ReplaceAllString(path, "*")] = true
		}
	}
	segment := regexp.MustCompile(`^(?::[a-z]+|\{[a-zA-Z]+\}|[0-9]+|[A-Z][A-Z-]*|\*)$`)
	seen := 0
	for name, text := range documents(t) {
		if name == "CHANGELOG.md" || strings.HasPrefix(name, "docs/decisions/") {
			continue
		}
		for _, code := range snippets(text) {
			for _, m := range route.FindAllStringSubmatch(code, -1) {
				parts := strings.Split(strings.TrimRight(m[3], "/."), "/")
				if parts[1] == "api" && len(parts) < 4 || strings.Contains(m[3], "/api/v1") {
					continue // not a route of ours: "/api/admin" as a whole, VirtFusion's
				}
				for i, p := range parts {
					if segment.MatchString(p) {
						parts[i] = "*"
					}
				}
				path, method := strings.Join(parts, "/"), m[1]+m[2]
				if strings.Contains(path, "/*.") { // charts/*.svg
					continue
				}
				seen++
				if !known[path] || method != "" && !known[method+" "+path] {
					t.Errorf("%s: the API has no %s (in %q)", name, strings.TrimSpace(method+" "+path), m[0])
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d routes were found, there are more", seen)
	}
	if known[http.MethodGet+" /webhooks/virtfusion"] {
		t.Error("a webhook is posted: the routes are not looked up by method")
	}
}

// TestDocumentedQueriesRun has PostgreSQL run each query that a page shows.
func TestDocumentedQueriesRun(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	id := regexp.MustCompile(`'(?:RUN|ID|UUID|EVENT)'`)
	seen := 0
	for name, text := range documents(t) {
		var queries []string
		for _, block := range blocks(text, "sql") {
			queries = append(queries, strings.Split(block, ";\n")...)
		}
		for _, m := range inlineCode.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.HasPrefix(m[1], "SELECT ") && strings.Contains(m[1], " FROM ") {
				queries = append(queries, m[1])
			}
		}
		for _, query := range queries {
			query = id.ReplaceAllString(strings.TrimSpace(query), "'00000000-0000-0000-0000-000000000000'")
			if !strings.HasPrefix(query, "SELECT ") && !strings.HasPrefix(query, "WITH ") {
				continue
			}
			seen++
			if _, err := database.ExecContext(t.Context(), query); err != nil {
				t.Errorf("%s: %v\n%s", name, err, query)
			}
		}
	}
	if seen < 15 {
		t.Errorf("%d queries were found, there are more", seen)
	}
}

// TestDocumentedSettingsExist looks up each setting that a page names.
func TestDocumentedSettingsExist(t *testing.T) {
	t.Parallel()
	variable := regexp.MustCompile(`^([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=.*)?$`)
	known := map[string]bool{
		"SERVERSYNC_URL": true, "DELETED_SERVER": true, "VIRTFUSION_DEAD": true, "TEST_TIMEOUT": true, "VERIFY_FULL": true,
		"SUPERUSER_URL": true, "MIGRATE_URL": true, // the guide's own
		"PG_BINDIR": true, // of the embedded PostgreSQL's programs
	}
	for _, s := range settings() {
		known[s.env] = true
	}
	for name, text := range documents(t) {
		if name == "CHANGELOG.md" || strings.HasPrefix(name, "docs/decisions/") {
			continue
		}
		for _, m := range inlineCode.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			v := variable.FindStringSubmatch(m[1])
			if v != nil && !known[v[1]] && !strings.HasPrefix(v[1], "OTEL_") {
				t.Errorf("%s names the setting %s, which is none", name, v[1])
			}
		}
	}
}
