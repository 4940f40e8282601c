package events_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/events"
)

// cluster starts three servers that form a JetStream cluster, and says at which
// addresses they find each other.
func cluster(t *testing.T) (servers []*server.Server, routes [3]string) {
	t.Helper()
	for i := range routes {
		routes[i] = freeAddress(t)
	}
	for i := range routes {
		servers = append(servers, launch(t, t.TempDir(), 0, func(o *server.Options) { member(o, i, routes) }))
	}
	for _, s := range servers {
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("the cluster is not ready")
		}
	}
	return servers, routes
}

// member makes a server one of a cluster's.
func member(o *server.Options, i int, routes [3]string) {
	_, port, _ := net.SplitHostPort(routes[i])
	o.ServerName = "n" + strconv.Itoa(i)
	o.SyncAlways = false
	o.JetStreamMaxStore = 64 << 20
	o.Cluster = server.ClusterOpts{Name: "company", Host: "127.0.0.1"}
	o.Cluster.Port, _ = strconv.Atoi(port)
	o.Routes = server.RoutesFromStr("nats://" + strings.Join(routes[:], ",nats://"))
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// reachAll connects to whichever of the servers answers.
func reachAll(t *testing.T, servers []*server.Server) jetstream.JetStream {
	t.Helper()
	urls := make([]string, len(servers))
	for i, s := range servers {
		urls[i] = s.ClientURL()
	}
	return connect(t, strings.Join(urls, ","))
}

// insist does something until it succeeds, for as long as the cluster says that
// it is not there yet.
func insist(t *testing.T, do func(ctx context.Context) error) {
	t.Helper()
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		ctx, cancel := context.WithTimeout(deadline, 5*time.Second)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		if !events.Passing(err) || deadline.Err() != nil {
			t.Fatal(err)
		}
		<-ticker.C
	}
}

func small(replicas int) events.StreamOptions {
	return events.StreamOptions{MaxBytes: 8 << 20, Replicas: replicas}
}

func TestSeveralProcessesMakeTheStreamOfAClusterAtOnce(t *testing.T) {
	t.Parallel()
	servers, _ := cluster(t)
	var wg sync.WaitGroup
	for range 4 {
		js := reachAll(t, servers)
		wg.Go(func() {
			insist(t, func(ctx context.Context) error {
				_, err := events.EnsureStream(ctx, js, small(0))
				return err
			})
		})
	}
	wg.Wait()
	js := reachAll(t, servers)
	for _, name := range []string{events.StreamName, events.DeadStreamName} {
		insist(t, func(ctx context.Context) error {
			stream, err := js.Stream(ctx, name)
			if err == nil && stream.CachedInfo().Config.Replicas != 3 {
				t.Errorf("%s has %d replicas", name, stream.CachedInfo().Config.Replicas)
			}
			return err
		})
	}
	insist(t, func(ctx context.Context) error {
		consumer, err := js.Consumer(ctx, events.StreamName, events.ConsumerName)
		if err == nil && (consumer.CachedInfo().Cluster == nil || len(consumer.CachedInfo().Cluster.Replicas) != 2) {
			t.Errorf("the consumer is at %+v", consumer.CachedInfo().Cluster)
		}
		return err
	})
}

func TestAStreamGrowsWithItsCluster(t *testing.T) {
	t.Parallel()
	servers, _ := cluster(t)
	js := reachAll(t, servers)
	ensure := func(replicas int) {
		t.Helper()
		insist(t, func(ctx context.Context) error {
			_, err := events.EnsureStream(ctx, js, small(replicas))
			return err
		})
	}
	ensure(1)
	publisher := publisherOn(t, js)
	publish(t, publisher, 1, 20)
	ensure(0)
	insist(t, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, events.StreamName)
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		if info.Config.Replicas != 3 || info.State.Msgs != 20 {
			t.Fatalf("%d replicas, %d events", info.Config.Replicas, info.State.Msgs)
		}
		if info.Cluster == nil || len(info.Cluster.Replicas) != 2 || !info.Cluster.Replicas[0].Current || !info.Cluster.Replicas[1].Current {
			return nats.ErrTimeout // they are catching up
		}
		return nil
	})
	// With the copies made, any one server may go.
	leader := leaderOf(t, js, servers)
	leader.Shutdown()
	leader.WaitForShutdown()
	insist(t, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, events.StreamName)
		if err == nil && stream.CachedInfo().State.Msgs != 20 {
			t.Errorf("%d events are left", stream.CachedInfo().State.Msgs)
		}
		return err
	})
}

