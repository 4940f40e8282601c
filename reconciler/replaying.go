package reconciler

import "slices"

// replaying reports that all that is heard was heard before, and is replayed.
func (d *decider) replaying() bool {
	return len(d.in.News) > 0 && !slices.ContainsFunc(d.in.News, func(o Observation) bool { return !o.Replay })
}

// askReplayed is the question of a server of which only a replay told something
// new.
const askReplayed = "what is known of it was replayed: how is it today?"

// await leaves the books as they stand: no money moves on old news. VirtFusion's
// word of today, which ends a replay, decides; should its run break off, the
// question has VirtFusion asked.
func (d *decider) await() {
	s, known := &d.state, d.in.Known
	if known != nil && (!d.fresh || s.Status == known.Status && len(observedDiff(known, s)) == 0) {
		return // nothing new
	}
	if s.Ask == "" {
		s.Ask = askReplayed
	}
	if known == nil && s.GoneAt == nil || known != nil && known.Status != s.Status && s.Status == StatusSettling {
		d.settle("replayed: VirtFusion's word of today is still to come")
	}
}
