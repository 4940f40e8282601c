//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"serversync/virtfusion"
)

// senders is how many webhooks are in flight.
const senders = 48

// load posts webhooks, each about a server of its own, and writes down what was
// answered.
type load struct {
	mu       sync.Mutex
	sent     int64            // servers 1 to sent were told of
	answered map[int64]string // event ids of those that were answered 202, by server
	others   map[int]int      // other answers, by status
}

func newLoad() *load { return &load{answered: map[int64]string{}, others: map[int]int{}} }

// post sends webhooks until ctx ends. first is closed once one was answered 202.
func (l *load) post(ctx context.Context, url string, first chan<- struct{}) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	defer client.CloseIdleConnections()
	var once sync.Once
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for ctx.Err() == nil {
				server := l.next()
				status, id := send(ctx, client, url, server)
				if status == http.StatusAccepted {
					once.Do(func() { close(first) })
				}
				l.note(server, status, id)
				if status == 0 {
					pause(ctx, time.Second) // the machine is dead, as a rule: what is sent now proves nothing
				}
			}
		})
	}
	wg.Wait()
}

func (l *load) next() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	return l.sent
}

// note writes an answer down; a status of 0 is none.
func (l *load) note(server int64, status int, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if status == http.StatusAccepted && id != "" {
		l.answered[server] = id
	} else if status != 0 {
		l.others[status]++
	}
}

// send sends one webhook, once, as VirtFusion does. It returns the answer's
// status, 0 if none came, and the event's id.
func send(ctx context.Context, client *http.Client, url string, server int64) (status int, id string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/webhooks/virtfusion", strings.NewReader(webhook(server, time.Now())))
	if err != nil {
		return 0, ""
	}
	request.Header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte(webhookToken)))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		ID string `json:"id"`
	}
	if json.NewDecoder(response.Body).Decode(&answer) != nil {
		return 0, "" // the head came, the rest did not: that is no answer
	}
	return response.StatusCode, answer.ID
}

// webhook is what VirtFusion says of a new server, as far as we read it.
func webhook(server int64, now time.Time) string {
	return fmt.Sprintf(`{"event":%q,"created":%q,"eventStatus":"success","data":{"server":{
		"id":%d,"ownerId":%d,"name":"server-%[3]d","hostname":"server-%[3]d.example.net","uuid":"1b0e9a3c-6a0e-4c0b-9d4f-%012[3]x",
		"state":"running","commissionStatus":3,"buildFailed":false,"suspended":false,"protected":false,"selfService":0,"packageId":3,
		"settings":{"resources":{"memory":2048,"storage":40,"traffic":1000,"cpuCores":2}},
		"network":{"interfaces":[{"order":1,"enabled":true,"type":"public","ipv4":[{"order":1,"enabled":true,"address":"192.0.2.1"}],"ipv6":[]}]},
		"hypervisor":{"id":2,"groupId":5,"name":"hv-fra-1"},
		"owner":{"id":%[4]d,"extRelationId":1001,"name":"Ada Example"},
		"created":"2025-01-15T15:00:49+00:00","updated":"2025-01-15T15:00:49+00:00"}}}`,
		virtfusion.EventServerCreate, now.UTC().Format(time.RFC3339Nano), server, server%1000+1)
}
