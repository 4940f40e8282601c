package virtfusion

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
)

// readList reads each item of a list; what read makes nothing of stays a zero
// value. PHP writes an array with gaps in its keys as an object, {"0": …,
// "2": …}: its values count, in the order of their keys. Anything else is no
// list at all.
func readList[T any](data []byte, read func(into *T, item []byte)) (list []T, known bool) {
	switch {
	case len(data) > 0 && data[0] == '[':
		var few [8][]byte
		all := few[:0]
		walked := itemsOf(data)
		for walked.next() {
			all = append(all, walked.value)
		}
		list = make([]T, len(all))
		for i, item := range all {
			read(&list[i], item)
		}
		return list, true
	case isObject(data):
		keyed := map[string][]byte{}
		f := fieldsOf(data)
		for f.next() {
			key, _ := unescaped(f.name)
			keyed[key] = f.value
		}
		list = make([]T, len(keyed))
		for i, key := range slices.SortedFunc(maps.Keys(keyed), compareKeys) {
			read(&list[i], keyed[key])
		}
		return list, true
	default:
		return nil, false
	}
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
