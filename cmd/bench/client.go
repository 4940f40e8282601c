package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// eventID is the id of an event, by which an answer names it.
type eventID [16]byte

// connection is a client's: it sends one webhook after the other. It is written
// by hand so that it takes little of the processors that it shares with what
// is measured.
type connection struct {
	conn    net.Conn
	in      *bufio.Reader
	request *request
}

func dial(ctx context.Context, addr string, model *request) (*connection, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the endpoint: %w", err)
	}
	return &connection{conn: conn, in: bufio.NewReader(conn), request: model.copy()}, nil
}

var (
	errAnswer = errors.New("the endpoint answered something else than 202")

	contentLength = []byte("Content-Length: ")
	idKey         = []byte(`"id":"`)
)

// post tells of the nth server and waits for the answer.
func (c *connection) post(n int64, at time.Time) (eventID, error) {
	var id eventID
	if _, err := c.conn.Write(c.request.about(n, at)); err != nil {
		return id, fmt.Errorf("send a webhook: %w", err)
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return id, fmt.Errorf("read an answer: %w", err)
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 202")) {
		return id, fmt.Errorf("%w: %s", errAnswer, bytes.TrimSpace(status))
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return id, fmt.Errorf("read an answer: %w", err)
		}
		if len(line) <= 2 {
			break
		}
		if text, ok := bytes.CutPrefix(line, contentLength); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(text))); err != nil {
				return id, fmt.Errorf("read an answer: %w", err)
			}
		}
	}
	body, err := c.in.Peek(length)
	if err != nil {
		return id, fmt.Errorf("read an answer: %w", err)
	}
	at0 := bytes.Index(body, idKey)
	if at0 < 0 || len(body) < at0+len(idKey)+2*len(id) {
		return id, fmt.Errorf("%w: %s", errAnswer, body)
	}
	if _, err := hex.Decode(id[:], body[at0+len(idKey):at0+len(idKey)+2*len(id)]); err != nil {
		return id, fmt.Errorf("%w: %s", errAnswer, body)
	}
	_, err = c.in.Discard(length)
	return id, err
}

// answered is what came of a load.
type answered struct {
	ids  []eventID
	took []time.Duration // sorted
	in   time.Duration   // from the first request until the last answer
}

func (a *answered) rate() float64 { return perSecond(len(a.ids), a.in) }

// numbers hands out servers that nobody has heard of.
type numbers struct{ last atomic.Int64 }

func (n *numbers) next() int64 { return n.last.Add(1) }

// closedLoop has so many connections post for a while, each the next webhook
// when the one before is answered.
func closedLoop(ctx context.Context, addr string, model *request, n *numbers, connections int, last time.Duration) (*answered, error) {
	clients, err := dialMany(ctx, addr, model, connections)
	defer func() { closeAll(clients) }()
	if err != nil {
		return nil, err
	}
	each := make([]answered, connections)
	errs := make([]error, connections)
	started := time.Now()
	end := started.Add(last)
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			a := &each[i]
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
				id, err := c.post(n.next(), now)
				if err != nil {
					errs[i] = err
					return
				}
				after := time.Now()
				a.ids, a.took = append(a.ids, id), append(a.took, after.Sub(now))
				now = after
			}
		})
	}
	wg.Wait()
	all := &answered{in: time.Since(started)}
	for i := range each {
		all.ids, all.took = append(all.ids, each[i].ids...), append(all.took, each[i].took...)
	}
	sortDurations(all.took)
	return all, cmp.Or(append(errs, ctx.Err())...) // one of them says it all
}

func dialMany(ctx context.Context, addr string, model *request, n int) ([]*connection, error) {
	var clients []*connection
	for range n {
		c, err := dial(ctx, addr, model)
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func closeAll[C interface{ close() error }](all []C) {
	for _, c := range all {
		_ = c.close() // nothing of it is wanted any more
	}
}

func (c *connection) close() error {
	if err := c.conn.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
