package virtfusion

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// The walkers in this file go through JSON that was found valid,
// in one pass and without reflection: a sweep reads servers by the hundred
// thousand. What they are given must be valid, and begin with the value.

// valid returns nil when data is one JSON value, or encoding/json's own words
// for why it is none. Like encoding/json it takes names that come twice, and text
// that is not UTF-8: what a panel sends is not ours to refuse.
func valid(data []byte) error {
	if jsontext.Value(data).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
		return nil
	}
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		return err
	}
	return errNotJSON
}

// longestKey is longer than any key that we look for.
const longestKey = 24

// fields goes through the fields of an object in their order. Like
// encoding/json, it leaves it to the reader that a later one of the same name
// replaces an earlier one, and matches names without regard to case.
type fields struct {
	rest  []byte
	name  []byte // as it is written, without its quotes
	value []byte
	lower [longestKey]byte
}

// fieldsOf returns the fields of an object; anything else has none.
func fieldsOf(data []byte) fields {
	if !isObject(data) {
		return fields{}
	}
	return fields{rest: trimmed(data)[1:]}
}

// next moves to the next field, and tells whether there is one.
func (f *fields) next() bool {
	rest := separated(f.rest)
	if len(rest) == 0 || rest[0] != '"' {
		return false
	}
	end := stringEnd(rest, 0)
	f.name = rest[1 : end-1]
	rest = separated(rest[end:])
	end = valueEnd(rest)
	f.value, f.rest = rest[:end], rest[end:]
	return true
}

// key returns the field's name in lower case; nil for one that is not looked
// for. It is good until the next call.
func (f *fields) key() []byte {
	name := f.name
	if bytes.IndexByte(name, '\\') >= 0 {
		written, _ := unescaped(name)
		name = []byte(written)
	}
	length := 0
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c >= utf8.RuneSelf {
			folded, size := foldedRune(name[i:])
			c = folded
			i += size - 1
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c == 0 || length == longestKey {
			return nil
		}
		f.lower[length] = c
		length++
	}
	return f.lower[:length]
}

// foldedRune returns the letter that the first rune of text, beyond ASCII, is
// another form of (the long s, the sign for Kelvin), or 0, and the rune's size.
func foldedRune(text []byte) (letter byte, size int) {
	r, size := utf8.DecodeRune(text)
	switch r {
	case 'ſ':
		return 's', size
	case '\u212a':
		return 'k', size
	default:
		return 0, size
	}
}

// field returns the value of the field with that name, in lower case; nil when
// there is none.
func field(object []byte, name string) []byte {
	var value []byte
	f := fieldsOf(object)
	for f.next() {
		if string(f.key()) == name {
			value = f.value
		}
	}
	return value
}

// items goes through the items of an array.
type items struct {
	rest  []byte
	value []byte
}

// itemsOf returns the items of an array.
func itemsOf(array []byte) items { return items{rest: array[1:]} }

// next moves to the next item, and tells whether there is one.
func (i *items) next() bool {
	rest := separated(i.rest)
	if len(rest) == 0 || rest[0] == ']' {
		return false
	}
	end := valueEnd(rest)
	i.value, i.rest = rest[:end], rest[end:]
	return end > 0
}

// separated returns data without the space, commas and colons that it begins
// with.
func separated(data []byte) []byte {
	for i, c := range data {
		switch c {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			return data[i:]
		}
	}
	return nil
}

// trimmed returns data without the space that it begins with.
func trimmed(data []byte) []byte { return bytes.TrimLeft(data, " \t\r\n") }

// ends marks the bytes that can stand behind a number, true, false or null.
var ends = [256]bool{'}': true, ']': true, ',': true, ' ': true, '\t': true, '\r': true, '\n': true}

// nests marks the bytes that matter to where an object or array ends.
var nests = [256]bool{'"': true, '{': true, '[': true, '}': true, ']': true}

// valueEnd returns where the value ends that data begins with.
func valueEnd(data []byte) int {
	switch {
	case len(data) == 0:
		return 0
	case data[0] == '"':
		return stringEnd(data, 0)
	case data[0] != '{' && data[0] != '[':
		for at, c := range data {
			if ends[c] {
				return at
			}
		}
		return len(data)
	}
	depth := 0
	for at := 0; at < len(data); at++ {
		c := data[at]
		if !nests[c] {
			continue
		}
		switch c {
		case '"':
			at = stringEnd(data, at) - 1
		case '{', '[':
			depth++
		default:
			if depth--; depth == 0 {
				return at + 1
			}
		}
	}
	return len(data)
}

// shortString is up to which length looking at each byte of a string is faster
// than having [bytes.IndexByte] look at many at once.
const shortString = 32

// stringEnd returns where the string ends that begins at start, its quotes
// included.
func stringEnd(data []byte, start int) int {
	at := start + 1
	for near := min(len(data), at+shortString); at < near; at++ {
		switch data[at] {
		case '"':
			return at + 1
		case '\\':
			at++
		}
	}
	for at < len(data) {
		if data[at] == '\\' {
			at += 2
			continue
		}
		quote := bytes.IndexByte(data[at:], '"')
		if quote < 0 {
			break
		}
		escape := bytes.IndexByte(data[at:at+quote], '\\')
		if escape < 0 {
			return at + quote + 1
		}
		at += escape
	}
	return len(data)
}
