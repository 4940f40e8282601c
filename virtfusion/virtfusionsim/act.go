package virtfusionsim

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// act does the action to a server of its choice; the caller holds f.mu.
func (f *Fleet) act(action Action) (Step, error) {
	if action == ActionCreate {
		return f.create()
	}
	id := pick(f.random, f.servers)
	if action == ActionBuild {
		id = f.queued[0]
		f.queued = f.queued[1:]
	}
	before, err := f.panel.Server(id)
	if err != nil {
		return Step{}, errVanished
	}
	var (
		after  Server
		detail string
	)
	switch action {
	case ActionBuild, ActionRebuild:
		after, err = f.panel.Build(id)
	case ActionRename:
		name := hostName(f.random)
		after, err = f.panel.Rename(id, name, name+".example.net")
		detail = "to " + name
	case ActionSuspend, ActionUnsuspend:
		if before.Suspended {
			action = ActionUnsuspend
			after, err = f.panel.Unsuspend(id)
		} else {
			action = ActionSuspend
			after, err = f.panel.Suspend(id)
		}
	case ActionMove:
		after, err = f.panel.Move(id, f.other(f.config.Owners, before.OwnerID))
		detail = fmt.Sprintf("from user %d to user %d", before.OwnerID, after.OwnerID)
	case ActionSetPackage:
		after, err = f.panel.SetPackage(id, f.other(f.plans(), before.PackageID))
		detail = fmt.Sprintf("from package %d to %d", before.PackageID, after.PackageID)
	case ActionDestroy:
		after, err = f.panel.Destroy(id)
		f.servers = slices.DeleteFunc(f.servers, func(other int64) bool { return other == id })
	case ActionCreate: // above
	}
	if err != nil {
		if !f.panel.has(id) {
			err = errVanished
		}
		return Step{}, err
	}
	return Step{Action: action, Server: after, Line: line(action, before, detail)}, nil
}

// create orders a server; the next step builds it.
func (f *Fleet) create() (Step, error) {
	server, err := f.panel.CreateServer(f.order())
	if err != nil {
		return Step{}, err
	}
	f.servers = append(f.servers, server.ID)
	f.queued = append(f.queued, server.ID)
	detail := fmt.Sprintf("for user %d, package %d, %s", server.OwnerID, server.PackageID, server.IPv4[0])
	return Step{Action: ActionCreate, Server: server, Line: line(ActionCreate, server, detail)}, nil
}

// order is what a customer of the fleet orders next.
func (f *Fleet) order() CreateArgs {
	name := hostName(f.random)
	args := CreateArgs{
		OwnerID:  pick(f.random, f.config.Owners),
		Name:     name,
		Hostname: name + ".example.net",
		ByHand:   f.random.IntN(3) == 0,
	}
	if plans := f.plans(); len(plans) > 0 {
		args.PackageID = pick(f.random, plans)
	}
	return args
}

// plans are the packages that can be ordered.
func (f *Fleet) plans() []int64 {
	var ids []int64
	for _, plan := range f.panel.Packages() {
		if !plan.Disabled {
			ids = append(ids, plan.ID)
		}
	}
	return ids
}

// other picks one that is not current, where there is one.
func (f *Fleet) other(from []int64, current int64) int64 {
	rest := slices.DeleteFunc(slices.Clone(from), func(id int64) bool { return id == current })
	if len(rest) == 0 {
		return current
	}
	return pick(f.random, rest)
}

// line says what happened.
func line(action Action, server Server, detail string) string {
	words := fmt.Sprintf("%-9s server %d %q", action, server.ID, server.Name)
	if detail != "" {
		words += " " + detail
	}
	return words
}

// hostName is a name such as customers give.
func hostName(random *rand.Rand) string {
	roles := [...]string{"web", "db", "mail", "cache", "api", "git", "vpn", "backup", "build", "shop", "game", "monitor", "queue", "proxy", "dev", "staging"}
	places := [...]string{"fra", "ams", "lon", "nyc", "sjc", "sin", "syd", "par"}
	return fmt.Sprintf("%s-%s-%02d", roles[random.IntN(len(roles))], places[random.IntN(len(places))], 1+random.IntN(99))
}

// pick picks one; from must not be empty.
func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }
