package events

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Version is the event format that this build writes, and the highest that it
// reads. A new field does not raise it: readers ignore fields that they do not
// know. It is raised when a reader that does not know it would misunderstand the
// event; such a reader leaves it to newer ones, see [ErrNewer].
const Version = 1

// Kind says what sort of news an event brings; it is the last token of the
// subject.
type Kind string

// The kinds of event.
const (
	// KindCreated: VirtFusion reported a creation (webhook server.create).
	KindCreated Kind = "created"
	// KindUpdated: VirtFusion reported any other change of a server that exists.
	KindUpdated Kind = "updated"
	// KindDestroyed: the server is gone, by webhook or because VirtFusion
	// answered 404 for its id.
	KindDestroyed Kind = "destroyed"
	// KindObserved: we asked VirtFusion and this is what it answered.
	KindObserved Kind = "observed"
)

// Source says how an observation reached us.
type Source string

// The sources of observations.
const (
	SourceWebhook Source = "webhook" // VirtFusion pushed it
	SourceSweep   Source = "sweep"   // a full scan found it
	SourceSync    Source = "sync"    // one user's pull found it
	SourceRefetch Source = "refetch" // the reconciler asked for a fresh look
	SourceReplay  Source = "replay"  // the pull that ends a replay found it
)

// Pulled reports whether we asked VirtFusion for the observation, rather than
// being told. Only a pulled observation can bring back a server that was gone.
func (s Source) Pulled() bool {
	return s == SourceSweep || s == SourceSync || s == SourceRefetch || s == SourceReplay
}

// ExpectNothing is the Expected of an event that by its run's preview changes no
// billing. If it would by the time it is decided, a later run shows that first.
const ExpectNothing = "none"

// Event is one observation of one server.
type Event struct {
	// Version of the format, see [Version].
	Version int `json:"version"`
	// ID identifies the event and is its JetStream message id (Nats-Msg-Id):
	// the same observation always has the same id. Set by [Event.Seal].
	ID     string `json:"id"`
	Kind   Kind   `json:"kind"`
	Source Source `json:"source"`
	// Name is VirtFusion's name for a webhook event ("server.create"); empty
	// for observations that we pulled.
	Name string `json:"name,omitempty"`
	// Failed: the operation that VirtFusion reports did not succeed
	// (eventStatus other than "success"). The server may exist all the same.
	Failed bool `json:"failed,omitempty"`
	// ObservedAt is when VirtFusion saw this state: a webhook's own "created",
	// or the time before a pull's request, on VirtFusion's clock.
	ObservedAt time.Time `json:"observedAt"`
	// ReceivedAt is when it reached us, on our clock.
	ReceivedAt time.Time `json:"receivedAt"`
	// RunID names the run (sync, sweep, replay) that published the event.
	RunID string `json:"runId,omitempty"`
	// Replay: a replay, RunID, read it from the stream and published it again;
	// what it says is as old as its times say. More of the run's events about
	// the server follow.
	Replay bool `json:"replay,omitempty"`
	// Expected is what the run's preview said that the event does to the books,
	// where it is to do no more than that: see [ExpectNothing].
	Expected string `json:"expected,omitempty"`
	// Server is what was seen. Only these fields are ever kept: VirtFusion's
	// objects carry passwords, keys and screenshots.
	Server Server `json:"server"`
}

// Server is the kept part of a VirtFusion server. A nil field was not part of
// the answer and says nothing: what was known stays.
type Server struct {
	ID   int64   `json:"id"` // VirtFusion server id, > 0
	UUID *string `json:"uuid,omitempty"`

	Owner *Owner `json:"owner,omitempty"`

	Name             *string  `json:"name,omitempty"`
	Hostname         *string  `json:"hostname,omitempty"`
	State            *string  `json:"state,omitempty"`
	CommissionStatus *int64   `json:"commissionStatus,omitempty"` // 3 = commissioned
	Suspended        *bool    `json:"suspended,omitempty"`
	Protected        *bool    `json:"protected,omitempty"`
	BuildFailed      *bool    `json:"buildFailed,omitempty"`
	SelfService      *int64   `json:"selfService,omitempty"` // not 0: VirtFusion bills it itself
	PackageID        *int64   `json:"packageId,omitempty"`
	MemoryMB         *int64   `json:"memoryMb,omitempty"`
	StorageGB        *int64   `json:"storageGb,omitempty"`
	TrafficGB        *int64   `json:"trafficGb,omitempty"`
	CPUCores         *int64   `json:"cpuCores,omitempty"`
	IPAddresses      []string `json:"ipAddresses,omitzero"` // primary first; nil: not said, empty: none
	HypervisorID     *int64   `json:"hypervisorId,omitempty"`
	HypervisorName   *string  `json:"hypervisorName,omitempty"`
	HypervisorGroup  *int64   `json:"hypervisorGroupId,omitempty"`

	CreatedAt *time.Time `json:"createdAt,omitempty"`
	UpdatedAt *time.Time `json:"updatedAt,omitempty"` // one-second precision
	BuiltAt   *time.Time `json:"builtAt,omitempty"`
}

