package reconciler

import (
	"cmp"
	"slices"
	"time"

	"serversync/events"
)

// Observation is what one or several events say of one server: the newest,
// with what only older ones said filled in.
type Observation struct {
	EventID    string
	RunID      string
	Source     events.Source
	ObservedAt time.Time
	// FirstReceivedAt is the earliest arrival among the events.
	FirstReceivedAt time.Time
	// Creation: one of the events reported a successful creation.
	Creation bool
	// Gone: VirtFusion says that the server no longer exists.
	Gone bool
	// Failed: all that is known comes from operations that failed.
	Failed bool
	// Disagree: two of the events are of the same age and differ, so that
	// neither can be called the newest.
	Disagree bool
	Server   events.Server
}

// collapse folds the events of one server into one observation. It gives what
// taking them one by one, in the order of their times, would give; the order
// in which they arrived does not matter. There must be at least one.
func collapse(all []events.Event) Observation {
	taken, disagree := byAge(all)
	newest := taken[len(taken)-1]
	o := Observation{
		EventID: newest.ID, RunID: newest.RunID, Source: newest.Source,
		ObservedAt: micro(newest.ObservedAt), FirstReceivedAt: newest.ReceivedAt,
		Gone:     ends(&newest),
		Failed:   true,
		Disagree: disagree,
		Server:   newest.Server,
	}
	for i := range all {
		e := &all[i]
		if e.ReceivedAt.Before(o.FirstReceivedAt) {
			o.FirstReceivedAt = e.ReceivedAt
		}
		o.Creation = o.Creation || e.Kind == events.KindCreated && !e.Failed
		o.Failed = o.Failed && e.Failed
	}
	for _, e := range slices.Backward(taken[:len(taken)-1]) {
		fillIn(&o.Server, &e.Server)
	}
	return o
}

// ends reports an event that ends a server. A failed destroy ends nothing.
func ends(e *events.Event) bool { return e.Kind == events.KindDestroyed && !e.Failed }

// byAge takes the events of one server in the order of their times, by the
// rules of [compareWithKnown]: each taken event was newer than those before.
// Left out are what was already older when its turn came, and what was pushed
// after an end: an echo of it. disagree: the last two taken are of the same
// age and differ.
func byAge(all []events.Event) (taken []events.Event, disagree bool) {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b events.Event) int {
		return cmp.Or(micro(a.ObservedAt).Compare(micro(b.ObservedAt)), order(ends(&a), ends(&b)), cmp.Compare(a.ID, b.ID))
	})
	var newest *events.Event
	var updated *time.Time // the newest "updated" so far
	for i := range sorted {
		e := &sorted[i]
		switch {
		case newest == nil || ends(e):
			disagree = false
		case ends(newest):
			if !e.Source.Pulled() {
				continue
			}
			disagree = false
		case e.Server.UpdatedAt != nil && updated != nil && e.Server.UpdatedAt.Before(*updated):
			continue
		default:
			later := e.Server.UpdatedAt != nil && updated != nil && e.Server.UpdatedAt.After(*updated) ||
				micro(e.ObservedAt).After(micro(newest.ObservedAt))
			before := merge(State{}, &newest.Server)
			after := merge(before, &e.Server)
			disagree = !later && (disagree || len(observedDiff(&before, &after)) > 0)
		}
		taken, newest = append(taken, *e), e
		updated = cmp.Or(e.Server.UpdatedAt, updated)
	}
	return taken, disagree
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

// fillIn copies into a newer account of a server what it leaves unsaid and an
// older one said.
func fillIn(newer, older *events.Server) {
	newer.UUID = cmp.Or(newer.UUID, older.UUID)
	switch {
	case newer.Owner == nil:
		newer.Owner = older.Owner
	case older.Owner != nil && older.Owner.ID == newer.Owner.ID && !newer.Owner.Whole && newer.Owner.ExtRelationID == nil:
		newer.Owner = older.Owner // the same owner, told more fully
	}
	newer.Name = cmp.Or(newer.Name, older.Name)
	newer.Hostname = cmp.Or(newer.Hostname, older.Hostname)
	newer.State = cmp.Or(newer.State, older.State)
	newer.CommissionStatus = cmp.Or(newer.CommissionStatus, older.CommissionStatus)
	newer.Suspended = cmp.Or(newer.Suspended, older.Suspended)
	newer.Protected = cmp.Or(newer.Protected, older.Protected)
	newer.BuildFailed = cmp.Or(newer.BuildFailed, older.BuildFailed)
	newer.SelfService = cmp.Or(newer.SelfService, older.SelfService)
	newer.PackageID = cmp.Or(newer.PackageID, older.PackageID)
	newer.MemoryMB = cmp.Or(newer.MemoryMB, older.MemoryMB)
	newer.StorageGB = cmp.Or(newer.StorageGB, older.StorageGB)
	newer.TrafficGB = cmp.Or(newer.TrafficGB, older.TrafficGB)
	newer.CPUCores = cmp.Or(newer.CPUCores, older.CPUCores)
	if newer.IPAddresses == nil {
		newer.IPAddresses = older.IPAddresses
	}
	newer.HypervisorID = cmp.Or(newer.HypervisorID, older.HypervisorID)
	newer.HypervisorName = cmp.Or(newer.HypervisorName, older.HypervisorName)
	newer.HypervisorGroup = cmp.Or(newer.HypervisorGroup, older.HypervisorGroup)
	newer.CreatedAt = cmp.Or(newer.CreatedAt, older.CreatedAt)
	newer.UpdatedAt = cmp.Or(newer.UpdatedAt, older.UpdatedAt)
	newer.BuiltAt = cmp.Or(newer.BuiltAt, older.BuiltAt)
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
	if o.Server.UpdatedAt != nil && known.UpdatedAt != nil {
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
	if len(observedDiff(known, merged)) == 0 {
		return same
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
