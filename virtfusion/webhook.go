package virtfusion

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Names of the webhook events that VirtFusion documents, and, in Alias…, those
// that SkyPANEL's own documents use for the same. The set is open.
const (
	EventServerCreate  = "server.create"
	EventServerDestroy = "server.destroy"
	EventServerBuild   = "server.build"
	EventAssignIPv6    = "server.assign.ipv6"

	AliasServerCreated = "server.created"
	AliasServerUpdated = "server.updated"
	AliasServerDeleted = "server.deleted"
)

// StatusSuccess is the EventStatus of an operation that did what it should;
// any other says that it failed.
const StatusSuccess = "success"

// The headers of a webhook delivery. They repeat what the body says.
const (
	HeaderHook        = "X-VirtFusion-Hook"
	HeaderHookEvent   = "X-VirtFusion-Hook-Event"
	HeaderEvent       = "X-VirtFusion-Event"
	HeaderEventStatus = "X-VirtFusion-Event-Status"
	HeaderCreated     = "X-VirtFusion-Created"
)

// Webhook is the body of a webhook delivery, as far as serversync reads it.
// Text that is missing is empty.
type Webhook struct {
	Event string
	// Created is when VirtFusion says that the event happened (microseconds);
	// nil when it does not say.
	Created *time.Time
	// HookID and HookEventID come as numbers or as text. HookEventID may
	// number the event's type or the delivery: never use it alone to detect
	// duplicates.
	HookID      string
	HookEventID string
	EventStatus string
	// ControlDomain is the panel that sent the webhook.
	ControlDomain string
	Data          WebhookData
}

// WebhookData is what a webhook is about.
type WebhookData struct {
	// Server is the raw server: an object, false, null, or nil when the key is
	// missing; see ServerKind. It holds secrets: give it to [DecodeServer] and
	// keep it nowhere. It is left out when a Webhook is encoded.
	Server json.RawMessage `json:"-"`
	// Args are those of the request that created the server, when it was
	// created through the API.
	Args WebhookArgs
}

// WebhookArgs are the arguments of a creation.
type WebhookArgs struct {
	PackageID *int64
	UserID    *int64
}

// ServerKind tells what stands at data.server.
type ServerKind int

// What can stand at data.server.
const (
	// ServerMissing: there is no such key, or it is null.
	ServerMissing ServerKind = iota
	// ServerFalse: VirtFusion says that there is no server (false, or PHP's
	// empty object, []).
	ServerFalse
	// ServerObject: an object, for [DecodeServer].
	ServerObject
	// ServerUnreadable: something else.
	ServerUnreadable
)

// ServerKind tells what stands at data.server.
func (d *WebhookData) ServerKind() ServerKind {
	raw := bytes.TrimSpace(d.Server)
	switch {
	case len(raw) == 0, bytes.Equal(raw, []byte("null")):
		return ServerMissing
	case raw[0] == '{':
		return ServerObject
	case bytes.Equal(raw, []byte("false")), isEmptyArray(raw):
		return ServerFalse
	default:
		return ServerUnreadable
	}
}

// DecodeServer is [DecodeServer] of the Server of a webhook that [DecodeWebhook]
// has read: it was found to be JSON then, and is not looked through again.
func (d *WebhookData) DecodeServer() (Server, error) {
	if !isObject(d.Server) {
		return Server{}, fmt.Errorf("decode VirtFusion server: %w", ErrNotObject)
	}
	return readServer(d.Server), nil
}

// DecodeWebhook reads the body of a webhook delivery. It fails only when body
// is not a JSON object ([ErrNotObject], or a syntax error); whether it says
// anything is for the caller to see. Of the result, Data.Server refers to body.
func DecodeWebhook(body []byte) (Webhook, error) {
	if !isObject(body) {
		if valid(body) != nil {
			return Webhook{}, fmt.Errorf("decode VirtFusion webhook: %w", errNotJSON)
		}
		return Webhook{}, fmt.Errorf("decode VirtFusion webhook: %w", ErrNotObject)
	}
	if err := valid(body); err != nil {
		return Webhook{}, fmt.Errorf("decode VirtFusion webhook: %w", err)
	}
	wire := new(wireWebhook)
	wire.read(body)
	return Webhook{
		Event:         wire.Event.value,
		Created:       wire.Created.pointer(),
		HookID:        wire.HookID.value,
		HookEventID:   wire.HookEventID.value,
		EventStatus:   wire.EventStatus.value,
		ControlDomain: wire.ControlDomain.value,
		Data: WebhookData{
			Server: wire.Data.Server,
			Args: WebhookArgs{
				PackageID: wire.Data.Args.PackageID.idPointer(),
				UserID:    wire.Data.Args.UserID.idPointer(),
			},
		},
	}, nil
}

type wireWebhook struct {
	Event         text
	Created       timestamp
	HookID        text
	HookEventID   text
	EventStatus   text
	ControlDomain text
	Data          wireData
}

func (w *wireWebhook) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "event":
			w.Event.read(f.value)
		case "created":
			w.Created.read(f.value)
		case "hookid":
			w.HookID.read(f.value)
		case "hookeventid":
			w.HookEventID.read(f.value)
		case "eventstatus":
			w.EventStatus.read(f.value)
		case "controldomain":
			w.ControlDomain.read(f.value)
		case "data":
			w.Data.read(f.value)
		}
	}
}

type wireData struct {
	Server []byte
	Args   wireArgs
}

func (w *wireData) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "server":
			w.Server = f.value
		case "args":
			w.Args.read(f.value)
		}
	}
}

type wireArgs struct {
	PackageID number
	UserID    number
}

func (w *wireArgs) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "packageid": //nolint:misspell // packageId in lower case
			w.PackageID.read(f.value)
		case "userid":
			w.UserID.read(f.value)
		}
	}
}
