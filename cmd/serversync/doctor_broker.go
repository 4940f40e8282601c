package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/internal/diskspace"
)

// dialBroker connects to an external broker; the patient is nil when it cannot be
// used, and the findings say why. It asks nothing that the roles' own accounts may
// not ask.
func dialBroker(ctx context.Context, c *config) (p *patient, closeBroker func(), findings []finding) {
	const check = "broker"
	nc, err := events.Dial(c.natsURL, c.natsCreds, zerolog.Nop(), c.natsTLS(), events.Once())
	if err != nil {
		return nil, func() {}, []finding{ill(check, err.Error(), "see that the server runs, that this machine reaches it, and that it knows the user, password or credentials file")}
	}
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.Stream(ctx, events.StreamName)
	}
	if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
		return &patient{config: c, nats: nc, js: js}, nc.Close, nil
	}
	remedy := "see that JetStream is on for the account, and that its cluster has a leader"
	if refusal := nc.LastError(); errors.Is(refusal, nats.ErrPermissionViolation) {
		err, remedy = refusal, "let the account use what docs/scale-out.md lists under Permissions"
	}
	return nil, nc.Close, []finding{ill(check, err.Error(), remedy)}
}

// examineBroker looks at a broker that answers.
func (p *patient) examineBroker(ctx context.Context) []finding {
	findings := []finding{p.examineDurability()}
	findings = append(findings, p.examineStream(ctx)...)
	return append(findings, p.examineFleet(ctx)...)
}

// examineDurability says what 202 means here.
func (p *patient) examineDurability() finding {
	const check = "broker durability"
	switch {
	case p.stores == nil || p.stores.broker == nil:
		return worth(check, "JetStream answers at "+p.nats.ConnectedServerName()+"; whether it syncs what it acknowledges cannot be seen from outside",
			"for 202 to mean on disk, set in each server's configuration: jetstream { sync_interval: always }, or keep three replicas in places that lose power separately")
	case p.stores.broker.Sync() != nil:
		return fine(check, "each group of events is synced to disk before it is answered")
	default:
		return fine(check, "each event is synced to disk before it is answered; groups cannot be synced at once here, which is slower")
	}
}

// examineStream compares the stream with what is configured.
func (p *patient) examineStream(ctx context.Context) []finding {
	const check = "stream"
	stream, err := p.js.Stream(ctx, events.StreamName)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return []finding{worth(check, "not there", "start serve: it makes the stream")}
	case err != nil:
		return []finding{ill(check, err.Error(), "let the account of NATS_CREDS use $JS.API.>")}
	}
	info := stream.CachedInfo()
	detail := fmt.Sprintf("%d events, %d of at most %d MB, replicas: %d, kept for %s, duplicates known for %s",
		info.State.Msgs, info.State.Bytes>>20, info.Config.MaxBytes>>20, info.Config.Replicas, info.Config.MaxAge, info.Config.Duplicates)
	findings := []finding{fine(check, detail)}
	if wrong := p.differences(&info.Config); len(wrong) > 0 {
		findings[0] = ill(check, detail+"; not as configured: "+strings.Join(wrong, ", "), "restart serve: it sets the stream as configured; see that nothing else changes the stream "+events.StreamName)
	}
	if err := events.StreamRoom(ctx, p.js); errors.Is(err, events.ErrStreamFull) {
		findings = append(findings, ill("stream room", err.Error(), "set STREAM_MAX_BYTES higher, or STREAM_MAX_AGE lower, and restart serve"))
	}
	if missing := offlineReplicas(info.Cluster); len(missing) > 0 {
		findings = append(findings, ill("stream replicas", "not in step: "+strings.Join(missing, ", "), "see that these NATS servers run and reach the others: nats stream cluster peer-status "+events.StreamName))
	}
	n, err := events.NewDeadLetters(p.js).Count(ctx)
	switch {
	case err != nil:
		findings = append(findings, ill("dead letters", err.Error(), "let the account of NATS_CREDS use $JS.API.>"))
	case n > 0:
		findings = append(findings, ill("dead letters", fmt.Sprintf("%d events could not be brought into the books", n), "look at their reasons in GET /admin or /api/admin/dead-letters, mend the cause, then requeue them"))
	default:
		findings = append(findings, fine("dead letters", "none"))
	}
	return findings
}

