package virtfusionsim

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Names of the events that the documentation does not list but the contract
// foresees ("the other server.* events").
const (
	eventCreate    = "server.create"
	eventDestroy   = "server.destroy"
	eventBuild     = "server.build"
	eventUpdate    = "server.update"
	eventSuspend   = "server.suspend"
	eventUnsuspend = "server.unsuspend"
	eventMove      = "server.owner"
	eventPackage   = "server.package"
)

const (
	statusSuccess = "success"
	statusFail    = "fail"
)

// CreateArgs says what to create. OwnerID must exist; everything else may be
// zero.
type CreateArgs struct {
	// ID 0: the next one. It must not exist.
	ID      int64
	OwnerID int64
	// PackageID 0: the server has no package, and small default resources.
	PackageID int64
	// HypervisorID 0: the first one, if there is any.
	HypervisorID int64
	Name         string
	// Hostname; empty: none (null on the wire).
	Hostname string
	// UUID; empty: a random one.
	UUID        string
	SelfService int64
	// ByHand: created in VirtFusion's own pages and not through its API, so
	// that the webhook's args are an empty list.
	ByHand bool
	// Built: the server is born built and running, as one that existed before
	// we looked. Otherwise it is queued until Build.
	Built bool
	// Silent: no webhook tells of it.
	Silent bool
	// Created backdates the server; zero: now.
	Created time.Time
}

// CreateServer creates a server and reports server.create.
func (p *Panel) CreateServer(args CreateArgs) (Server, error) {
	p.emitting.Lock()
	defer p.emitting.Unlock()
	return p.change(args.Silent, func(now time.Time) (*Server, event, error) {
		server, err := p.newServer(args, now)
		if err != nil {
			return nil, event{}, err
		}
		p.servers.put(server.ID, server)
		return server, event{name: eventCreate, status: statusSuccess, args: &args}, nil
	})
}

// FailCreate reports a server.create that failed and left no server behind:
// its server is false.
func (p *Panel) FailCreate(args CreateArgs) error {
	p.emitting.Lock()
	defer p.emitting.Unlock()
	_, err := p.change(args.Silent, func(time.Time) (*Server, event, error) {
		if _, ok := p.users[args.OwnerID]; !ok {
			return nil, event{}, fmt.Errorf("user %d: %w", args.OwnerID, ErrUnknown)
		}
		return nil, event{name: eventCreate, status: statusFail, args: &args}, nil
	})
	return err
}

// Build commissions a queued server, or builds another one again, and reports
// server.build.
func (p *Panel) Build(id int64) (Server, error) {
	return p.update(id, eventBuild, statusSuccess, func(s *Server, now time.Time) error {
		s.State, s.CommissionStatus, s.Built = "running", 3, now
		s.Rebuild, s.BuildFailed = false, false
		return nil
	})
}

// Rebuild builds a server again and reports server.build. Its UUID stays.
func (p *Panel) Rebuild(id int64) (Server, error) { return p.Build(id) }

// FailBuild reports a server.build that failed; the server is still there.
func (p *Panel) FailBuild(id int64) (Server, error) {
	return p.update(id, eventBuild, statusFail, func(s *Server, _ time.Time) error {
		s.State, s.BuildFailed = "failed", true
		return nil
	})
}

// Rename gives a server a new name and hostname.
func (p *Panel) Rename(id int64, name, hostname string) (Server, error) {
	return p.update(id, eventUpdate, statusSuccess, func(s *Server, _ time.Time) error {
		s.Name, s.Hostname = name, hostname
		return nil
	})
}

// Suspend suspends a server.
func (p *Panel) Suspend(id int64) (Server, error) {
	return p.update(id, eventSuspend, statusSuccess, func(s *Server, _ time.Time) error {
		s.Suspended, s.State = true, "stopped"
		return nil
	})
}

// Unsuspend ends a suspension.
func (p *Panel) Unsuspend(id int64) (Server, error) {
	return p.update(id, eventUnsuspend, statusSuccess, func(s *Server, _ time.Time) error {
		s.Suspended, s.State = false, "running"
		return nil
	})
}

// Move gives a server to another user.
func (p *Panel) Move(id, newOwner int64) (Server, error) {
	return p.update(id, eventMove, statusSuccess, func(s *Server, _ time.Time) error {
		if _, ok := p.users[newOwner]; !ok {
			return fmt.Errorf("user %d: %w", newOwner, ErrUnknown)
		}
		s.OwnerID = newOwner
		return nil
	})
}

// SetPackage changes a server's package, and its resources with it.
func (p *Panel) SetPackage(id, packageID int64) (Server, error) {
	return p.update(id, eventPackage, statusSuccess, func(s *Server, _ time.Time) error {
		plan, ok := p.packages[packageID]
		if !ok {
			return fmt.Errorf("package %d: %w", packageID, ErrUnknown)
		}
		s.apply(plan)
		return nil
	})
}

