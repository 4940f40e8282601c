//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"serversync/cmd/internal/siege"
	"serversync/events"
)

const (
	natsServers = 3
	natsSecret  = "a-secret-for-the-cluster"
)

// broker is a cluster of NATS servers.
type broker struct {
	nodes []*node
	links []*link
	conn  *nats.Conn // ours, past all links
	js    jetstream.JetStream
}

// node is one of its servers, on a machine of its own as far as links go.
type node struct {
	siege.Process
	index   int
	addr    string // past all links
	clients *link
	// peers are the links to and from the other servers.
	peers []*link
}

// islandise cuts a server off from the others, but not from its clients.
func (n *node) islandise() {
	for _, l := range n.peers {
		l.cut()
	}
}

// isolate cuts it off from everybody.
func (n *node) isolate() {
	n.clients.cut()
	n.islandise()
}

func (n *node) mend() {
	n.clients.mend()
	for _, l := range n.peers {
		l.mend()
	}
}

// permissions are what each role may say on the broker and hear of it, and
// nothing else: docs/scale-out.md lists them.
var permissions = map[string]struct{ publish, subscribe []string }{
	"ingest": {
		publish: []string{
			"virtfusion.users.>",
			"$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.STREAM.INFO.*",
			"$JS.API.STREAM.MSG.GET.VIRTFUSION", "$JS.API.CONSUMER.CREATE.VIRTFUSION.>", "$JS.API.CONSUMER.INFO.VIRTFUSION.>",
		},
		subscribe: []string{"_INBOX.>", "serversync.ping"},
	},
	"reconcile": {
		publish: []string{
			"virtfusion.users.>", "virtfusion-dead.>", "serversync.live.*",
			"$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.STREAM.INFO.*",
			"$JS.API.CONSUMER.CREATE.VIRTFUSION.>", "$JS.API.CONSUMER.INFO.VIRTFUSION.>", "$JS.API.CONSUMER.MSG.NEXT.VIRTFUSION.>",
			"$JS.ACK.VIRTFUSION.>", "$JS.API.STREAM.MSG.GET.VIRTFUSION",
		},
		subscribe: []string{"_INBOX.>", "serversync.ping"},
	},
	// And sweep.
	"api": {
		publish: []string{
			"virtfusion.users.>", "serversync.live.*", "serversync.ping",
			"$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.STREAM.INFO.*",
			"$JS.API.STREAM.MSG.GET.*", "$JS.API.STREAM.MSG.DELETE.VIRTFUSION_DEAD",
			"$JS.API.CONSUMER.CREATE.VIRTFUSION.>", "$JS.API.CONSUMER.INFO.VIRTFUSION.>", "$JS.API.CONSUMER.MSG.NEXT.VIRTFUSION.>",
			"$JS.API.CONSUMER.DELETE.VIRTFUSION.>",
		},
		subscribe: []string{"_INBOX.>", "serversync.live.*", "serversync.ping"},
	},
}

// newBroker prepares the servers; start starts them.
func newBroker(ctx context.Context, dir, binary string) (*broker, error) {
	b := &broker{}
	var routes, clients [natsServers]string
	for i := range natsServers {
		var err error
		if clients[i], err = siege.FreeAddress(ctx); err != nil {
			return nil, err
		}
		if routes[i], err = siege.FreeAddress(ctx); err != nil {
			return nil, err
		}
		b.nodes = append(b.nodes, &node{index: i, addr: clients[i]})
	}
	for i, n := range b.nodes {
		var others []string
		for j, other := range b.nodes {
			if i == j {
				continue
			}
			l, err := b.link(ctx, routes[j])
			if err != nil {
				return b, err
			}
			n.peers, other.peers = append(n.peers, l), append(other.peers, l)
			others = append(others, "nats://"+l.addr)
		}
		var err error
		if n.clients, err = b.link(ctx, clients[i]); err != nil {
			return b, err
		}
		name := fmt.Sprintf("nats-%d", i+1)
		path := filepath.Join(dir, name+".conf")
		if err := os.WriteFile(path, []byte(natsConfig(name, filepath.Join(dir, name), clients[i], routes[i], others)), 0o600); err != nil {
			return b, fmt.Errorf("configure NATS: %w", err)
		}
		n.Process = siege.Process{Binary: binary, Args: []string{"-c", path}, Env: siege.Inherited(), Dir: dir, Name: name}
	}
	return b, nil
}

func (b *broker) link(ctx context.Context, target string) (*link, error) {
	l, err := newLink(ctx, target)
	if err == nil {
		b.links = append(b.links, l)
	}
	return l, err
}