func publisherOn(t *testing.T, js jetstream.JetStream) *events.Publisher {
	t.Helper()
	p, err := events.NewPublisher(js.Conn())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// publish publishes an event about each of count servers and returns their ids.
func publish(t *testing.T, p *events.Publisher, first, count int64) []string {
	t.Helper()
	ids := make([]string, 0, count)
	for i := range count {
		e := sample(first + i)
		if _, err := p.Publish(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// leaderOf is the server that leads the stream.
func leaderOf(t *testing.T, js jetstream.JetStream, servers []*server.Server) *server.Server {
	t.Helper()
	var found *server.Server
	insist(t, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, events.StreamName)
		if err != nil {
			return err
		}
		for _, s := range servers {
			if info := stream.CachedInfo(); info.Cluster != nil && info.Cluster.Leader == s.Name() {
				found = s
				return nil
			}
		}
		return nats.ErrTimeout // it is being chosen
	})
	return found
}

// An event is confirmed though its leader was asked to move, or dies, and is on
// the stream once.
func TestPublishingOutlivesTheStreamsLeader(t *testing.T) {
	t.Parallel()
	servers, _ := cluster(t)
	js := reachAll(t, servers)
	insist(t, func(ctx context.Context) error {
		_, err := events.EnsureStream(ctx, js, small(0))
		return err
	})
	publisher := publisherOn(t, js)
	ids := publish(t, publisher, 1, 20)
	for round := range int64(3) {
		if _, err := js.Conn().RequestWithContext(t.Context(), "$JS.API.STREAM.LEADER.STEPDOWN."+events.StreamName, nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, publish(t, publisher, 100*(round+1), 20)...)
	}
	leader := leaderOf(t, js, servers)
	leader.Shutdown()
	leader.WaitForShutdown()
	// What takes longer than anybody waits is refused; sent again, it is stored once.
	for i := range int64(20) {
		e := sample(1000 + i)
		insist(t, func(ctx context.Context) error {
			_, err := publisher.Publish(ctx, &e)
			if err != nil && !errors.Is(err, events.ErrNotDurable) {
				t.Fatal(err)
			}
			return err
		})
		ids = append(ids, e.ID)
	}
	wantOnce(t, js, ids)
}

// wantOnce checks that each event is on the stream, once.
func wantOnce(t *testing.T, js jetstream.JetStream, ids []string) {
	t.Helper()
	stored := make(map[string]int)
	insist(t, func(ctx context.Context) error {
		clear(stored)
		stream, err := js.Stream(ctx, events.StreamName)
		if err != nil {
			return err
		}
		for sequence := uint64(1); sequence <= stream.CachedInfo().State.LastSeq; sequence++ {
			m, err := stream.GetMsg(ctx, sequence)
			if err != nil {
				return err
			}
			stored[m.Header.Get(jetstream.MsgIDHeader)]++
		}
		return nil
	})
	for _, id := range ids {
		if stored[id] != 1 {
			t.Errorf("event %s is %d times on the stream", id, stored[id])
		}
	}
}

// The same for the atomic batches in which many events are stored at once.
func TestBatchesOutliveTheStreamsLeader(t *testing.T) {
	t.Parallel()
	servers, _ := cluster(t)
	js := reachAll(t, servers)
	insist(t, func(ctx context.Context) error {
		_, err := events.EnsureStream(ctx, js, small(0))
		return err
	})
	publisher := publisherOn(t, js)
	var ids []string
	for round := range int64(6) {
		all := many(1000*(round+1), 200)
		published := make(chan struct{})
		go func() {
			defer close(published)
			insist(t, func(ctx context.Context) error { return publisher.PublishAll(ctx, all) })
		}()
		if round < 5 {
			_, _ = js.Conn().RequestWithContext(t.Context(), "$JS.API.STREAM.LEADER.STEPDOWN."+events.StreamName, nil) // it may be moving
		} else {
			leader := leaderOf(t, js, servers)
			leader.Shutdown()
			leader.WaitForShutdown()
		}
		<-published
		for _, e := range all {
			ids = append(ids, e.ID)
		}
	}
	wantOnce(t, js, ids)
}

// many are events about as many servers.
func many(first, count int64) []*events.Event {
	all := make([]*events.Event, count)
	for i := range all {
		e := sample(first + int64(i))
		all[i] = &e
	}
	return all
}

// A replay reads on, each event once and in order, when the server is lost that
// it reads from.
func TestReadingOutlivesItsServer(t *testing.T) {
	t.Parallel()
	servers, _ := cluster(t)
	js := reachAll(t, servers)
	insist(t, func(ctx context.Context) error {
		_, err := events.EnsureStream(ctx, js, small(0))
		return err
	})
	publisher := publisherOn(t, js)
	all := many(1, 3000)
	insist(t, func(ctx context.Context) error { return publisher.PublishAll(ctx, all) })
	var want, got []int64
	for _, e := range all {
		want = append(want, e.Server.ID)
	}
	replayer := events.NewReplayer(js, publisher)
	past := events.Past{Owners: []int64{7}, Last: uint64(len(all))}
	err := replayer.Read(t.Context(), past, func(e *events.Event) error {
		if got = append(got, e.Server.ID); len(got) == 50 {
			server := readerAt(t, js, servers)
			server.Shutdown()
			server.WaitForShutdown()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d events were read, %d are there, or they are in another order", len(got), len(want))
	}
}

// readerAt is the server at which a replay's consumer is.
func readerAt(t *testing.T, js jetstream.JetStream, servers []*server.Server) *server.Server {
	t.Helper()
	stream, err := js.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	for info := range stream.ListConsumers(t.Context()).Info() {
		if info.Name == events.ConsumerName {
			continue
		}
		for _, s := range servers {
			if info.Cluster != nil && info.Cluster.Leader == s.Name() {
				return s
			}
		}
	}
	t.Fatal("nobody reads")
	return nil
}

// Without a majority nothing is confirmed, which is said in time, at once when
// it lasts; and it ends by itself.
func TestWithoutAMajorityNothingIsConfirmed(t *testing.T) {
	t.Parallel()
	servers, routes := cluster(t)
	js := reachAll(t, servers)
	insist(t, func(ctx context.Context) error {
		_, err := events.EnsureStream(ctx, js, small(0))
		return err
	})
	publisher := publisherOn(t, js)
	publish(t, publisher, 1, 1)
	if lasts, err := publisher.Trouble(); lasts != 0 || err != nil {
		t.Errorf("trouble in peace: %s, %v", lasts, err)
	}
	var dirs []string
	var ports []int
	for _, s := range servers {
		dirs, ports = append(dirs, filepath.Dir(s.JetStreamConfig().StoreDir)), append(ports, s.Addr().(*net.TCPAddr).Port)
	}
	for _, s := range servers[1:] {
		s.Shutdown()
		s.WaitForShutdown()
	}
	for i := range int64(4) {
		e := sample(10 + i)
		if _, err := publisher.Publish(t.Context(), &e); !errors.Is(err, events.ErrNotDurable) {
			t.Fatalf("without a majority: %v, want ErrNotDurable", err)
		}
	}
	if _, err := publisher.Trouble(); err == nil {
		t.Error("the publisher knows of no trouble")
	}
	for i := 1; i < 3; i++ {
		launch(t, dirs[i], ports[i], func(o *server.Options) { member(o, i, routes) })
	}
	e := sample(20)
	insist(t, func(ctx context.Context) error {
		_, err := publisher.Publish(ctx, &e)
		return err
	})
	if lasts, err := publisher.Trouble(); lasts != 0 || err != nil {
		t.Errorf("trouble when it is over: %s, %v", lasts, err)
	}
}

// Settings are not guessed for a broker that nobody has seen yet: asked for now,
// a stream would be made of them once it is there.
func TestNothingIsAskedOfABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	nc, err := events.Dial("nats://127.0.0.1:1,nats://127.0.0.1:2", "", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = events.EnsureStream(t.Context(), js, small(0))
	if !errors.Is(err, nats.ErrDisconnected) || !events.Passing(err) {
		t.Errorf("EnsureStream = %v, want ErrDisconnected, which passes", err)
	}
	if buffered, _ := nc.Buffered(); buffered != 0 {
		t.Errorf("%d bytes wait to be asked", buffered)
	}
}
