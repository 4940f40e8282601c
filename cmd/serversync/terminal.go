package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// printable shows what a terminal would obey or hide, rather than sending it
// there: control characters, and characters that turn the direction of text.
// Names come from customers.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}

// page is text for a terminal, built line by line: whatever a line holds, it
// stays one line and is only text.
type page struct{ b strings.Builder }

func (p *page) linef(format string, args ...any) {
	p.b.WriteString(printable(fmt.Sprintf(format, args...)))
	p.b.WriteByte('\n')
}

func (p *page) blank() { p.b.WriteByte('\n') }

func (p *page) print(out io.Writer) error {
	_, err := io.WriteString(out, p.b.String())
	return err
}

// printJSON prints for programs, and for people who look at it: what is not
// plain text is escaped.
func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