// Owner is the VirtFusion user that a server belongs to.
type Owner struct {
	// ID is a VirtFusion user id, SkyPANEL's users.virtfusion_id.
	ID int64 `json:"id"`
	// ExtRelationID is the id that this user has in the billing panel,
	// SkyPANEL's users.id. Nil: not said, or none.
	ExtRelationID *int64 `json:"extRelationId,omitempty"`
	// Whole: the answer had the owner as an object, so that a nil
	// ExtRelationID means "none" rather than "not said".
	Whole bool `json:"whole,omitempty"`
}

// OwnerID returns the VirtFusion user id, 0 when unknown.
func (e *Event) OwnerID() int64 {
	if e.Server.Owner == nil {
		return 0
	}
	return e.Server.Owner.ID
}

// Seal sets Version and ID. The id is a hash of the source, the event's name,
// its status, its time, the run and the kept content; an observation that we
// pulled is thereby identified by the time of its request too. It never hashes
// VirtFusion's hookEventId (which may number the event type, not the delivery)
// nor the content alone (or A → B → A would leave B).
func (e *Event) Seal() error {
	_, err := e.seal()
	return err
}

// seal is [Event.Seal]; it returns the encoded server too.
func (e *Event) seal() (server []byte, err error) {
	e.Version = Version
	if e.Server.ID <= 0 {
		return nil, ErrNoServerID
	}
	server, err = json.Marshal(&e.Server)
	if err != nil {
		return nil, fmt.Errorf("encode server %d for its event id: %w", e.Server.ID, err)
	}
	head := make([]byte, 0, 160)
	head = append(append(head, e.Source...), 0)
	head = append(append(head, e.Kind...), 0)
	head = append(append(head, e.Name...), 0)
	head = append(strconv.AppendBool(head, e.Failed), 0)
	head = append(e.ObservedAt.UTC().AppendFormat(head, time.RFC3339Nano), 0)
	head = append(append(head, e.RunID...), 0)
	h := sha256.New()
	h.Write(head)
	h.Write(server)
	e.ID = hex.EncodeToString(h.Sum(head[:0])[:16])
	return server, nil
}

// encode seals the event and returns it as JSON: what [json.Marshal] makes of
// it, but for the order of its fields. The server, most of it, is encoded once.
func (e *Event) encode() ([]byte, error) {
	server, err := e.seal()
	if err != nil {
		return nil, err
	}
	type plain Event // without the server, which the field below hides
	head, err := json.Marshal(struct {
		*plain

		Server *struct{} `json:"server,omitempty"`
	}{plain: (*plain)(e)})
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	const between = `,"server":`
	data := make([]byte, 0, len(head)+len(between)+len(server))
	data = append(append(data, head[:len(head)-1]...), between...)
	return append(append(data, server...), '}'), nil
}

// ErrNoServerID means that an event has no server id: it can be neither
// addressed nor reconciled.
var ErrNoServerID = errors.New("event has no server id: set Server.ID to VirtFusion's id")

// ErrNewer means that an event was written by a newer version of this program, in
// a format or of a kind that this one does not know. It is for a newer reader.
var ErrNewer = errors.New("it was written by a newer version: upgrade this process")

// Decode reads an event from a stream message. It refuses what a reconciler
// could not use; unknown fields are ignored, so that a newer writer does not
// stop an older reader. With [ErrNewer] it returns what it could read.
func Decode(data []byte) (Event, error) {
	var e Event
	err := json.Unmarshal(data, &e)
	if err != nil { // a newer format may have other types
		var head struct {
			Version int `json:"version"`
		}
		_ = json.Unmarshal(data, &head) // what it could read is enough
		e.Version = head.Version
	}
	if e.Version > Version {
		return e, fmt.Errorf("event %q of server %d has the format %d, and %d is the highest that is known here: %w", e.ID, e.Server.ID, e.Version, Version, ErrNewer)
	}
	if err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	if e.Server.ID <= 0 {
		return Event{}, ErrNoServerID
	}
	if e.ObservedAt.IsZero() {
		return Event{}, fmt.Errorf("event %q of server %d has no observation time", e.ID, e.Server.ID)
	}
	switch e.Kind {
	case KindCreated, KindUpdated, KindDestroyed, KindObserved:
	default:
		return e, fmt.Errorf("event %q of server %d has the unknown kind %q: %w", e.ID, e.Server.ID, e.Kind, ErrNewer)
	}
	return e, nil
}