// Destroy removes a server; server.destroy still describes it.
func (p *Panel) Destroy(id int64) (Server, error) {
	p.emitting.Lock()
	defer p.emitting.Unlock()
	return p.change(false, func(now time.Time) (*Server, event, error) {
		server, err := p.server(id)
		if err != nil {
			return nil, event{}, err
		}
		p.earlier.keepGone(server.copy())
		server.Updated = now
		p.servers.drop(id)
		return server, event{name: eventDestroy, status: statusSuccess}, nil
	})
}

// DestroySilently removes a server, and no webhook tells of it.
func (p *Panel) DestroySilently(id int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	server, err := p.server(id)
	if err != nil {
		return err
	}
	p.earlier.keepGone(server.copy())
	p.servers.drop(id)
	return nil
}

// FailDestroy reports a server.destroy that failed; the server is still there.
func (p *Panel) FailDestroy(id int64) (Server, error) {
	return p.update(id, eventDestroy, statusFail, func(*Server, time.Time) error { return nil })
}

// update changes one server and reports it.
func (p *Panel) update(id int64, name, status string, change func(*Server, time.Time) error) (Server, error) {
	p.emitting.Lock()
	defer p.emitting.Unlock()
	return p.change(false, func(now time.Time) (*Server, event, error) {
		server, err := p.server(id)
		if err != nil {
			return nil, event{}, err
		}
		was := server.copy()
		if err := change(server, now); err != nil {
			return nil, event{}, err
		}
		p.earlier.keep(was)
		server.Updated = now
		return server, event{name: name, status: status}, nil
	})
}

// newServer makes a server; the caller holds mu.
func (p *Panel) newServer(args CreateArgs, now time.Time) (*Server, error) {
	if _, ok := p.users[args.OwnerID]; !ok {
		return nil, fmt.Errorf("user %d: %w", args.OwnerID, ErrUnknown)
	}
	if _, ok := p.servers.get(args.ID); ok {
		return nil, fmt.Errorf("server %d exists", args.ID)
	}
	plan, ok := p.packages[args.PackageID]
	if !ok && args.PackageID != 0 {
		return nil, fmt.Errorf("package %d: %w", args.PackageID, ErrUnknown)
	}
	if !ok {
		plan = Package{MemoryMB: 1024, StorageGB: 20, TrafficGB: 1000, CPUCores: 1}
	}
	host := args.HypervisorID
	if hosts := sortedByID(p.hypervisors); host == 0 && len(hosts) > 0 {
		host = hosts[0].ID
	}
	created := now
	if !args.Created.IsZero() {
		created = args.Created.UTC().Truncate(time.Second)
	}
	server := &Server{
		ID:           assign(args.ID, &p.lastServer),
		UUID:         args.UUID,
		OwnerID:      args.OwnerID,
		Name:         args.Name,
		Hostname:     args.Hostname,
		State:        "queued",
		SelfService:  args.SelfService,
		HypervisorID: host,
		Created:      created,
		Updated:      created,
	}
	if server.UUID == "" {
		server.UUID = p.newUUID()
	}
	if server.Name == "" {
		server.Name = fmt.Sprintf("server-%d", server.ID)
	}
	server.apply(plan)
	server.IPv4, server.IPv6 = p.newAddresses()
	if args.Built {
		server.State, server.CommissionStatus, server.Built = "running", 3, created
	}
	return server, nil
}

// apply gives the server a package and its resources.
func (s *Server) apply(plan Package) {
	s.PackageID = plan.ID
	s.MemoryMB, s.StorageGB, s.TrafficGB, s.CPUCores = plan.MemoryMB, plan.StorageGB, plan.TrafficGB, plan.CPUCores
}

// newUUID returns a random UUID, version 4; the caller holds mu.
func (p *Panel) newUUID() string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], p.random.Uint64())
	binary.BigEndian.PutUint64(raw[8:], p.random.Uint64())
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}

// newAddresses returns the next addresses of the ranges kept for documentation.
// IPv4 starts over after 762 servers; IPv6 subnets do not repeat. The caller
// holds mu.
func (p *Panel) newAddresses() (v4 []string, v6 string) {
	n := p.nextIP
	p.nextIP++
	ranges := [...][4]byte{{192, 0, 2}, {198, 51, 100}, {203, 0, 113}}
	address := ranges[n/254%3]
	address[3] = byte(n%254) + 1
	subnet := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint32(subnet[4:], n+1)
	return []string{netip.AddrFrom4(address).String()}, netip.AddrFrom16(subnet).String()
}
