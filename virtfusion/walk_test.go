package virtfusion

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// FuzzWalk holds the walkers to encoding/json: the same fields with the same
// values, the same items, and nothing but nonsense refused.
func FuzzWalk(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : 1 , "b":[ ] } `, `{"a\u0062":"\\\"}","ab":{"c":"]"}}`, `[1, "a,]" ,{"b":[2]},[],null ,-1e3]`,
		`{"a":"\\","b":1}`, `{"K":1,"ſ":2,"k":3,"S":4}`, `{"":{"":{}}}`, `[[[]],{}]`, `"x"`, `1`, `{"a":}`, `[,]`, `{"x`, "{\"\xff\":1}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var (
			object map[string]json.RawMessage
			array  []json.RawMessage
		)
		if err := valid(data); (err == nil) != json.Valid(data) {
			t.Fatalf("valid(%q) = %v", data, err)
		} else if err != nil {
			return
		}
		if trimmed := bytes.TrimSpace(data); json.Unmarshal(data, &array) == nil && array != nil {
			walked := itemsOf(trimmed)
			for i := range array {
				if !walked.next() || !bytes.Equal(walked.value, array[i]) {
					t.Errorf("%q: item %d is %q, want %q", data, i, walked.value, array[i])
				}
			}
			if walked.next() {
				t.Errorf("%q has more than %d items", data, len(array))
			}
		}
		if json.Unmarshal(data, &object) != nil || object == nil {
			if fields := fieldsOf(data); fields.next() {
				t.Errorf("%q has a field", data)
			}
			return
		}
		found := map[string][]byte{}
		fields := fieldsOf(data)
		for fields.next() {
			name, ok := unescaped(fields.name)
			if !ok {
				t.Errorf("%q: name %q", data, fields.name)
			}
			found[name] = fields.value
			if key := fields.key(); key != nil && !strings.EqualFold(string(key), name) {
				t.Errorf("%q: the key of %q is %q", data, name, key)
			}
		}
		if len(found) != len(object) {
			t.Errorf("%q has %d fields, want %d", data, len(found), len(object))
		}
		for name, value := range object {
			if !bytes.Equal(found[name], value) {
				t.Errorf("%q: %q is %q, want %q", data, name, found[name], value)
			}
		}
	})
}

func TestKeysMatchWithoutRegardToCase(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		`id`: "id", `ID`: "id", `i\u0044`: "id", `ownerId`: "ownerid", "networ\u212a": "network", `ſtate`: "state",
		``: "", `ïd`: "", `id\u0000`: "", strings.Repeat("x", 24): strings.Repeat("x", 24), strings.Repeat("x", 25): "",
	} {
		f := fieldsOf([]byte(`{"` + written + `":1}`))
		if !f.next() || string(f.key()) != want || string(f.value) != "1" {
			t.Errorf("%s: key %q, value %q, want %q", written, f.key(), f.value, want)
		}
	}
}
