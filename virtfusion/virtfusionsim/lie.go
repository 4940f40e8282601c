package virtfusionsim

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// beyond32Bits is what [FaultHugeIDs] adds to an id.
const beyond32Bits = 1 << 31

// lie answers as a panel would in which the change were true.
func lie(change func(other *Panel, b *bite)) spoil {
	return func(b *bite, w http.ResponseWriter, r *http.Request) {
		other := b.panel.double()
		change(other, b)
		other.Handler().ServeHTTP(w, r.Clone(r.Context()))
	}
}

// double returns a panel with the same state, for one answer.
func (p *Panel) double() *Panel {
	other := p.bare()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, id := range p.servers.ids {
		other.servers.put(id, new(p.servers.ordered[i].copy()))
	}
	other.earlier.states = maps.Clone(p.earlier.states)
	return other
}

// bare returns a panel with the same users, packages and hypervisors, and no
// servers.
func (p *Panel) bare() *Panel {
	config := p.config
	config.Skew = time.Duration(p.skew.Load())
	other := New(config)
	p.mu.Lock()
	defer p.mu.Unlock()
	other.users, other.packages, other.hypervisors = maps.Clone(p.users), maps.Clone(p.packages), maps.Clone(p.hypervisors)
	other.lastUser = p.lastUser
	return other
}

// about tells whether the bite is about a server.
func (b *bite) about(id int64) bool { return b.ServerID == 0 || b.ServerID == id }

// emptied has no servers and no packages.
func emptied(p *Panel, _ *bite) {
	p.servers.clear()
	clear(p.packages)
}

// outdated has each server as it was before its last change.
func outdated(p *Panel, b *bite) {
	for id, was := range p.earlier.states {
		if b.about(id) {
			p.servers.put(id, was)
		}
	}
}

// misattributed has the servers belong to others.
func misattributed(p *Panel, b *bite) {
	for i, server := range p.servers.ordered {
		if !b.about(p.servers.ids[i]) {
			continue
		}
		if b.OwnerID != 0 {
			server.OwnerID = b.OwnerID
		} else {
			server.OwnerID = p.userAfter(server.OwnerID)
		}
		if _, ok := p.users[server.OwnerID]; !ok {
			p.users[server.OwnerID] = User{ID: server.OwnerID, Name: "Stranger"}
		}
	}
}

// userAfter is the next user by id, after the last one the first again; a
// stranger when there is no other.
func (p *Panel) userAfter(id int64) int64 {
	ids := slices.Sorted(maps.Keys(p.users))
	at, _ := slices.BinarySearch(ids, id+1)
	for _, next := range slices.Concat(ids[at:], ids[:at]) {
		if next != id {
			return next
		}
	}
	return p.lastUser + 1
}

// longNamed has one very long name in each answer.
func longNamed(p *Panel, b *bite) {
	name := strings.Repeat("n", HugeNameBytes)
	for id, user := range p.users {
		if b.op == OpUser {
			user.Name = name
			p.users[id] = user
		}
	}
	for i, plan := range sortedByID(p.packages) {
		if (b.op == OpPackages && i == 0) || (b.op == OpPackage && plan.ID == b.id) {
			plan.Name = name
			p.packages[plan.ID] = plan
		}
	}
	for _, server := range p.servers.ordered {
		shown := (b.op == OpGet && server.ID == b.id) || (b.op == OpUserServers && server.OwnerID == b.id) || b.op == OpList
		if shown && b.about(server.ID) {
			server.Name = name
			return
		}
	}
}

// shifted has ids above 2^31, under the old paths.
func shifted(p *Panel, b *bite) {
	for i, server := range p.servers.ordered {
		if b.about(p.servers.ids[i]) {
			server.ID += beyond32Bits
		}
	}
	for id, plan := range p.packages {
		plan.ID += beyond32Bits
		p.packages[id] = plan
	}
	for id, user := range p.users {
		if b.op == OpUser {
			user.ID += beyond32Bits
			p.users[id] = user
		}
	}
}
