package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"serversync/api"
)

// tellRun writes what a run saw and did, in plain words; customers are those of its
// preview that are to be shown, nil: none.
func tellRun(run *api.Run, customers *api.PreviewCustomers) *page {
	var p page
	p.linef("%s", runTitle(run))
	if run.Note != "" {
		p.linef("  %-9s %s", "", run.Note)
	}
	tellSeen(&p, run)
	if run.Expected > 0 && !run.DryRun {
		p.linef("  %-9s %s", "became", runCounts(run))
	}
	if len(run.Problems) > 0 {
		p.blank()
		if run.Undoes != nil {
			p.linef("What is left:")
		} else {
			p.linef("What it could not see or do:")
		}
	}
	for i := range run.Problems {
		p.linef("  %s", problemWords(&run.Problems[i]))
	}
	if left := run.Failed - failedAmong(run.Problems); left > 0 {
		p.linef("  and %s more that failed", counted(left, "server"))
	}
	if run.Preview != nil {
		p.blank()
		tellPreview(&p, run)
		tellCustomers(&p, customers)
	}
	tellNext(&p, run)
	return &p
}

func runTitle(run *api.Run) string {
	title := runKind(run)
	if run.DryRun {
		title += ", a dry run"
	}
	took := ""
	if run.EndedAt != nil {
		took = fmt.Sprintf(" after %s", run.EndedAt.Sub(run.StartedAt).Round(100*time.Millisecond))
	}
	return fmt.Sprintf("%s (%s): %s%s", title, run.ID, stateWords(run.State), took)
}

func runKind(run *api.Run) string {
	kind := strings.ToUpper(run.Kind[:min(1, len(run.Kind))]) + run.Kind[min(1, len(run.Kind)):]
	if run.UserID != nil {
		return fmt.Sprintf("%s of user %d", kind, *run.UserID)
	}
	return kind
}

func stateWords(state string) string {
	if state == "needs_approval" {
		return "waits for approval"
	}
	return state
}

// tellSeen says what was looked at.
func tellSeen(p *page, run *api.Run) {
	g := &run.Progress
	if u := run.Undoes; u != nil {
		what := "what was done"
		switch {
		case u.RunID != nil:
			what = "run " + *u.RunID
		case u.ServerID != nil && u.At != nil:
			what = fmt.Sprintf("the change of server %d at %s", *u.ServerID, u.At.UTC().Format("2006-01-02 15:04:05 UTC"))
		}
		p.linef("  %-9s %s, which concerned %s", "takes back", what, counted(g.Listed, "server"))
		return
	}
	seen := counted(g.Listed, "server")
	if run.UserID == nil && g.Total > 0 {
		seen += fmt.Sprintf(" of VirtFusion's %d", g.Total)
	}
	if g.Pages > 0 {
		seen += fmt.Sprintf(", on %s", counted(g.Pages, "page"))
	}
	if g.Rescans > 0 {
		seen += fmt.Sprintf(" (%d read again, because servers came or went)", g.Rescans)
	}
	if g.Calls > 0 {
		seen += fmt.Sprintf("; %s", counted(g.Calls, "API call"))
	}
	p.linef("  %-9s %s", "seen", seen)
	found := fmt.Sprintf("%s from what was known", countedVerb(g.Drift, "server", "differs", "differ"))
	if g.Missing > 0 {
		found += fmt.Sprintf(", %d known ones were not listed", g.Missing)
	}
	p.linef("  %-9s %s", "found", found)
}

