package virtfusionsim

// maxGone is of how many destroyed servers the last state is kept.
const maxGone = 1000

// earlier keeps each server's state before its last change, for stale answers.
// The panel's mu guards it.
type earlier struct {
	states map[int64]*Server
	gone   []int64
}

// keep notes the state that a server had until now.
func (e *earlier) keep(was Server) { e.states[was.ID] = &was }

// keepGone notes the last state of a server that is destroyed.
func (e *earlier) keepGone(was Server) {
	e.keep(was)
	e.gone = append(e.gone, was.ID)
	if len(e.gone) > maxGone {
		delete(e.states, e.gone[0])
		e.gone = e.gone[1:]
	}
}
