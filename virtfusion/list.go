package virtfusion

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
)

// list is a JSON array whose bad elements become zero values. PHP writes an
// array with gaps in its keys as an object, {"0": …, "2": …}: its values
// count, in the order of their keys. Anything else is no list at all.
type list[T any] struct {
	items   []T
	known   bool // it was a list
	present bool // the key was there, whatever stood at it
}

// UnmarshalJSON implements [json.Unmarshaler]; it never fails.
func (l *list[T]) UnmarshalJSON(data []byte) error {
	*l = list[T]{present: true}
	if len(data) == 0 {
		return nil
	}
	switch data[0] {
	case '[':
		l.known = decodeLeniently(data, &l.items) == nil
	case '{':
		var keyed map[string]T
		if decodeLeniently(data, &keyed) != nil {
			return nil //nolint:nilerr // a list that cannot be read counts as missing
		}
		l.known = true
		for _, key := range slices.SortedFunc(maps.Keys(keyed), compareKeys) {
			l.items = append(l.items, keyed[key])
		}
	}
	return nil
}

// compareKeys orders the keys of a PHP array: numbers by value, then the rest.
func compareKeys(a, b string) int {
	numberA, errA := strconv.Atoi(a)
	numberB, errB := strconv.Atoi(b)
	switch {
	case errA == nil && errB == nil && numberA != numberB:
		return cmp.Compare(numberA, numberB)
	case errA == nil && errB != nil:
		return -1
	case errA != nil && errB == nil:
		return 1
	default:
		return cmp.Compare(a, b)
	}
}

// decodeLeniently is [json.Unmarshal], except that a value of the wrong type
// (text where an object should be) is no error: encoding/json skips such a
// value, decodes the rest and reports the first one at the end.
func decodeLeniently(data []byte, into any) error {
	err := json.Unmarshal(data, into)
	if _, wrongType := errors.AsType[*json.UnmarshalTypeError](err); wrongType {
		return nil
	}
	return err
}

// isObject tells whether data begins like a JSON object.
func isObject(data []byte) bool {
	for _, c := range data {
		switch c {
		case ' ', '\t', '\r', '\n':
		default:
			return c == '{'
		}
	}
	return false
}
