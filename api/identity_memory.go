package api

import (
	"sync"
	"time"
)

// maxRemembered bounds each memory: some 200 bytes an entry.
const maxRemembered = 10_000

// memory keeps values for a short while. When it is full of values that are
// still good it forgets them all, which costs work and nothing else.
type memory[K comparable, V any] struct {
	keep time.Duration

	mu     sync.Mutex
	values map[K]remembered[V]
}

type remembered[V any] struct {
	value V
	until time.Time
}

func newMemory[K comparable, V any](keep time.Duration) *memory[K, V] {
	return &memory[K, V]{keep: keep, values: make(map[K]remembered[V])}
}

func (m *memory[K, V]) get(key K, now time.Time) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.values[key]
	if !ok || !now.Before(r.until) {
		return value, false
	}
	return r.value, true
}

// put remembers a value that was found at the given time.
func (m *memory[K, V]) put(key K, value V, found time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.values) >= maxRemembered {
		for k, r := range m.values {
			if !found.Before(r.until) {
				delete(m.values, k)
			}
		}
		if len(m.values) >= maxRemembered {
			clear(m.values)
		}
	}
	m.values[key] = remembered[V]{value: value, until: found.Add(m.keep)}
}
