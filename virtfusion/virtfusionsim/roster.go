package virtfusionsim

import "slices"

// roster is servers by id, and in the order of their ids: a page of a hundred
// thousand costs what its rows cost.
type roster struct {
	byID map[int64]*Server
	// ids and ordered go together.
	ids     []int64
	ordered []*Server
}

func newRoster() roster { return roster{byID: map[int64]*Server{}} }

// get returns the server with that id.
func (r *roster) get(id int64) (*Server, bool) {
	server, ok := r.byID[id]
	return server, ok
}

// put adds a server, or replaces the one with that id.
func (r *roster) put(id int64, server *Server) {
	r.byID[id] = server
	at, found := slices.BinarySearch(r.ids, id)
	if found {
		r.ordered[at] = server
		return
	}
	r.ids = slices.Insert(r.ids, at, id)
	r.ordered = slices.Insert(r.ordered, at, server)
}

// drop removes a server.
func (r *roster) drop(id int64) {
	delete(r.byID, id)
	if at, found := slices.BinarySearch(r.ids, id); found {
		r.ids = slices.Delete(r.ids, at, at+1)
		r.ordered = slices.Delete(r.ordered, at, at+1)
	}
}

// clear removes all servers.
func (r *roster) clear() { *r = newRoster() }

// size is how many servers there are.
func (r *roster) size() int { return len(r.ordered) }
