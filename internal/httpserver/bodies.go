package httpserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"
)

// Bodies bounds the memory that the bodies of requests take together: who comes
// when it is all in use waits, and nobody is refused. So read the body of a
// request only when its sender is known.
type Bodies struct {
	total int64
	room  *semaphore.Weighted
}

// NewBodies returns room for so many bytes, at least for one body of the largest
// size that is read.
func NewBodies(total int64) *Bodies {
	return &Bodies{total: total, room: semaphore.NewWeighted(total)}
}

// Read reads a body of at most limit bytes. Call release when it is not needed
// any more; it may be called in any case. The error is an [http.MaxBytesError]
// for a body that is larger; else the body ended early, or took too long.
func (b *Bodies) Read(c echo.Context, limit int64) (body []byte, release func(), err error) {
	r := c.Request()
	reader := http.MaxBytesReader(c.Response(), r.Body, limit)
	if r.ContentLength > limit { // none of it is kept
		_, err := io.Copy(io.Discard, reader)
		return nil, func() {}, err
	}
	need := r.ContentLength + bytes.MinRead
	if r.ContentLength < 0 {
		need = 2*limit + bytes.MinRead // nobody says how large it is: a buffer that grows
	}
	need = min(need, b.total)
	if err := b.wait(c, need); err != nil {
		return nil, func() {}, err
	}
	var buf bytes.Buffer
	buf.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	_, err = io.Copy(&buf, reader)
	return buf.Bytes(), func() { b.room.Release(need) }, err
}

// wait waits for room. The body's time begins when there is some.
func (b *Bodies) wait(c echo.Context, need int64) error {
	if b.room.TryAcquire(need) {
		return nil
	}
	if err := b.room.Acquire(c.Request().Context(), need); err != nil {
		return fmt.Errorf("wait for room for a body: %w", err)
	}
	connection := http.NewResponseController(c.Response())
	err := connection.SetReadDeadline(time.Now().Add(readTimeout))
	if err == nil {
		err = connection.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		b.room.Release(need)
		return fmt.Errorf("give a body its time: %w", err)
	}
	return nil
}
