package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParsePage(t *testing.T) {
	t.Parallel()
	page := strings.Join([]string{
		"# A page", "",
		"```console",
		"$ one --with \\",
		"    more",
		"shown …",
		"$ cat >file <<'EOF'",
		"A=b",
		"EOF",
		"```",
		"<!-- guide: VirtFusion create -->",
		"1. In a list:", "",
		"<!-- guide: exit 3 -->",
		"   ```console",
		"   $ two",
		"   ```",
		"<!-- guide: not run: it would take a day -->",
		"```console",
		"$ three",
		"```",
		"```sh", "$ not a command", "```",
	}, "\n")
	got, err := parsePage(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{line: 4, command: "one --with \\\n    more", shown: []string{"shown …"}},
		{line: 7, command: "cat >file <<'EOF'\nA=b\nEOF"},
		{line: 11, act: "VirtFusion create"},
		{line: 16, command: "two", exit: 3},
		{line: 20, command: "three", skipped: "it would take a day"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParsePageRefuses(t *testing.T) {
	t.Parallel()
	for name, page := range map[string]string{
		"a block without an end":     "```console\n$ one\n",
		"a command without an end":   "```console\n$ one \\\n```",
		"output without a command":   "```console\nshown\n```",
		"an empty block":             "```console\n```",
		"a remark that nobody knows": "<!-- guide: dance -->",
		"a code that is none":        "<!-- guide: exit three -->\n```console\n$ one\n```",
		"a remark without a block":   "```console\n$ one\n```\n<!-- guide: exit 3 -->",
	} {
		if steps, err := parsePage(page); err == nil {
			t.Errorf("%s: %+v, want an error", name, steps)
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	output := "first  line 12\nsecond\nthird (of 3)\n"
	for _, c := range []struct {
		name  string
		shown []string
		want  []string
	}{
		{"nothing shown", nil, nil},
		{"all of it", []string{"first line …", "second", "third (of 3)"}, nil},
		{"something left out", []string{"first line 12", "…", "third (of …)"}, nil},
		{"in another order", []string{"second", "first line 12"}, []string{"first line 12"}},
		{"another word", []string{"first line 13"}, []string{"first line 13"}},
		{"a part of a line", []string{"first"}, []string{"first"}},
	} {
		if got := missing(c.shown, output); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: missing %q, want %q", c.name, got, c.want)
		}
	}
}

// TestPagesCanBeFollowed: whatever `make guide` reads, and whatever else has
// commands, has the form that it knows.
func TestPagesCanBeFollowed(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	commands := 0
	for _, path := range pages {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := parsePage(string(text))
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, s := range steps {
			if s.command != "" && s.skipped == "" {
				commands++
			}
		}
	}
	if commands < 50 {
		t.Errorf("%d commands are run, there are more", commands)
	}
}
