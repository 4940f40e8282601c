package reconciler

import (
	"cmp"
	"slices"
	"time"

	"serversync/events"
)

// Observation is what one event says of a server.
type Observation struct {
	EventID    string
	RunID      string
	Source     events.Source
	ObservedAt time.Time // on VirtFusion's clock, in microseconds
	ReceivedAt time.Time // on ours
	// Creation: it reported a successful creation.
	Creation bool
	// Gone: VirtFusion says that the server no longer exists.
	Gone bool
	// Failed: it comes from an operation that failed.
	Failed bool
	// Replay: it was on the stream before; the run that publishes it again has
	// more to say of the server.
	Replay bool
	// Harmless: by the preview of its run it changes no billing.
	Harmless bool
	Server   events.Server
}

// observationOf reads an event. A failed destroy ends nothing.
func observationOf(e *events.Event) Observation {
	return Observation{
		EventID: e.ID, RunID: e.RunID, Source: e.Source,
		ObservedAt: micro(e.ObservedAt), ReceivedAt: micro(e.ReceivedAt),
		Creation: e.Kind == events.KindCreated && !e.Failed,
		Gone:     e.Kind == events.KindDestroyed && !e.Failed,
		Failed:   e.Failed,
		Replay:   e.Replay,
		Harmless: e.Expected == events.ExpectNothing,
		Server:   e.Server,
	}
}

// inOrder sorts observations by their times; of two at the same time, an end
// comes last. The order in which they arrived does not matter.
func inOrder(news []Observation) []Observation {
	return slices.SortedFunc(slices.Values(news), func(a, b Observation) int {
		return cmp.Or(a.ObservedAt.Compare(b.ObservedAt), order(a.Gone, b.Gone),
			order(a.Server.UpdatedAt != nil, b.Server.UpdatedAt != nil), cmp.Compare(a.EventID, b.EventID),
			a.ReceivedAt.Compare(b.ReceivedAt)) // one event may reach us twice
	})
}

// order sorts false before true.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// age says how an observation stands to what is known.
type age int

const (
	older     age = iota // what is known is newer
	newer                // the observation is newer
	same                 // it says what is known already
	undecided            // neither its times nor its content tell: VirtFusion must be asked
)

// compareWithKnown decides whether an observation is newer than what is known.
// merged is the known state with the observation laid over it.
func compareWithKnown(o *Observation, known, merged *State) age {
	switch {
	case known == nil:
		return newer
	case known.Status == StatusGone && !o.Gone:
		if o.Source.Pulled() && o.ObservedAt.After(known.ObservedAt) {
			return newer
		}
		return older
	case o.Gone:
		switch {
		case known.Status == StatusGone:
			return same
		case o.ObservedAt.Before(known.ObservedAt):
			return undecided
		default:
			return newer
		}
	}
	// What we asked for because evidence disagreed is the answer: it stands by
	// its time alone, or a wrong "updated" could never be mended.
	if o.Source != events.SourceRefetch && o.Server.UpdatedAt != nil && known.UpdatedAt != nil {
		switch merged.UpdatedAt.Compare(*known.UpdatedAt) {
		case -1:
			return older
		case 1:
			return newer
		}
	}
	switch o.ObservedAt.Compare(known.ObservedAt) {
	case -1:
		return older
	case 1:
		return newer
	}
	switch {
	case len(observedDiff(known, merged)) == 0:
		return same
	case o.Server.UpdatedAt == nil && known.UpdatedAt != nil:
		return older // of two at the same time, the one that says when the server changed counts
	case o.Server.UpdatedAt != nil && known.UpdatedAt == nil:
		return newer
	}
	return undecided
}

// merge lays an observation over what is known. What it leaves unsaid stays.
func merge(known State, s *events.Server) State {
	set(&known.UUID, s.UUID)
	if o := s.Owner; o != nil {
		// The relation belongs to the owner: it must not outlive a change of
		// owner that does not say it.
		if o.Whole || o.ExtRelationID != nil || o.ID != known.OwnerID {
			known.OwnerExt = o.ExtRelationID
		}
		known.OwnerID = o.ID
	}
	set(&known.Name, s.Name)
	set(&known.Hostname, s.Hostname)
	set(&known.State, s.State)
	keep(&known.CommissionStatus, s.CommissionStatus)
	set(&known.Suspended, s.Suspended)
	set(&known.Protected, s.Protected)
	set(&known.BuildFailed, s.BuildFailed)
	set(&known.SelfService, s.SelfService)
	keep(&known.PackageID, s.PackageID)
	keep(&known.MemoryMB, s.MemoryMB)
	keep(&known.StorageGB, s.StorageGB)
	keep(&known.TrafficGB, s.TrafficGB)
	keep(&known.CPUCores, s.CPUCores)
	if s.IPAddresses != nil {
		known.IPAddresses = s.IPAddresses
	}
	keep(&known.HypervisorID, s.HypervisorID)
	set(&known.HypervisorName, s.HypervisorName)
	keep(&known.HypervisorGroupID, s.HypervisorGroup)
	keep(&known.CreatedAt, utc(s.CreatedAt))
	keep(&known.UpdatedAt, utc(s.UpdatedAt))
	keep(&known.BuiltAt, utc(s.BuiltAt))
	return known
}

func set[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}

func keep[T any](dst **T, src *T) {
	if src != nil {
		*dst = src
	}
}

// utc is a time as PostgreSQL gives it back: microseconds, UTC.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := micro(*t)
	return &u
}

func micro(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
