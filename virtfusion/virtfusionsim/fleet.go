package virtfusionsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

// Defaults of [FleetConfig].
const (
	DefaultFleetRate = 1.0
	DefaultFleetSize = 20
)

// FleetConfig describes a living fleet. Its zero value is a small, calm one.
type FleetConfig struct {
	// Seed fixes what happens: the same seed and panel give the same sequence.
	Seed uint64
	// Rate is how many steps Run makes a second; 0: DefaultFleetRate.
	Rate float64
	// Size is how many servers the fleet starts with and stays near; 0:
	// DefaultFleetSize.
	Size int
	// Min and Max bound the number of servers; 0: half of Size (at least 1)
	// and twice Size.
	Min, Max int
	// Announce reports the first servers by webhook too. Otherwise they were
	// there before anyone listened.
	Announce bool
	// Owners are the VirtFusion users who own servers; none: all of the
	// panel's.
	Owners []int64
	// OnStep, when set, gets every step that Run makes.
	OnStep func(Step)
}

// Action is a thing that happens to a server.
type Action string

// What a fleet does.
const (
	ActionCreate     Action = "create"
	ActionBuild      Action = "build"
	ActionRebuild    Action = "rebuild"
	ActionRename     Action = "rename"
	ActionSuspend    Action = "suspend"
	ActionUnsuspend  Action = "unsuspend"
	ActionMove       Action = "move"
	ActionSetPackage Action = "package"
	ActionDestroy    Action = "destroy"
)

// Step is one thing that happened.
type Step struct {
	Number int
	Action Action
	// Server is the server afterwards (before its end, for destroy).
	Server Server
	// Line says it in words, without secrets.
	Line string
}

// Fleet makes a panel live. It acts only on the servers that it has created, so
// what else is in the panel stays as it is. It is safe for concurrent use; its
// sequence is repeatable only while one goroutine steps and nobody else
// creates servers.
type Fleet struct {
	panel  *Panel
	config FleetConfig

	mu      sync.Mutex
	random  *rand.Rand
	servers []int64 // those that it has created, oldest first
	queued  []int64 // those that wait for their first build
	steps   int
}

// NewFleet creates the fleet's first servers in the panel, which must have
// users.
func NewFleet(panel *Panel, config FleetConfig) (*Fleet, error) {
	config.Rate = cmp.Or(config.Rate, DefaultFleetRate)
	config.Size = cmp.Or(config.Size, DefaultFleetSize)
	config.Min = cmp.Or(config.Min, max(1, config.Size/2))
	config.Max = cmp.Or(config.Max, 2*config.Size)
	if config.Rate < 0 || config.Min < 1 || config.Min > config.Size || config.Size > config.Max || config.Min == config.Max {
		return nil, fmt.Errorf("fleet: rate %g, size %d within %d to %d: the rate must be positive, and 1 ≤ min ≤ size ≤ max with min < max",
			config.Rate, config.Size, config.Min, config.Max)
	}
	if len(config.Owners) == 0 {
		for _, user := range panel.Users() {
			config.Owners = append(config.Owners, user.ID)
		}
	}
	if len(config.Owners) == 0 {
		return nil, fmt.Errorf("fleet: no owner for its servers: %w", ErrUnknown)
	}
	f := &Fleet{panel: panel, config: config, random: seeded(config.Seed, forState)}
	for range config.Size {
		args := f.order()
		args.Built, args.Silent = true, !config.Announce
		server, err := panel.CreateServer(args)
		if err != nil {
			return nil, fmt.Errorf("fleet: first servers: %w", err)
		}
		f.servers = append(f.servers, server.ID)
	}
	return f, nil
}

// Run makes steps at the chosen rate until ctx ends, and then returns nil.
func (f *Fleet) Run(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Limit(f.config.Rate), 1)
	for {
		if err := pace.Wait(ctx); err != nil {
			if ctx.Err() == nil {
				<-ctx.Done() // the next turn would come after the deadline
			}
			return nil
		}
		step, err := f.Step()
		if err != nil {
			return err
		}
		if f.config.OnStep != nil {
			f.config.OnStep(step)
		}
	}
}

// Step makes the next thing happen. It fails when the panel has lost the users
// or packages that it needs; a server that somebody else has destroyed is
// forgotten.
func (f *Fleet) Step() (Step, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		f.forget()
		action := f.choose()
		step, err := f.act(action)
		switch {
		case errors.Is(err, errVanished):
			continue // destroyed by somebody else just now
		case err != nil:
			return Step{}, fmt.Errorf("fleet: %s: %w", action, err)
		}
		f.steps++
		step.Number = f.steps
		return step, nil
	}
}

// Size is how many servers the fleet has now.
func (f *Fleet) Size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget()
	return len(f.servers)
}

// forget drops the servers that are gone from the panel.
func (f *Fleet) forget() {
	gone := func(id int64) bool { return !f.panel.has(id) }
	f.servers = slices.DeleteFunc(f.servers, gone)
	f.queued = slices.DeleteFunc(f.queued, gone)
}

// errVanished says that somebody else destroyed the chosen server.
var errVanished = errors.New("server vanished")

// choose picks the next action. A queued server is built first; beyond the
// bounds only the way back is open; between them creations and destructions
// lean towards the chosen size.
func (f *Fleet) choose() Action {
	switch size := len(f.servers); {
	case len(f.queued) > 0:
		return ActionBuild
	case size <= f.config.Min:
		return ActionCreate
	case size >= f.config.Max:
		return ActionDestroy
	}
	const pull = 20 // how much of 100 leans towards the chosen size
	creates, destroys := 22, 22
	if len(f.servers) < f.config.Size {
		creates, destroys = creates+pull/2, destroys-pull/2
	} else if len(f.servers) > f.config.Size {
		creates, destroys = creates-pull/2, destroys+pull/2
	}
	chances := []struct {
		action Action
		weight int
	}{
		{ActionCreate, creates},
		{ActionDestroy, destroys},
		{ActionRebuild, 12},
		{ActionRename, 16},
		{ActionSuspend, 14}, // or unsuspend, when it is suspended
		{ActionMove, 6},
		{ActionSetPackage, 8},
	}
	if len(f.plans()) == 0 {
		chances = chances[:len(chances)-1] // the rest goes to rename
	}
	at := f.random.IntN(100)
	for _, chance := range chances {
		if at < chance.weight {
			return chance.action
		}
		at -= chance.weight
	}
	return ActionRename
}
