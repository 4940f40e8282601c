package ingest

import (
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"serversync/events"
	"serversync/virtfusion"
)

// What an event may hold at most. No true server comes near; a wrong one must
// not make an event that the broker, PostgreSQL or a reader refuses.
const (
	maxTextBytes   = 1 << 10
	maxIPAddresses = 512

	// maxClockLead is how far VirtFusion's clock may be ahead of ours before
	// we take ours: a time in the future wins over every later observation
	// until it has come.
	maxClockLead = 5 * time.Minute
	// firstYear: VirtFusion did not exist before.
	firstYear = 2010
)

// serverEventPrefix marks the webhook events that we use.
const serverEventPrefix = "server."

// delivery is a webhook in our terms: the body, completed by the headers that
// repeat it, and the time of its arrival.
type delivery struct {
	name       string // VirtFusion's event name, never empty
	status     string // "" counts as success
	created    time.Time
	receivedAt time.Time
	packageID  *int64 // from the arguments of a creation
}

// event translates a delivery about a server, whose ID must be > 0. The event
// is not sealed yet.
func (d *delivery) event(s *virtfusion.Server) *events.Event {
	failed := d.status != "" && !strings.EqualFold(d.status, virtfusion.StatusSuccess)
	e := &events.Event{
		Version:    events.Version,
		Kind:       kindOf(d.name, failed),
		Source:     events.SourceWebhook,
		Name:       cleanText(d.name),
		Failed:     failed,
		ObservedAt: d.created.UTC(),
		ReceivedAt: d.receivedAt.UTC(),
		Server:     keep(s),
	}
	if e.Kind == events.KindCreated && e.Server.PackageID == nil {
		e.Server.PackageID = positive(d.packageID)
	}
	return e
}

// kindOf maps VirtFusion's names, and those that SkyPANEL's documents use for
// the same. A failed destroy ends nothing: the server is still there.
func kindOf(name string, failed bool) events.Kind {
	switch name {
	case virtfusion.EventServerCreate, virtfusion.AliasServerCreated:
		return events.KindCreated
	case virtfusion.EventServerDestroy, virtfusion.AliasServerDeleted, "server.destroyed":
		if failed {
			return events.KindUpdated
		}
		return events.KindDestroyed
	default:
		return events.KindUpdated
	}
}

// firstPlausible returns the first time that VirtFusion can have meant, seen
// from the arrival, else the arrival itself.
func firstPlausible(arrival time.Time, said ...*time.Time) time.Time {
	for _, t := range said {
		if t != nil && t.UTC().Year() >= firstYear && !t.After(arrival.Add(maxClockLead)) {
			return t.UTC()
		}
	}
	return arrival.UTC()
}

// plausible is when VirtFusion gave an answer, by its own clock, unless that is
// so far ahead that the answer would count as the newest for too long.
func plausible(at, now time.Time) time.Time {
	return firstPlausible(now, &at)
}

// keep copies the fields of a VirtFusion server that an event may carry. This
// is the allow-list, for whatever way a server reaches us. What is nil stays
// nil: it says nothing.
func keep(s *virtfusion.Server) events.Server {
	return events.Server{
		ID:               s.ID,
		UUID:             keepUUID(s.UUID),
		Owner:            keepOwner(s),
		Name:             cleaned(s.Name),
		Hostname:         cleaned(s.Hostname),
		State:            cleaned(s.State),
		CommissionStatus: notNegative(s.CommissionStatus),
		Suspended:        s.Suspended,
		Protected:        s.Protected,
		BuildFailed:      s.BuildFailed,
		SelfService:      notNegative(s.SelfService),
		PackageID:        positive(s.PackageID),
		MemoryMB:         notNegative(s.MemoryMB),
		StorageGB:        notNegative(s.StorageGB),
		TrafficGB:        notNegative(s.TrafficGB),
		CPUCores:         notNegative(s.CPUCores),
		IPAddresses:      keepAddresses(s.IPAddresses),
		HypervisorID:     positive(s.HypervisorID),
		HypervisorName:   cleaned(s.HypervisorName),
		HypervisorGroup:  positive(s.HypervisorGroupID),
		CreatedAt:        storable(s.Created),
		UpdatedAt:        storable(s.Updated),
		BuiltAt:          storable(s.Built),
	}
}

// keepOwner returns nil for a server whose owner has no positive id.
func keepOwner(s *virtfusion.Server) *events.Owner {
	id := positive(s.OwnerID)
	if id == nil {
		return nil
	}
	o := &events.Owner{ID: *id}
	if s.Owner != nil {
		o.Whole = true
		o.ExtRelationID = positive(s.Owner.ExtRelationID)
	}
	return o
}

// keepAddresses keeps nil (not said) and empty (none) apart. What is neither an
// address nor a network is left out.
func keepAddresses(ips []string) []string {
	if ips == nil {
		return nil
	}
	kept := make([]string, 0, min(len(ips), maxIPAddresses))
	for _, ip := range ips[:min(len(ips), maxIPAddresses)] {
		if isAddress(ip) {
			kept = append(kept, ip)
		}
	}
	return kept
}

// keepUUID drops what identifies no server: an empty text, and the sentinel that
// SkyPANEL writes for deleted users. UUIDs are compared in lower case.
func keepUUID(s *string) *string {
	if s == nil || *s == "" || *s == deletedServerUUID {
		return nil
	}
	return new(strings.ToLower(cleanText(*s)))
}

// deletedServerUUID is SkyPANEL's sentinel; it stands on many of its rows.
const deletedServerUUID = "DELETED_SERVER"

func isAddress(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	_, err := netip.ParsePrefix(s)
	return err == nil
}

func cleaned(s *string) *string {
	if s == nil {
		return nil
	}
	c := cleanText(*s)
	return &c
}

// cleanText makes text that PostgreSQL and JSON both take (no NUL, valid
// UTF-8), of at most maxTextBytes, cut between two characters.
func cleanText(s string) string {
	const replacement = "\uFFFD"
	if len(s) > 4*maxTextBytes {
		s = s[:4*maxTextBytes] // more cannot survive the cut below
	}
	s = strings.ToValidUTF8(s, replacement)
	s = strings.ReplaceAll(s, "\x00", replacement)
	if len(s) <= maxTextBytes {
		return s
	}
	end := maxTextBytes
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

func positive(n *int64) *int64 {
	if n == nil || *n <= 0 {
		return nil
	}
	return n
}

func notNegative(n *int64) *int64 {
	if n == nil || *n < 0 {
		return nil
	}
	return n
}

// storable returns the time in UTC when its year is one that JSON and
// PostgreSQL both take and that can be true.
func storable(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	if u.Year() < 1970 || u.Year() > 9999 {
		return nil
	}
	return &u
}
