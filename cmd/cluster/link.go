//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// link is a cable: connections to its address are passed on to another one, until
// it is cut. Then nothing comes through in either direction, and nobody is told,
// as with a network that is down; what was on its way arrives when it is mended.
type link struct {
	addr     string
	target   string
	listener net.Listener

	mu    sync.Mutex
	whole chan struct{} // closed while the link is not cut
	conns map[net.Conn]struct{}
	done  bool
}

func newLink(ctx context.Context, target string) (*link, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a link: %w", err)
	}
	l := &link{addr: listener.Addr().String(), target: target, listener: listener, whole: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(l.whole)
	go l.serve(context.WithoutCancel(ctx)) // until close
	return l, nil
}

func (l *link) serve(ctx context.Context) {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			if !l.hold(near) {
				return
			}
			defer l.drop(near)
			<-l.gate()
			far, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.target)
			if err != nil || !l.hold(far) {
				return
			}
			defer l.drop(far)
			go l.pass(near, far)
			l.pass(far, near)
		}()
	}
}

// pass carries what one end says to the other, as long as the link is whole.
func (l *link) pass(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		<-l.gate()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// gate is closed while the link is whole.
func (l *link) gate() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.whole
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.whole:
		l.whole = make(chan struct{})
	default: // it is
	}
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.whole: // it is
	default:
		close(l.whole)
	}
}

// hold keeps a connection to be closed at the end; false: that has come.
func (l *link) hold(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		_ = c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	_ = c.Close()
}

func (l *link) close() {
	l.mend()
	_ = l.listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	for c := range l.conns {
		_ = c.Close()
	}
}
