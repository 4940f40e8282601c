package reconciler

import (
	"slices"

	"serversync/db"
)

// decideHarmless decides a server of which a run said beforehand that it changes
// no billing. When it would by now (a price was changed since), the news are
// noted and its billing stays as it is, until that run has ended: a later one
// shows what would change, under its cap.
func decideHarmless(in Input, runID string) Decision {
	d := Decide(in)
	switch effect(&d, &in) {
	case db.EffectNone:
		return d
	case db.EffectEnd:
		if d.State.Status == StatusGone {
			return d
		}
	}
	if len(d.Withdraw) > 0 {
		return d
	}
	in.RunID = runID
	if in.Known == nil {
		return decideHold(in)
	}
	in.Known = new(*in.Known)
	in.Known.AwaitingRun = runID
	in.News = slices.Clone(in.News)
	for i := range in.News {
		in.News[i].RunID = ""
	}
	d = Decide(in)
	d.RunID = runID
	return d
}

// harmless is the run that said that all the news change no billing; empty:
// there is none, or others have their say.
func harmless(news []Observation) string {
	runID := ""
	for i := range news {
		if !news[i].Harmless || runID != "" && news[i].RunID != runID {
			return ""
		}
		runID = news[i].RunID
	}
	return runID
}
