package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// step is one thing to do, in the order of the page.
type step struct {
	line int // of the page, from 1
	// act is what a person does elsewhere, its words ("VirtFusion create");
	// empty: command is typed.
	act string
	// command is one command of the shell, with its continuation lines.
	command string
	// shown are the lines of output that the page shows after it. "…" in a line
	// stands for anything.
	shown []string
	exit  int
	// skipped is why the command is not run; empty: it is.
	skipped string
}

var (
	remark  = regexp.MustCompile(`^\s*<!-- guide: (.+?) -->\s*$`)
	heredoc = regexp.MustCompile(`<<-?\s*'?([A-Z]+)'?`)
)

// parsePage returns the steps of a page: of each block marked "console", the lines
// that begin with "$ ", and the remarks between blocks.
func parsePage(text string) (steps []step, err error) {
	var exit int
	var skipped string
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if m := remark.FindStringSubmatch(lines[i]); m != nil {
			switch words := m[1]; {
			case strings.HasPrefix(words, "exit "):
				if exit, err = strconv.Atoi(strings.TrimPrefix(words, "exit ")); err != nil {
					return nil, fmt.Errorf("line %d: %q is no exit code", i+1, words)
				}
			case strings.HasPrefix(words, "not run: "):
				skipped = strings.TrimPrefix(words, "not run: ")
			case strings.HasPrefix(words, "VirtFusion "):
				steps = append(steps, step{line: i + 1, act: words})
			default:
				return nil, fmt.Errorf("line %d: a guide cannot %q", i+1, words)
			}
			continue
		}
		if strings.TrimSpace(lines[i]) != "```console" {
			continue
		}
		indent := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
		end := i + 1
		for end < len(lines) && strings.TrimSpace(lines[end]) != "```" {
			end++
		}
		if end == len(lines) {
			return nil, fmt.Errorf("line %d: the block has no end", i+1)
		}
		block, err := parseBlock(lines[i+1:end], indent, i+2)
		if err != nil {
			return nil, err
		}
		for k := range block {
			block[k].skipped = skipped
		}
		block[len(block)-1].exit = exit
		steps = append(steps, block...)
		exit, skipped, i = 0, "", end
	}
	if exit != 0 || skipped != "" {
		return nil, errors.New("a remark has no block after it")
	}
	return steps, nil
}

// parseBlock returns the commands of a block whose first line is the page's line
// number first. There is at least one.
func parseBlock(lines []string, indent, first int) (steps []step, err error) {
	for i := 0; i < len(lines); i++ {
		text := strings.TrimPrefix(lines[i], strings.Repeat(" ", indent))
		command, ok := strings.CutPrefix(text, "$ ")
		if !ok {
			if len(steps) == 0 {
				return nil, fmt.Errorf("line %d: a block begins with a command, after \"$ \"", first+i)
			}
			if strings.TrimSpace(text) != "" {
				steps[len(steps)-1].shown = append(steps[len(steps)-1].shown, text)
			}
			continue
		}
		s := step{line: first + i, command: command}
		until := ""
		if m := heredoc.FindStringSubmatch(command); m != nil {
			until = m[1]
		}
		for until != "" || strings.HasSuffix(s.command, `\`) {
			if i++; i == len(lines) {
				return nil, fmt.Errorf("line %d: the command has no end", s.line)
			}
			next := strings.TrimPrefix(lines[i], strings.Repeat(" ", indent))
			s.command += "\n" + next
			if until != "" && next == until {
				break
			}
		}
		steps = append(steps, s)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("line %d: the block has no command", first)
	}
	return steps, nil
}

// missing returns the lines that the page shows and the output does not have, in
// that order.
func missing(shown []string, output string) (lines []string) {
	got := strings.Split(output, "\n")
	for _, line := range shown {
		if strings.Trim(line, " .…") == "" {
			continue // "…" alone: something is left out
		}
		pattern := shownPattern(line)
		found := -1
		for i := range got {
			if pattern.MatchString(got[i]) {
				found = i
				break
			}
		}
		if found < 0 {
			lines = append(lines, line)
			continue
		}
		got = got[found+1:]
	}
	return lines
}

// shownPattern matches a line of output: "…" is anything, and spaces are as many
// as there are.
func shownPattern(line string) *regexp.Regexp {
	words := strings.Fields(line)
	for i, word := range words {
		parts := strings.Split(word, "…")
		for k := range parts {
			parts[k] = regexp.QuoteMeta(parts[k])
		}
		words[i] = strings.Join(parts, ".*")
	}
	return regexp.MustCompile(`^\s*` + strings.Join(words, `\s+`) + `\s*$`)
}
