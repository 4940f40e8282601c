package virtfusionsim_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"serversync/virtfusion/virtfusionsim"
)

func live(t *testing.T, config virtfusionsim.FleetConfig) (*virtfusionsim.Panel, *virtfusionsim.Fleet) {
	t.Helper()
	panel := populated(virtfusionsim.Config{Seed: config.Seed, Clock: func() time.Time { return epoch() }})
	fleet, err := virtfusionsim.NewFleet(panel, config)
	if err != nil {
		t.Fatal(err)
	}
	return panel, fleet
}

func TestFleetIsFixedByItsSeed(t *testing.T) {
	t.Parallel()
	life := func(seed uint64) []virtfusionsim.Step {
		_, fleet := live(t, virtfusionsim.FleetConfig{Seed: seed})
		var steps []virtfusionsim.Step
		for range 200 {
			steps = append(steps, must[virtfusionsim.Step](t)(fleet.Step()))
		}
		return steps
	}
	first := life(1)
	if diff := cmp.Diff(first, life(1)); diff != "" {
		t.Errorf("the same seed gave another life:\n%s", diff)
	}
	if cmp.Equal(first, life(2)) {
		t.Error("another seed gave the same life")
	}
}

func TestFleetLivesWithinItsBounds(t *testing.T) {
	t.Parallel()
	panel, fleet := live(t, virtfusionsim.FleetConfig{Seed: 3, Size: 10, Min: 8, Max: 13})
	seen := map[virtfusionsim.Action]int{}
	for range 3000 {
		step := must[virtfusionsim.Step](t)(fleet.Step())
		seen[step.Action]++
		if size := fleet.Size(); size < 8 || size > 13 || size != len(panel.Servers()) {
			t.Fatalf("step %d: %d servers in the fleet, %d in the panel", step.Number, size, len(panel.Servers()))
		}
		if !strings.HasPrefix(step.Line, string(step.Action)) || strings.Contains(step.Line, "sim-secret") {
			t.Fatalf("%s: %q", step.Action, step.Line)
		}
	}
	for _, action := range []virtfusionsim.Action{
		virtfusionsim.ActionCreate, virtfusionsim.ActionBuild, virtfusionsim.ActionRebuild, virtfusionsim.ActionRename,
		virtfusionsim.ActionSuspend, virtfusionsim.ActionUnsuspend, virtfusionsim.ActionMove, virtfusionsim.ActionSetPackage, virtfusionsim.ActionDestroy,
	} {
		if seen[action] < 20 {
			t.Errorf("%s happened %d times in 3000", action, seen[action])
		}
	}
}

func TestFleetUsesAddressesForDocumentation(t *testing.T) {
	t.Parallel()
	panel, _ := live(t, virtfusionsim.FleetConfig{Size: 800})
	var allowed []netip.Prefix
	for _, prefix := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"} {
		allowed = append(allowed, netip.MustParsePrefix(prefix))
	}
	subnets := map[string]bool{}
	for _, server := range panel.Servers() {
		subnets[server.IPv6] = true
		for _, written := range append(server.IPv4, server.IPv6) {
			address := netip.MustParseAddr(written)
			if !slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(address) }) {
				t.Errorf("server %d: %s", server.ID, address)
			}
		}
	}
	if len(subnets) != 800 {
		t.Errorf("%d IPv6 subnets for 800 servers", len(subnets))
	}
}

func TestFleetForgetsWhatOthersDestroy(t *testing.T) {
	t.Parallel()
	panel, fleet := live(t, virtfusionsim.FleetConfig{Size: 4})
	for _, server := range panel.Servers() {
		if err := panel.DestroySilently(server.ID); err != nil {
			t.Fatal(err)
		}
	}
	if step := must[virtfusionsim.Step](t)(fleet.Step()); step.Action != virtfusionsim.ActionCreate || fleet.Size() != 1 {
		t.Errorf("after the end of all: %s, %d servers", step.Line, fleet.Size())
	}
}

func TestFleetLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	panel := populated(virtfusionsim.Config{Clock: func() time.Time { return epoch() }})
	native := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, Name: "native"}))
	fleet := must[*virtfusionsim.Fleet](t)(virtfusionsim.NewFleet(panel, virtfusionsim.FleetConfig{Size: 3, Owners: []int64{2}}))
	for range 300 {
		must[virtfusionsim.Step](t)(fleet.Step())
	}
	if diff := cmp.Diff(native, must[virtfusionsim.Server](t)(panel.Server(native.ID))); diff != "" {
		t.Errorf("the other's server changed:\n%s", diff)
	}
}

func TestFleetRunsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	steps := 0
	_, fleet := live(t, virtfusionsim.FleetConfig{Rate: 1e9, OnStep: func(virtfusionsim.Step) {
		if steps++; steps == 50 {
			cancel()
		}
	}})
	if err := fleet.Run(ctx); err != nil || steps != 50 {
		t.Errorf("Run = %v after %d steps", err, steps)
	}
}

func TestFleetNeedsOwnersAndSaneBounds(t *testing.T) {
	t.Parallel()
	if _, err := virtfusionsim.NewFleet(virtfusionsim.New(virtfusionsim.Config{}), virtfusionsim.FleetConfig{}); !errors.Is(err, virtfusionsim.ErrUnknown) {
		t.Errorf("without users: %v", err)
	}
	panel := populated(virtfusionsim.Config{})
	for _, config := range []virtfusionsim.FleetConfig{{Rate: -1}, {Size: 5, Min: 6}, {Size: 5, Max: 4}, {Size: 5, Min: 5, Max: 5}} {
		if _, err := virtfusionsim.NewFleet(panel, config); err == nil {
			t.Errorf("%+v was accepted", config)
		}
	}
	bare := virtfusionsim.New(virtfusionsim.Config{})
	bare.AddUser(virtfusionsim.User{})
	fleet := must[*virtfusionsim.Fleet](t)(virtfusionsim.NewFleet(bare, virtfusionsim.FleetConfig{Size: 4}))
	for range 200 { // without packages there is nothing to change to
		must[virtfusionsim.Step](t)(fleet.Step())
	}
}
