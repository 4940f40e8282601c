package virtfusionsim

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Defaults of [Config].
const (
	DefaultToken         = "simulated-api-token"
	DefaultControlDomain = "cp.simulated.example"
	DefaultTimeout       = 10 * time.Second
)

// ErrUnknown says that the panel has no such user, package, hypervisor or server.
var ErrUnknown = errors.New("unknown to the panel")

// Config describes a panel. Its zero value is a panel that sends no webhooks.
type Config struct {
	// Token is what callers of the API must bear; empty: DefaultToken.
	Token string
	// WebhookURL is where webhooks go; empty: nowhere, unless Hook is set.
	WebhookURL string
	// WebhookToken is sent base64-encoded; empty: no Authorization header.
	WebhookToken string
	// Hook, when set, gets every delivery in the call that caused it (or that
	// released it), and nothing is queued for WebhookURL. It may look at the
	// panel, but must not change it.
	Hook func(Delivery)
	// Transport makes the deliveries; nil: [http.DefaultTransport].
	Transport http.RoundTripper
	// Timeout bounds one delivery, and what Run still delivers after its
	// context has ended; 0: DefaultTimeout.
	Timeout time.Duration
	// ControlDomain is the panel's name for itself; empty:
	// DefaultControlDomain.
	ControlDomain string
	// Clock tells the time, that of the API's Date header too; nil: the
	// system's.
	Clock func() time.Time
	// Skew is how far the panel's clock is ahead at first, or, when negative,
	// behind: see SetSkew.
	Skew time.Duration
	// Precision is that of the servers' own times; 0: one second, as VirtFusion
	// has it. A coarser one, such as a minute, makes changes that share an
	// updated likely. Webhooks keep their microseconds.
	Precision time.Duration
	// OmitUpdated: no form of a server has updated.
	OmitUpdated bool
	// OmitPackageID: no form of a server has packageId, as in older versions.
	OmitPackageID bool
	// Journal keeps every webhook for Journal and Redeliver: about 4 KB each,
	// without end.
	Journal bool
	// Seed fixes UUIDs and faults: panels with the same seed and the same
	// history are alike.
	Seed uint64
	// Logger gets a line for each refused delivery; nil: none.
	Logger *zerolog.Logger
}

// Panel is a simulated VirtFusion. It is safe for concurrent use.
//
// Lock order: emitting, then mu. delivering is independent of both.
type Panel struct {
	config Config
	client *http.Client
	log    zerolog.Logger

	// emitting keeps webhooks in the order of the changes that they report.
	emitting sync.Mutex
	// delivering keeps deliveries in the order of the queue.
	delivering sync.Mutex

	mu          sync.Mutex
	random      *rand.Rand
	users       map[int64]User
	packages    map[int64]Package
	hypervisors map[int64]Hypervisor
	servers     roster
	credits     []Credit
	lastUser    int64
	lastPackage int64
	lastHost    int64
	lastServer  int64
	lastEvent   int64
	nextIP      uint32
	queue       []Delivery
	wake        chan struct{}
	stats       Stats
	post        post
	journal     []Delivery
	earlier     earlier
	faults      apiFaults

	skew atomic.Int64 // nanoseconds
}

// New returns an empty panel.
func New(config Config) *Panel {
	config.Token = cmp.Or(config.Token, DefaultToken)
	config.ControlDomain = cmp.Or(config.ControlDomain, DefaultControlDomain)
	config.Timeout = cmp.Or(config.Timeout, DefaultTimeout)
	config.Precision = cmp.Or(config.Precision, time.Second)
	if config.Clock == nil {
		config.Clock = time.Now
	}
	p := &Panel{
		config: config,
		client: &http.Client{
			Transport:     config.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		log:         zerolog.Nop(),
		random:      seeded(config.Seed, forState),
		users:       map[int64]User{},
		packages:    map[int64]Package{},
		hypervisors: map[int64]Hypervisor{},
		servers:     newRoster(),
		wake:        make(chan struct{}, 1),
		post:        newPost(config.Seed),
		earlier:     earlier{states: map[int64]*Server{}},
		faults:      newAPIFaults(config.Seed),
	}
	p.SetSkew(config.Skew)
	if config.Logger != nil {
		p.log = config.Logger.With().Str("component", "virtfusionsim").Logger()
	}
	return p
}

// What a generator is for. Each has one of its own, so that a fault more or less
// changes nothing else.
const (
	forState = 0x5eed + iota
	forFates
	forOrders
	forAnswers
)

// seeded returns a generator whose sequence the seed and its purpose fix.
func seeded(seed, purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, purpose)) //nolint:gosec // G404: a simulation must be repeatable, and guards nothing
}

// AddUser adds a user and returns it. An ID of 0 gets the next one; an ID that
// exists is replaced.
func (p *Panel) AddUser(user User) User {
	p.mu.Lock()
	defer p.mu.Unlock()
	user.ID = assign(user.ID, &p.lastUser)
	if user.Name == "" {
		user.Name = fmt.Sprintf("Customer %d", user.ID)
	}
	p.users[user.ID] = user
	return user
}

// AddPackage adds a package and returns it; ids as with AddUser.
func (p *Panel) AddPackage(plan Package) Package {
	p.mu.Lock()
	defer p.mu.Unlock()
	plan.ID = assign(plan.ID, &p.lastPackage)
	p.packages[plan.ID] = plan
	return plan
}

// AddHypervisor adds a hypervisor and returns it; ids as with AddUser.
func (p *Panel) AddHypervisor(host Hypervisor) Hypervisor {
	p.mu.Lock()
	defer p.mu.Unlock()
	host.ID = assign(host.ID, &p.lastHost)
	p.hypervisors[host.ID] = host
	return host
}

// assign returns id, or the number after the last one when id is 0.
func assign(id int64, last *int64) int64 {
	if id == 0 {
		id = *last + 1
	}
	*last = max(*last, id)
	return id
}

// Servers returns all servers by id.
func (p *Panel) Servers() []Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Server, p.servers.size())
	for i, server := range p.servers.ordered {
		all[i] = server.copy()
	}
	return all
}

// Server returns one server, or [ErrUnknown].
func (p *Panel) Server(id int64) (Server, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	server, err := p.server(id)
	if err != nil {
		return Server{}, err
	}
	return server.copy(), nil
}

// Users returns all users by id.
func (p *Panel) Users() []User {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sortedByID(p.users)
}

// Packages returns all packages by id.
func (p *Panel) Packages() []Package {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sortedByID(p.packages)
}

// Credits returns every credit call that was carried out, oldest first.
func (p *Panel) Credits() []Credit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.credits)
}

// has tells whether there is such a server.
func (p *Panel) has(id int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.servers.get(id)
	return ok
}

// server finds a server; the caller holds mu.
func (p *Panel) server(id int64) (*Server, error) {
	server, ok := p.servers.get(id)
	if !ok {
		return nil, fmt.Errorf("server %d: %w", id, ErrUnknown)
	}
	return server, nil
}

// sortedByID lists a map's values in the order of their keys.
func sortedByID[T any](of map[int64]T) []T {
	ids := make([]int64, 0, len(of))
	for id := range of {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	all := make([]T, len(ids))
	for i, id := range ids {
		all[i] = of[id]
	}
	return all
}