// runCounts are a run's totals, but for what is none.
func runCounts(run *api.Run) string {
	var parts []string
	for _, part := range []struct {
		n    int64
		what string
	}{
		{run.New, "new"},
		{run.Updated, "updated"},
		{run.Unchanged - run.Settling, "unchanged"},
		{run.Settling, "settling (SkyPANEL's own row may still come)"},
		{run.Failed, "failed"},
		{run.Held, "waiting for approval"},
		{run.Expected - run.Processed - run.Held, "not come to"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	return strings.Join(parts, ", ")
}

func problemWords(problem *api.Problem) string {
	words := problem.Code + ": " + cmp.Or(problem.Message, "nobody said why")
	if problem.ServerID != nil {
		words = fmt.Sprintf("server %d: %s; its story: serversync explain %d", *problem.ServerID, words, *problem.ServerID)
	}
	return words
}

func failedAmong(problems []api.Problem) (n int64) {
	for i := range problems {
		if problems[i].Code == "server_failed" {
			n++
		}
	}
	return n
}

// tellPreview says what a run would change, or would have to.
func tellPreview(p *page, run *api.Run) {
	v := run.Preview
	if changes(v) == 0 {
		p.linef("Nothing in the books changes by it.")
		return
	}
	what := "What its findings change"
	if run.Undoes != nil {
		what = "What taking it back changes"
	}
	p.linef("%s in the books, for %s:", what, counted(v.Customers, "customer"))
	create := counted(v.Create, "billing row")
	if v.CreateOff > 0 {
		create += fmt.Sprintf(", %d of them not billed (%s)", v.CreateOff, reasons(v.Off))
	}
	p.linef("  %-9s %s", "create", create)
	p.linef("  %-9s %d change, %d move to another owner, %d end, %d stay as they are", "others", v.Change, v.Move, v.End, v.None)
	if words := rowWords(&v.Rows); words != "" {
		p.linef("  %-9s %s", "rows", words)
	}
	if v.Missing > 0 {
		p.linef("  %-9s %d of those that end were not in VirtFusion's list; they are asked for by their ids first", "missing", v.Missing)
	}
	if v.FirstCharges > 0 {
		fate := "are recorded as pending; nobody collects them"
		if v.Collected {
			fate = "are taken from the customers' credit in VirtFusion"
		}
		p.linef("  %-9s %s of %s in all %s", "at once", counted(v.FirstCharges, "first charge"), v.FirstChargeAmount, fate)
	}
	if v.BackBilled != "" && v.BackBilled != "0.00" {
		p.linef("  %-9s %s is charged at once for the time before (BILLING_START=creation)", "before", v.BackBilled)
	}
	p.linef("  %-9s %s by the prices, %s as it is charged: SkyPANEL charges each hour in whole tokens (cents), rounded", "a month", signed(v.ListMonthly), signed(v.EffectiveMonthly))
	if v.Rows != (api.RowChanges{}) {
		p.linef("  %-9s %s → %s as it is charged for what changes, %s → %s by the prices", "", v.EffectiveBefore, v.EffectiveAfter, v.ListBefore, v.ListAfter)
	}
	if len(v.Largest) > 0 {
		p.linef("The largest changes, by month:")
	}
	for i := range v.Largest {
		tellEffect(p, &v.Largest[i])
	}
}

// changes are how many servers' billing changes, or may.
func changes(v *api.Preview) int64 { return v.Create + v.Change + v.Move + v.End }

func tellEffect(p *page, e *api.Effect) {
	owner := "nobody in SkyPANEL"
	if e.UserID != nil {
		owner = fmt.Sprintf("user %d", *e.UserID)
	}
	billing := "billing " + e.Billing
	if e.BillingReason != nil {
		billing += " (" + *e.BillingReason + ")"
	}
	p.linef("  server %d %s of %s: %s, %s, %s → %s (charged %s → %s)", e.ServerID, strconv.Quote(e.Name), owner, e.Effect, billing,
		e.ListBefore, e.ListAfter, e.EffectiveBefore, e.EffectiveAfter)
	if e.Why != "" {
		p.linef("    %s", e.Why)
	}
}

// tellNext says what a person may do now.
func tellNext(p *page, run *api.Run) {
	v := run.Preview
	switch {
	case run.State == "superseded" && run.SupersededBy != nil:
		p.blank()
		p.linef("Run %s took over what it found: serversync sweep --watch %s", *run.SupersededBy, *run.SupersededBy)
	case run.State == "needs_approval" && !run.DryRun:
		p.blank()
		if v != nil && v.Asks != nil {
			p.linef("It waits for approval: %s.", strings.TrimRight(*v.Asks, "."))
		}
		if v != nil {
			tellDifference(p, v.Differs)
		}
		mark := ""
		if v != nil && v.Mark != nil {
			mark = " --preview " + *v.Mark
		}
		p.linef("To let it be done: serversync sweep --approve %s%s", run.ID, mark)
	case run.DryRun && v != nil && v.Asks != nil:
		p.blank()
		p.linef("A run that is no dry run would wait for approval: %s.", strings.TrimRight(*v.Asks, "."))
	case run.DryRun && v != nil && changes(v) > 0:
		p.blank()
		p.linef("Nothing was changed. Without --dry-run it would be done.")
	}
}

// reasons spells counts by reason.
func reasons(counts map[string]int64) string {
	parts := make([]string, 0, len(counts))
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[reason], reason))
	}
	return strings.Join(parts, ", ")
}

func signed(amount string) string {
	if strings.HasPrefix(amount, "-") {
		return amount
	}
	return "+" + amount
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func countedVerb(n int64, what, one, many string) string {
	if n == 1 {
		return counted(n, what) + " " + one
	}
	return counted(n, what) + " " + many
}