// differences are what of a stream is not as serve makes it.
func (p *patient) differences(is *jetstream.StreamConfig) (wrong []string) {
	replicas := p.config.natsReplicas
	if p.stores != nil && p.stores.broker != nil {
		replicas = 1
	} else if replicas == 0 && p.nats.ConnectedClusterName() != "" {
		replicas = 3
	}
	want := func(what string, is, should any) {
		if is != should {
			wrong = append(wrong, fmt.Sprintf("%s is %v, not %v", what, is, should))
		}
	}
	if p.config.streamMaxAge > 0 {
		want("max age", is.MaxAge, p.config.streamMaxAge)
		want("duplicate window", is.Duplicates, min(10*time.Minute, p.config.streamMaxAge))
	}
	want("replicas", is.Replicas, max(1, replicas))
	want("retention", is.Retention, jetstream.LimitsPolicy)
	want("discard", is.Discard, jetstream.DiscardNew)
	want("storage", is.Storage, jetstream.FileStorage)
	return wrong
}

// offlineReplicas names the replicas that are away or behind.
func offlineReplicas(cluster *jetstream.ClusterInfo) (names []string) {
	if cluster == nil {
		return nil
	}
	for _, peer := range cluster.Replicas {
		if peer.Offline || !peer.Current {
			names = append(names, peer.Name)
		}
	}
	return names
}

// pingWait is how long running processes may take to say who they are.
const pingWait = 500 * time.Millisecond

// examineFleet asks the running processes who they are, and names the roles that
// none of them has.
func (p *patient) examineFleet(ctx context.Context) []finding {
	const check = "roles"
	present, err := events.Ping(ctx, p.nats, pingWait)
	if err != nil {
		return []finding{worth(check, "who runs cannot be seen: "+err.Error(), "ask with an account that may publish to serversync.ping and subscribe to _INBOX.>, as the role api's may")}
	}
	idle := map[string]string{
		roleIngest: "no webhook is heard", roleReconcile: "nothing is brought into the books", roleSweep: "what webhooks do not tell is never found", roleAPI: "nobody is answered",
	}
	var missing, does []string
	var findings []finding
	for _, role := range allRoles {
		n := 0
		for _, one := range present {
			if slices.Contains(one.Roles, role) {
				n++
			}
		}
		does = append(does, fmt.Sprintf("%s %d", role, n))
		if n == 0 {
			missing = append(missing, role)
			findings = append(findings, ill("role "+role, "no running process has it: "+idle[role], "start one: serversync serve --roles="+role))
		}
	}
	if len(missing) == 0 {
		return []finding{fine(check, fmt.Sprintf("%s: %s", countedVerb(int64(len(present)), "process", "runs", "run"), strings.Join(does, ", ")))}
	}
	return findings
}

// examineDisks looks at the disks of what is embedded.
func (p *patient) examineDisks() (findings []finding) {
	var parts []string
	if p.stores.broker != nil {
		parts = append(parts, "nats")
	}
	if p.stores.postgres != nil {
		parts = append(parts, "postgres")
	}
	for _, part := range parts {
		check := "disk of " + part
		room, err := diskspace.Of(filepath.Join(p.config.dataDir, part))
		if err != nil {
			findings = append(findings, worth(check, err.Error(), "look at the room of DATA_DIR/"+part+" by yourself"))
			continue
		}
		detail := fmt.Sprintf("%d of %d MB are free, %d are kept in reserve", room.Free>>20, room.Total>>20, room.Reserve()>>20)
		switch {
		case room.Free < room.Reserve():
			findings = append(findings, ill(check, detail+": webhooks are refused", "make room on the disk of DATA_DIR/"+part+", or move DATA_DIR to a larger one"))
		case room.Free < 2*room.Reserve():
			findings = append(findings, worth(check, detail, "make room on the disk of DATA_DIR/"+part+" before webhooks are refused"))
		default:
			findings = append(findings, fine(check, detail))
		}
	}
	return findings
}
