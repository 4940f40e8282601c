package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"serversync/api"
)

func statusCommand() *cli.Command {
	all := adminSettings()
	return &cli.Command{
		Name:  "status",
		Usage: "say how everything stands: coverage, the last sweep, what waits",
		Description: "Asks the running service, as explain does. With --user, for one user of SkyPANEL's: how many servers there are, and\n" +
			"how many of them are in step.",
		Flags: adminFlags(all,
			&cli.StringFlag{Name: "user", Usage: "only this user: SkyPANEL's users.id", Sources: cli.EnvVars("STATUS_USER")},
			&cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: cli.EnvVars("STATUS_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if user := cmd.String("user"); user != "" {
				return userStatus(ctx, cmd, all, user)
			}
			client, err := newAdminClient(cmd, all)
			if err != nil {
				return err
			}
			var o api.Overview
			if err := client.call(ctx, http.MethodGet, "/api/admin/overview", nil, &o); err != nil {
				return err
			}
			if cmd.Bool("json") {
				return printJSON(cmd.Root().Writer, o)
			}
			return tellOverview(&o, time.Now()).print(cmd.Root().Writer)
		},
	}
}

func userStatus(ctx context.Context, cmd *cli.Command, all []setting, user string) error {
	id, err := userID(user)
	if err != nil {
		return err
	}
	client, err := newAdminClient(cmd, all)
	if err != nil {
		return err
	}
	var s api.UserStatus
	if err := client.call(ctx, http.MethodGet, fmt.Sprintf("/api/admin/users/%d/servers/sync/status", id), nil, &s); err != nil {
		return err
	}
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, s)
	}
	var p page
	p.linef("User %d has %s, %d in step with the books, %d made outside SkyPANEL.", id, counted(s.TotalServers, "server"), s.SyncedServers, s.ExternalServers)
	p.linef("%s of theirs.", counted(s.BillingRecords, "billing record"))
	if s.LastSync == nil {
		p.linef("Never synchronized: serversync sweep --user %d", id)
	} else {
		p.linef("Last synchronized %s ago, at %s.", age(*s.LastSync, time.Now()), clock(*s.LastSync))
	}
	return p.print(cmd.Root().Writer)
}

// tellOverview writes how everything stands, in plain words.
func tellOverview(o *api.Overview, now time.Time) *page {
	var p page
	tellCoverage(&p, &o.Coverage)
	if o.AwaitingApproval > 0 {
		p.linef("  of which %d await approval", o.AwaitingApproval)
	}
	r := &o.Revenue.RecordedMonthly
	p.linef("Recorded      %s a month, of which SkyPANEL charges %s (whole tokens an hour)", r.List, r.Effective)
	p.linef("Last sweep    %s", lastSweep(o, now))
	for i := range o.Waiting {
		w := &o.Waiting[i]
		p.linef("Waiting       %s (%s), since %s: serversync sweep --approve %s", runKind(w), w.ID, clock(w.StartedAt), w.ID)
	}
	p.linef("Queue         %s", waiting(o.Lag, "event"))
	p.linef("Dead letters  %s", waiting(o.DeadLetters, "event"))
	if o.UnclearCharges > 0 {
		p.linef("Unclear       %s, of which nobody knows whether the credit was taken: look at them in the control room, First charges", counted(o.UnclearCharges, "first charge"))
	}
	if !o.Sweeping {
		p.linef("No process with the role sweep is running: nothing is swept. Start serversync serve with that role.")
	}
	return &p
}

// tellCoverage writes parts that add up to the first line.
func tellCoverage(p *page, c *api.Coverage) {
	width := len(strconv.FormatInt(c.Total, 10))
	part := func(n int64, what string) { p.linef("  %*d  %s", width, n, what) }
	p.linef("Servers       %d", c.Total)
	part(c.On, "external: billed by a row of ours")
	for _, reason := range slices.Sorted(maps.Keys(c.Off)) {
		part(c.Off[reason], "external, not billed: "+reason)
	}
	part(c.Native, "native: SkyPANEL made them")
	part(c.Unlinked, "unlinked: their owner is nobody in SkyPANEL")
	part(c.Conflict, "conflict: the evidence disagrees, a person must look")
	part(c.Settling, "settling: SkyPANEL's own row may still come")
}

func lastSweep(o *api.Overview, now time.Time) string {
	s := o.LastSweep
	if s == nil {
		return "never: serversync sweep begins one"
	}
	words := fmt.Sprintf("%s (%s)", stateWords(s.State), s.ID)
	if s.EndedAt != nil {
		words += fmt.Sprintf(", ended %s ago, at %s", age(*s.EndedAt, now), clock(*s.EndedAt))
	} else {
		words += fmt.Sprintf(", begun %s ago, at %s", age(s.StartedAt, now), clock(s.StartedAt))
	}
	if s.State == "running" {
		words += "; " + progressWords(s, 0)
	}
	return words
}

// age is how long ago something was, in full units.
func age(then, now time.Time) string {
	passed := max(now.Sub(then), 0)
	hours, minutes := int64(passed/time.Hour), int64(passed/time.Minute)
	switch {
	case minutes == 0:
		return passed.Truncate(time.Second).String()
	case hours == 0:
		return counted(minutes, "minute")
	case hours < 48:
		return fmt.Sprintf("%dh%02dm", hours, minutes%60)
	}
	return counted(hours/24, "day")
}

func waiting(n *int64, what string) string {
	switch {
	case n == nil:
		return "unknown: see the service's log"
	case *n == 0:
		return "empty"
	default:
		return counted(*n, what)
	}
}
