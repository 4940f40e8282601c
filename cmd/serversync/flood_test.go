package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"serversync/internal/httpserver"
)

// Slow connections are 2,000: half a header each, or half a body. With a flood
// of deliveries that nobody authenticated beside them, every honest one is
// answered though there are more connections than may be, and the live heap
// stays below a bound. Both ends are in this process.
func TestAFloodKeepsNobodyOut(t *testing.T) { //nolint:paralleltest // it measures the heap, which tests beside it would use too
	const (
		slow, strangers, honest = 2000, 2000, 300
		// heapBound is for both ends: some 10 KB of buffers for each slow
		// connection on either side, and what bodies may take.
		heapBound = 96 << 20
	)
	if files := httpserver.OpenFiles(); files < 3*slow {
		t.Skipf("this process may have %d files open, and both ends of %d connections need more", files, slow)
	}
	r := start(t, config{roles: []string{roleIngest}, maxConnections: 1500})
	r.ready(t)
	heap := liveHeap()

	address := strings.TrimPrefix(r.base, "http://")
	token := "Authorization: Bearer " + base64.StdEncoding.EncodeToString([]byte(testToken)) + "\r\n"
	halves := []string{
		"POST /webhooks/virtfusion HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"POST /webhooks/virtfusion HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\nContent-Type: application/json\r\n\r\n{",
		"",
	}
	conns := make([]net.Conn, slow)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for i := range conns {
		var err error
		if conns[i], err = elsewhere(2).DialContext(t.Context(), "tcp", address); err != nil {
			t.Fatal(err)
		}
		half := halves[i%len(halves)]
		if i%200 == 0 { // some of those who are slow have the token
			half = strings.Replace(halves[1], "Host: x\r\n", "Host: x\r\n"+token, 1)
		}
		_, _ = io.WriteString(conns[i], half) // who had to go at once is as good
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var flood, deliveries sync.WaitGroup
	body := strings.Repeat("x", 1<<20)
	flooding := &http.Client{Transport: &http.Transport{DialContext: elsewhere(3).DialContext}}
	defer flooding.CloseIdleConnections()
	for range 8 {
		flood.Go(func() {
			for n := 0; n < strangers/8 && ctx.Err() == nil; n++ {
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+"/webhooks/virtfusion", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				if response, err := flooding.Do(request); err == nil { // most are cut off while they send
					response.Body.Close()
				}
			}
		})
	}
	failed := make(chan string, honest)
	for worker := range 4 {
		deliveries.Go(func() {
			for n := range honest / 4 {
				id := 1 + worker*honest + n
				if status, answer := deliver(t, r.base, fmt.Sprintf(`{"event":"server.build","eventStatus":"success","data":{"server":{"id":%d,"ownerId":7,"uuid":"u-%d"}}}`, id, id)); status != http.StatusAccepted {
					failed <- fmt.Sprint(status, answer)
				}
			}
		})
	}
	deliveries.Wait()
	used := liveHeap() - heap
	cancel()
	flood.Wait()
	close(failed)
	for answer := range failed {
		t.Errorf("an honest delivery: %s", answer)
	}
	t.Logf("live heap of both ends beside %d slow connections and the flood: %d KB more than before", slow, used>>10)
	if used > heapBound {
		t.Errorf("the live heap grew by %d MB, more than %d", used>>20, heapBound>>20)
	}
}

// elsewhere dials from another of this machine's addresses: who sends slowly or
// floods is not who delivers. Of connections that nobody knows, the address that
// has the most loses one first.
func elsewhere(n byte) *net.Dialer {
	if runtime.GOOS != "linux" { // only there all of 127.0.0.0/8 is this machine
		return &net.Dialer{}
	}
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}}
}

// liveHeap is what is reachable, in bytes.
func liveHeap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