// natsConfig is as docs/scale-out.md has operators write it. Links are the only
// way to the other servers: none is told of another's own address.
func natsConfig(name, store, client, route string, others []string) string {
	var users strings.Builder
	for role, p := range permissions {
		fmt.Fprintf(&users, "    { user: %q, password: %q, permissions: { publish: [%s], subscribe: [%s], allow_responses: true } }\n",
			role, natsSecret, quoted(p.publish), quoted(p.subscribe))
	}
	return fmt.Sprintf(`server_name: %s
listen: %q
jetstream { store_dir: %q, max_file_store: 16GB, sync_interval: always }
cluster { name: company, listen: %q, advertise: "127.0.0.1:9", no_advertise: true, routes: [%s] }
authorization {
  users: [
    { user: operator, password: %q }
%s  ]
}
`, name, client, store, route, quoted(others), natsSecret, users.String())
}

func quoted(all []string) string {
	words := make([]string, len(all))
	for i, s := range all {
		words[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(words, ", ")
}

// urls is where a role finds the broker: through the links.
func (b *broker) urls(role string) string {
	all := make([]string, len(b.nodes))
	for i, n := range b.nodes {
		all[i] = fmt.Sprintf("nats://%s:%s@%s", role, natsSecret, n.clients.addr)
	}
	return strings.Join(all, ",")
}

// start starts the servers and connects to them.
func (b *broker) start(ctx context.Context) error {
	var urls []string
	for _, n := range b.nodes {
		n.StartIfDead(ctx)
		urls = append(urls, fmt.Sprintf("nats://operator:%s@%s", natsSecret, n.addr))
	}
	var err error
	b.conn, err = nats.Connect(strings.Join(urls, ","), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	if b.js, err = jetstream.New(b.conn); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return nil
}

func (b *broker) close() {
	if b.conn != nil {
		b.conn.Close()
	}
	for _, n := range b.nodes {
		n.Signal(syscall.SIGCONT)
		n.Kill()
	}
	for _, l := range b.links {
		l.close()
	}
}

// whole reports that every server runs and keeps a current copy of everything.
func (b *broker) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, n := range b.nodes {
		if !n.Running() {
			return fmt.Errorf("%s does not run; its log ends:\n%s", n.Name, n.LogTail())
		}
	}
	for _, name := range []string{events.StreamName, events.DeadStreamName} {
		stream, err := b.js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("look at the stream %s: %w", name, err)
		}
		if err := copies(name, stream.CachedInfo().Cluster); err != nil {
			return err
		}
	}
	consumer, err := b.js.Consumer(ctx, events.StreamName, events.ConsumerName)
	if err != nil {
		return fmt.Errorf("look at the consumer: %w", err)
	}
	return copies(events.ConsumerName, consumer.CachedInfo().Cluster)
}

func copies(name string, info *jetstream.ClusterInfo) error {
	if info == nil || info.Leader == "" || len(info.Replicas) != natsServers-1 {
		return fmt.Errorf("%s has not three copies: %+v", name, info)
	}
	for _, r := range info.Replicas {
		if !r.Current || r.Offline {
			return fmt.Errorf("the copy of %s at %s is behind", name, r.Name)
		}
	}
	return nil
}

// leader is the server that leads the stream, or the consumer.
func (b *broker) leader(ctx context.Context, ofConsumer bool) (*node, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	for {
		info, err := b.cluster(ctx, ofConsumer)
		if err == nil && info != nil {
			if i := slices.IndexFunc(b.nodes, func(n *node) bool { return n.Name == info.Leader }); i >= 0 {
				return b.nodes[i], nil
			}
		}
		if ctx.Err() != nil {
			return nil, errors.Join(errors.New("nobody leads"), err)
		}
		siege.Pause(ctx, 100*time.Millisecond)
	}
}

func (b *broker) cluster(ctx context.Context, ofConsumer bool) (*jetstream.ClusterInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if ofConsumer {
		consumer, err := b.js.Consumer(ctx, events.StreamName, events.ConsumerName)
		if err != nil {
			return nil, fmt.Errorf("look at the consumer: %w", err)
		}
		return consumer.CachedInfo().Cluster, nil
	}
	stream, err := b.js.Stream(ctx, events.StreamName)
	if err != nil {
		return nil, fmt.Errorf("look at the stream: %w", err)
	}
	return stream.CachedInfo().Cluster, nil
}

// stepDown has the stream's leader, or the consumer's, hand over.
func (b *broker) stepDown(ctx context.Context, ofConsumer bool) error {
	subject := "$JS.API.STREAM.LEADER.STEPDOWN." + events.StreamName
	if ofConsumer {
		subject = "$JS.API.CONSUMER.LEADER.STEPDOWN." + events.StreamName + "." + events.ConsumerName
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := b.conn.RequestWithContext(ctx, subject, nil)
	if err != nil {
		return fmt.Errorf("have the leader step down: %w", err)
	}
	if !strings.Contains(string(answer.Data), `"success":true`) {
		return fmt.Errorf("the leader does not step down: %s", answer.Data)
	}
	return nil
}
