package virtfusion

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The types in this file hold one JSON value each. A value that cannot be read
// leaves the field missing: read never fails, nor does UnmarshalJSON, because
// encoding/json gives up on the whole object when one does.

// number is a non-negative whole number, as a JSON number or as text.
// Booleans, fractions, negative values and what overflows count as missing.
type number struct {
	value int64
	known bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (n *number) UnmarshalJSON(data []byte) error {
	n.read(data)
	return nil
}

func (n *number) read(data []byte) {
	n.value, n.known = parseNumber(unquoted(data))
}

// pointer returns nil when the value is missing.
func (n *number) pointer() *int64 {
	if !n.known {
		return nil
	}
	return &n.value
}

// id returns 0 when the value is missing; VirtFusion counts from 1.
func (n *number) id() int64 {
	if !n.known {
		return 0
	}
	return n.value
}

// idPointer is like pointer, but 0 counts as missing too: no VirtFusion id is 0.
func (n *number) idPointer() *int64 {
	if n.id() == 0 {
		return nil
	}
	return &n.value
}

// parseNumber reads a non-negative whole number. PHP may write one as 12.0 or
// 1.2e1, so a float that is whole and exact counts too.
func parseNumber(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 32 {
		return 0, false
	}
	if value, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		return value, value >= 0
	}
	if c := text[0]; c != '-' && (c < '0' || c > '9') {
		return 0, false // "NaN", "Infinity", "true", hexadecimal, …
	}
	const exact = 1 << 53 // the largest range in which float64 holds every integer
	value, err := strconv.ParseFloat(string(text), 64)
	if err != nil || value < 0 || value > exact || value != math.Trunc(value) {
		return 0, false
	}
	return int64(value), true
}

// flag is a boolean: true and false, 0 and 1 (any other number is true), or
// either of them as text. Anything else counts as missing.
type flag struct {
	value bool
	known bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *flag) UnmarshalJSON(data []byte) error {
	f.read(data)
	return nil
}

func (f *flag) read(data []byte) {
	*f = flag{}
	text := unquoted(data)
	switch {
	case bytes.EqualFold(text, []byte("true")):
		*f = flag{value: true, known: true}
	case bytes.EqualFold(text, []byte("false")):
		*f = flag{known: true}
	default:
		if value, ok := parseNumber(text); ok {
			*f = flag{value: value != 0, known: true}
		}
	}
}

// pointer returns nil when the value is missing.
func (f *flag) pointer() *bool {
	if !f.known {
		return nil
	}
	return &f.value
}

// level is a number that older versions may send as a boolean: selfService.
type level struct{ number }

// UnmarshalJSON implements [json.Unmarshaler].
func (l *level) UnmarshalJSON(data []byte) error {
	l.read(data)
	return nil
}

func (l *level) read(data []byte) {
	if l.number.read(data); l.known {
		return
	}
	var f flag
	if f.read(data); f.known {
		l.known = true
		if f.value {
			l.value = 1
		}
	}
}

// text is a string; a number counts as its digits. NUL characters are dropped,
// because PostgreSQL's text cannot hold them.
type text struct {
	value string
	known bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (t *text) UnmarshalJSON(data []byte) error {
	t.read(data)
	return nil
}

func (t *text) read(data []byte) {
	*t = text{}
	if len(data) == 0 {
		return
	}
	switch c := data[0]; {
	case c == '"':
		t.value, t.known = unquote(data)
	case c == '-' || (c >= '0' && c <= '9'):
		t.value, t.known = string(data), true
	}
}

// pointer returns nil when the value is missing.
func (t *text) pointer() *string {
	if !t.known {
		return nil
	}
	return &t.value
}

// filled is like pointer, but an empty text counts as missing too.
func (t *text) filled() *string {
	if t.value == "" {
		return nil
	}
	return &t.value
}

// unquote reads a JSON string.
func unquote(data []byte) (string, bool) {
	inner := data[1 : len(data)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return withoutNUL(string(inner)), true
	}
	value, ok := unescaped(inner)
	return withoutNUL(value), ok
}

func withoutNUL(value string) string {
	if strings.IndexByte(value, 0) < 0 {
		return value
	}
	return strings.ReplaceAll(value, "\x00", "")
}

// unescaped reads what stands between the quotes of a JSON string.
func unescaped(inner []byte) (string, bool) {
	quoted := make([]byte, 0, len(inner)+2)
	quoted = append(append(append(quoted, '"'), inner...), '"')
	var value string
	if err := json.Unmarshal(quoted, &value); err != nil {
		return "", false
	}
	return value, true
}

// unquoted returns the bytes of a number or boolean that may stand in quotes.
func unquoted(data []byte) []byte {
	if len(data) >= 2 && data[0] == '"' {
		return bytes.TrimSpace(data[1 : len(data)-1])
	}
	return data
}

// timestamp is a time: RFC 3339 with or without a fraction, or
// "2006-01-02 15:04:05", which is UTC. Times outside the years 1970 to 9999
// count as missing: none of them is true, and the far ones cannot be written
// down again as RFC 3339.
type timestamp struct {
	value time.Time
	known bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (t *timestamp) UnmarshalJSON(data []byte) error {
	t.read(data)
	return nil
}

func (t *timestamp) read(data []byte) {
	*t = timestamp{}
	if len(data) < 2 || data[0] != '"' {
		return
	}
	written := string(bytes.TrimSpace(data[1 : len(data)-1]))
	value, err := time.Parse(time.RFC3339, written) // accepts a fraction too
	if err != nil {
		value, err = time.ParseInLocation(time.DateTime, written, time.UTC)
	}
	if err != nil {
		return
	}
	value = value.UTC()
	if year := value.Year(); year >= 1970 && year <= 9999 {
		*t = timestamp{value: value, known: true}
	}
}

// pointer returns nil when the value is missing.
func (t *timestamp) pointer() *time.Time {
	if !t.known {
		return nil
	}
	return &t.value
}
