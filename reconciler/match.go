package reconciler

import (
	"slices"
	"strings"

	"serversync/db"
)

// hasUUID reports whether a billing row names a server by UUID. SkyPANEL
// writes a sentinel on the rows of deleted users: it names nothing.
func hasUUID(r *Row) bool { return r.UUID != "" && r.UUID != db.DeletedServerUUID }

// agrees reports whether a billing row that matches by id or by UUID is the
// server's: neither may contradict.
func agrees(r *Row, s *State) bool {
	return r.ServerID == s.ID && (!hasUUID(r) || s.UUID == "" || strings.EqualFold(r.UUID, s.UUID))
}

// relevant drops rows that name neither the server's id nor its UUID: they
// were found by a UUID that it no longer has.
func relevant(rows []Row, s *State) []Row {
	var kept []Row
	for _, r := range rows {
		if r.ServerID == s.ID || hasUUID(&r) && strings.EqualFold(r.UUID, s.UUID) {
			kept = append(kept, r)
		}
	}
	return kept
}

// disagreeing finds a row that has the server's id and another UUID, or its
// UUID and another id.
func disagreeing(rows []Row, s *State) *Row {
	for i := range rows {
		if !agrees(&rows[i], s) {
			return &rows[i]
		}
	}
	return nil
}

// matched are a server's billing rows, by whose they are. Closed history is
// in none of them.
type matched struct {
	native    []Row // SkyPANEL's own, for the owner
	ours      []Row // ours, for the owner
	strangers []Row // switched on, for somebody else
}

// sortRows sorts the rows that agree with the server. While nobody knows whom
// the server belongs to, the rows' own word is taken.
func sortRows(rows []Row, own owner) matched {
	var m matched
	for _, r := range rows {
		switch {
		case !own.unknown && (own.user == nil || own.user.ID != r.UserID):
			if r.Enabled {
				m.strangers = append(m.strangers, r)
			}
		case r.Ours:
			m.ours = append(m.ours, r)
		case !r.Enabled && closedOf(&r) == ClosedMoved:
			// History: the server went to somebody else and came back.
		default:
			m.native = append(m.native, r)
		}
	}
	return m
}

// switchedOn are the rows that bill.
func switchedOn(rows []Row) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !r.Enabled })
}

func closedOf(r *Row) Closed {
	if r.Record == nil {
		return ClosedNot
	}
	return r.Record.Closed
}
