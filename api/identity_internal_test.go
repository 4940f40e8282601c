package api

import (
	"testing"
	"time"
)

// The cookie-signature package's own example, so that ours is the same format.
func TestACookieAsExpressSignsIt(t *testing.T) {
	t.Parallel()
	a := &authenticator{sessionSecret: []byte("tobiiscool")}
	const signature = "DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI"
	for cookie, want := range map[string]string{
		"s:hello." + signature: "hello",
		"s%3Ahello.DGDUkGlIkCzPz%2BC0B064FNgHdEjox7ch8tOBGslZ5QI":    "hello",
		"s%3Ahello.DGDUkGlIkCzPz%2BC0B064FNgHdEjox7ch8tOBGslZ5QI%3D": "", // padded
		"s%3Ahello.DGDUkGlIkCzPz-C0B064FNgHdEjox7ch8tOBGslZ5QI":      "", // the other alphabet
		"hello." + signature:    "",
		"s:hello2." + signature: "",
		"s:hello":               "",
		"s:." + signature:       "",
		"s:" + signature:        "",
		"s:hello.":              "",
		"j:hello." + signature:  "",
		"%zz":                   "",
		"":                      "",
	} {
		sid, ok := a.unsign(cookie)
		if ok != (want != "") || ok && sid != want {
			t.Errorf("%q: %q, %t", cookie, sid, ok)
		}
	}
}

func TestAMemoryForgets(t *testing.T) {
	t.Parallel()
	m := newMemory[int, string](5 * time.Second)
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m.put(-1, "a", start)
	if v, ok := m.get(-1, start.Add(5*time.Second-1)); !ok || v != "a" {
		t.Errorf("within its time: %q, %t", v, ok)
	}
	if _, ok := m.get(-1, start.Add(5*time.Second)); ok {
		t.Error("it remembers for too long")
	}
	for i := range 3*maxRemembered + 10 {
		m.put(i, "b", start)
	}
	if n := len(m.values); n > maxRemembered || n == 0 {
		t.Errorf("it remembers %d things", n)
	}
	clear(m.values)
	m.put(0, "good", start)
	for i := range maxRemembered - 1 { // what is past goes first
		m.put(-1-i, "old", start.Add(-time.Minute))
	}
	m.put(1, "new", start)
	for _, key := range []int{0, 1} {
		if _, ok := m.get(key, start); !ok || len(m.values) != 2 {
			t.Errorf("of %d things %d is forgotten", len(m.values), key)
		}
	}
}
