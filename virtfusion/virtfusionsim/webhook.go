package virtfusionsim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// userAgent is how VirtFusion's webhooks introduce themselves.
const userAgent = "VirtFusion-Hookshot/5.3.0"

const headerHookEvent = "X-VirtFusion-Hook-Event"

// hookID is the id of the one webhook that the panel has configured.
const hookID = 1

// microseconds is the form of a webhook's created.
const microseconds = "2006-01-02T15:04:05.000000Z"

// Delivery is one webhook, ready to be sent.
type Delivery struct {
	// Sequence counts the panel's webhooks from 1.
	Sequence int64
	// Repeat is 0 for the first arrival, and counts the repeats from 1.
	Repeat int
	Event  string
	Status string
	// ServerID is 0 when the webhook says that there is no server.
	ServerID int64
	Created  time.Time
	// Header and Body are what goes over the wire, secrets included.
	Header http.Header
	Body   []byte
}

// event is what a change reports.
type event struct {
	name   string
	status string
	// args are those of a creation, nil for everything else.
	args *CreateArgs
}

// change makes one change and reports it. The caller holds emitting. apply runs
// under mu and returns the server that the webhook describes, or nil for none.
func (p *Panel) change(silent bool, apply func(now time.Time) (*Server, event, error)) (Server, error) {
	changed, arriving, err := p.applied(silent, apply)
	p.hook(arriving)
	return changed, err
}

// applied makes the change under mu and posts its webhook. It returns what
// arrives because of that, which is queued unless there is a Hook.
func (p *Panel) applied(silent bool, apply func(now time.Time) (*Server, event, error)) (Server, []Delivery, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	server, happened, err := apply(now.Truncate(p.config.Precision))
	if err != nil {
		return Server{}, nil, err
	}
	var changed Server
	if server != nil {
		changed = server.copy()
	}
	if silent || (p.config.Hook == nil && p.config.WebhookURL == "") {
		return changed, nil, nil
	}
	p.lastEvent++
	delivery, err := p.delivery(happened, server, p.lastEvent, now)
	if err != nil {
		return Server{}, nil, err
	}
	p.stats.Emitted++
	if p.config.Journal {
		p.journal = append(p.journal, delivery)
	}
	arriving := p.post.take(delivery)
	p.enqueue(arriving)
	return changed, arriving, nil
}

// delivery writes a webhook; the caller holds mu.
func (p *Panel) delivery(happened event, server *Server, sequence int64, now time.Time) (Delivery, error) {
	body, err := json.Marshal(p.webhook(happened, server, sequence, now))
	if err != nil {
		return Delivery{}, fmt.Errorf("encode webhook: %w", err)
	}
	delivery := Delivery{
		Sequence: sequence,
		Event:    happened.name,
		Status:   happened.status,
		Created:  now,
		Header:   p.header(happened, now),
		Body:     body,
	}
	if server != nil {
		delivery.ServerID = server.ID
	}
	return delivery, nil
}

// WebhookBody returns the body of a successful webhook about a server, as the
// panel would send it now, without sending it: about 4 KB, for load tests.
func (p *Panel) WebhookBody(id int64, name string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	server, err := p.server(id)
	if err != nil {
		return nil, err
	}
	p.lastEvent++
	delivery, err := p.delivery(event{name: name, status: statusSuccess}, server, p.lastEvent, p.now())
	return delivery.Body, err
}

// WebhookHeader returns the headers that go with such a body.
func (p *Panel) WebhookHeader(name string) http.Header {
	return p.header(event{name: name, status: statusSuccess}, p.now())
}

// header repeats what the body says.
func (p *Panel) header(happened event, now time.Time) http.Header {
	header := http.Header{}
	header.Set("Content-Type", "application/json")
	header.Set("User-Agent", userAgent)
	header.Set("X-VirtFusion-Hook", strconv.Itoa(hookID))
	header.Set(headerHookEvent, strconv.Itoa(eventType(happened.name)))
	header.Set("X-VirtFusion-Event", happened.name)
	header.Set("X-VirtFusion-Event-Status", happened.status)
	header.Set("X-VirtFusion-Created", now.Format(microseconds))
	if p.config.WebhookToken != "" {
		header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte(p.config.WebhookToken)))
	}
	return header
}

// eventType is the documented id of an event's type; what is not documented
// arrives under catch.all.
func eventType(name string) int {
	switch name {
	case eventCreate:
		return 1
	case eventDestroy:
		return 2
	case eventBuild:
		return 3
	case "server.assign.ipv6":
		return 4
	default:
		return 1000
	}
}

// webhook is a webhook's body. Every second one has its ids as text.
func (p *Panel) webhook(happened event, server *Server, sequence int64, now time.Time) object {
	write := writer{panel: p, textual: sequence%2 == 0}
	data := object{"errors": []string{}, "server": false}
	if server != nil {
		data["server"] = write.full(server)
	}
	if happened.status != statusSuccess {
		data["errors"] = []string{"The task did not finish."}
	}
	if happened.args != nil {
		data["args"] = write.args(happened.args)
		data["allocation"] = false
		if server != nil {
			data["allocation"] = object{"hypervisorId": write.id(server.HypervisorID), "storage": 1}
		}
	}
	return object{
		"event":              happened.name,
		"created":            now.Format(microseconds),
		"hookId":             write.id(hookID),
		"hookEventId":        write.id(int64(eventType(happened.name))),
		"eventStatus":        happened.status,
		"controlDomain":      p.config.ControlDomain,
		"controlName":        "Simulated VirtFusion",
		"controlSupportLink": "https://" + p.config.ControlDomain + "/support",
		"data":               data,
	}
}
