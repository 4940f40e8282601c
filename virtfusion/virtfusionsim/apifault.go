package virtfusionsim

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Operation is a call of the API.
type Operation string

// The calls of the API. OpAny, in an [APIFault], is every one of them.
const (
	OpAny         Operation = ""
	OpConnect     Operation = "connect"
	OpList        Operation = "list servers"
	OpGet         Operation = "get server"
	OpUserServers Operation = "servers of user"
	OpUser        Operation = "user"
	OpPackages    Operation = "packages"
	OpPackage     Operation = "package"
	OpCredit      Operation = "credit"
)

// Operations returns every call of the API.
func Operations() []Operation { return append(reads(), OpCredit) }

func reads() []Operation {
	return []Operation{OpConnect, OpList, OpGet, OpUserServers, OpUser, OpPackages, OpPackage}
}

// APIFault spoils the answers to some calls. Only Kind is required: then every
// call that this kind can spoil ([Fault.Operations]) is spoiled, for ever.
type APIFault struct {
	Kind Fault
	// Op is the call that is spoiled; OpAny: every one that Kind can spoil.
	Op Operation
	// Page, above 0, is the only page of OpList that is spoiled.
	Page int
	// ServerID, when not 0, is the server of the only OpGet that is spoiled,
	// and, in a list, the only server that Kind lies about. Other calls than
	// these are then told the truth.
	ServerID int64
	// Skip lets so many matching calls pass first; First, above 0, spoils only
	// so many after that.
	Skip, First int
	// Chance, above 0, is how likely each of the rest is spoiled, drawn from
	// the panel's seed.
	Chance float64

	// RetryAfter is asked for by [FaultTooManyRequests], in whole seconds; 0:
	// without the header.
	RetryAfter time.Duration
	// OwnerID is whom [FaultWrongOwner] names; 0: the panel's next user.
	OwnerID int64

	// Before, when set, is called before a spoiled call is answered. It may
	// change the panel: with FaultNone, that is a change in the middle of
	// somebody's scan.
	Before func()
	// Hung, when set, is called when a hanging call begins to hang.
	Hung func()
}

// APIStats counts the calls of one operation by a caller with the right token.
type APIStats struct {
	Calls int
	// Spoiled ones met a fault, FaultNone included.
	Spoiled int
}

// apiFaults are the faults of the API's answers; the panel's mu guards them.
type apiFaults struct {
	random *rand.Rand
	armed  []*armed
	// over is closed when armed is replaced.
	over  chan struct{}
	stats map[Operation]APIStats
}

// armed is a fault that waits for its calls.
type armed struct {
	APIFault
	spoiler
	met     int // matching calls so far
	spoiled int
}

func newAPIFaults(seed uint64) apiFaults {
	return apiFaults{
		random: seeded(seed, forAnswers),
		over:   make(chan struct{}),
		stats:  map[Operation]APIStats{},
	}
}

// SetAPIFaults replaces the faults of the API's answers; none: it tells the
// truth again. Of several that match a call the first one that bites spoils it.
// Calls that hang are cut off. It panics over a kind that does not exist.
func (p *Panel) SetAPIFaults(faults ...APIFault) {
	known := spoilers()
	replaced := make([]*armed, len(faults))
	for i, fault := range faults {
		at := slices.IndexFunc(known, func(s spoiler) bool { return s.kind == fault.Kind })
		if at < 0 {
			panic(fmt.Sprintf("virtfusionsim: no such fault: %q", fault.Kind))
		}
		replaced[i] = &armed{APIFault: fault, spoiler: known[at]}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.armed = replaced
	close(p.faults.over)
	p.faults.over = make(chan struct{})
}

// APIStats returns the counts of an operation, or of all (OpAny).
func (p *Panel) APIStats(op Operation) APIStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if op != OpAny {
		return p.faults.stats[op]
	}
	var sum APIStats
	for _, stats := range p.faults.stats {
		sum.Calls += stats.Calls
		sum.Spoiled += stats.Spoiled
	}
	return sum
}

// faulty answers a call with the truth, or as the fault that bites wants it: the
// one place where the faults of answers bite.
func (p *Panel) faulty(op Operation, truth http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, spoil := p.bite(op, r)
		if b == nil {
			truth(w, r)
			return
		}
		if b.Before != nil {
			b.Before()
		}
		b.truth = truth
		spoil(b, w, r)
	}
}

// bite finds the fault that spoils a call, and how; nil: none does.
func (p *Panel) bite(op Operation, r *http.Request) (*bite, spoil) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.faults.stats[op]
	defer func() { p.faults.stats[op] = stats }()
	stats.Calls++
	for _, fault := range p.faults.armed {
		if !fault.matches(op, r) || !fault.bites(p.faults.random) {
			continue
		}
		stats.Spoiled++
		return &bite{APIFault: fault.APIFault, panel: p, op: op, id: pathNumber(r, "id"), number: fault.spoiled, over: p.faults.over}, fault.spoil
	}
	return nil, nil
}

// matches tells whether the fault is meant for a call.
func (a *armed) matches(op Operation, r *http.Request) bool {
	if (a.Op != OpAny && a.Op != op) || !slices.Contains(a.ops, op) {
		return false
	}
	if a.Page > 0 && (op != OpList || pageNumber(r) != a.Page) {
		return false
	}
	switch {
	case a.ServerID == 0:
		return true
	case op == OpGet:
		return r.PathValue("id") == strconv.FormatInt(a.ServerID, 10)
	default:
		return a.aboutServers && (op == OpList || op == OpUserServers)
	}
}

// pageNumber is the page that is asked for; 0 for nonsense.
func pageNumber(r *http.Request) int {
	number, _ := queryNumber(r.URL.Query(), "page", 1)
	return number
}

// bites counts a matching call and tells whether it is one of those to spoil.
func (a *armed) bites(random *rand.Rand) bool {
	a.met++
	switch {
	case a.met <= a.Skip,
		a.First > 0 && a.met > a.Skip+a.First,
		a.Chance > 0 && random.Float64() >= a.Chance:
		return false
	}
	a.spoiled++
	return true
}
