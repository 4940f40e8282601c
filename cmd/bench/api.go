package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"serversync/api"
	"serversync/internal/httpserver"
)

const adminToken = "an-admin-token-for-bench" //nolint:gosec // G101: it opens nothing but our own

// api measures what the pages and programs ask for.
func (b *bench) api(ctx context.Context) (err error) {
	servers := b.amount(100_000, 500)
	const connections = 8
	m := b.results.section("api", "The API",
		fmt.Sprintf("Requests of an administrator over TCP, by %d connections, each the next when the one before is answered, with %s servers in the books. "+
			"*list*: a page of 50 servers; *search*: one with a part of a name; *overview*: how everything stands, counted and added up anew for each request.", connections, number(float64(servers))))
	k, err := b.books(ctx, templateName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.drop(ctx)) }()
	if err := k.fill(ctx, servers); err != nil {
		return err
	}
	s, err := b.startBroker(ctx, "nats-api")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	a, err := api.New(api.Config{DB: k.DB, Books: newReconciler(k, s, nil), Queue: s.queue, AdminToken: adminToken, Now: time.Now, Log: logger()})
	if err != nil {
		return err
	}
	server, err := httpserver.New(httpserver.Config{Addr: "127.0.0.1:0", Log: logger()})
	if err != nil {
		return err
	}
	a.Register(server.Echo()) //nolint:contextcheck // handlers have their requests' contexts
	e, err := serve(ctx, server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	return b.each(ctx, "api", func(round int) error {
		var turns []func() error
		for _, x := range []struct{ name, path string }{
			{"list", "/api/admin/servers?limit=50"},
			{"search", "/api/admin/servers?limit=50&q=srv-4"},
			{"overview", "/api/admin/overview"},
		} {
			turns = append(turns, func() error {
				return b.profiled("api_"+x.name, func() error {
					took, in, err := b.asking(ctx, client, "http://"+e.addr+x.path, connections)
					if err != nil {
						return err
					}
					m.note("api_"+x.name, "/s", perSecond(len(took), in))
					m.note("api_"+x.name+", p99", "ms", milliseconds(percentile(took, 99)))
					return nil
				})
			})
		}
		return inTurn(round, turns...)
	})
}

// asking asks for something again and again for a while, and returns how long
// each answer took, sorted.
func (b *bench) asking(ctx context.Context, client *http.Client, url string, connections int) (took []time.Duration, in time.Duration, err error) {
	started := time.Now()
	end := started.Add(b.lasting(1500 * time.Millisecond))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for now := time.Now(); now.Before(end); now = time.Now() {
				failed := ask(ctx, client, url)
				mu.Lock()
				if failed != nil {
					err = failed
					mu.Unlock()
					return
				}
				took = append(took, time.Since(now))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	sortDurations(took)
	return took, time.Since(started), err
}

func ask(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask the API: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+adminToken)
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the API: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %.200s", url, answer.Status, body)
	}
	return nil
}
