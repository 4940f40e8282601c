package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"github.com/urfave/cli/v3"

	"serversync/api"
)

func explainCommand() *cli.Command {
	all := adminSettings()
	return &cli.Command{
		Name:      "explain",
		Usage:     "tell one server's story: what was observed and decided, why, and what SkyPANEL charges",
		ArgsUsage: "SERVER",
		Description: "SERVER is a VirtFusion id or a UUID. Asks the running service at SERVERSYNC_URL, with ADMIN_TOKEN or the token\n" +
			"that the service keeps in DATA_DIR.",
		Flags: adminFlags(all, &cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: cli.EnvVars("EXPLAIN_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.Args().Len() != 1 {
				return &usageError{errors.New("explain takes one SERVER, a VirtFusion id or a UUID: see serversync explain --help")}
			}
			server, err := api.ParseServer(cmd.Args().First())
			if err != nil {
				return &usageError{err}
			}
			client, err := newAdminClient(cmd, all)
			if err != nil {
				return err
			}
			story, err := readStory(ctx, client, server)
			if err != nil {
				return err
			}
			if cmd.Bool("json") {
				return printJSON(cmd.Root().Writer, story)
			}
			return tell(&story).print(cmd.Root().Writer)
		},
	}
}

// readStory reads a timeline with its whole history, oldest first.
func readStory(ctx context.Context, client *adminClient, server api.ServerRef) (api.Timeline, error) {
	var story api.Timeline
	query := url.Values{"order": {"oldest"}, "limit": {"200"}}
	path := "/api/admin/servers/" + server.String() + "/timeline"
	if err := client.call(ctx, http.MethodGet, path, query, &story); err != nil {
		return story, err
	}
	for story.History.NextCursor != nil {
		query.Set("cursor", *story.History.NextCursor)
		var more api.Timeline
		if err := client.call(ctx, http.MethodGet, path, query, &more); err != nil {
			return story, err
		}
		story.History.Items = append(story.History.Items, more.History.Items...)
		story.History.NextCursor = more.History.NextCursor
	}
	return story, nil
}

// tell writes a story in plain words.
func tell(story *api.Timeline) *page {
	var p page
	tellServer(&p, &story.Server)
	for _, o := range story.Overrides {
		p.linef("  operator   %s, by %s at %s: %s", wish(&o), cmp.Or(o.SetBy, "somebody"), clock(o.SetAt), cmp.Or(o.Reason, "no reason given"))
	}
	p.blank()
	if len(story.BillingRows) == 0 {
		p.linef("No billing row names it: SkyPANEL charges nothing.")
	}
	for i := range story.BillingRows {
		tellRow(&p, &story.BillingRows[i])
	}
	p.blank()
	p.linef("What happened, oldest first:")
	for i := range story.History.Items {
		tellLine(&p, &story.History.Items[i])
	}
	if len(story.History.Items) == 0 {
		p.linef("  nothing that was written down")
	}
	return &p
}

func wish(o *api.Override) string {
	if o.PackageID != nil {
		return fmt.Sprintf("%s %d", o.Kind, *o.PackageID)
	}
	return o.Kind
}

func tellServer(p *page, s *api.Server) {
	p.linef("server %d %s", s.ID, strconv.Quote(s.Name))
	if s.UUID != "" {
		p.linef("  uuid       %s", s.UUID)
	}
	status := fmt.Sprintf("%s, billing %s", s.Status, s.Billing)
	if s.BillingReason != nil {
		status += " (" + *s.BillingReason + ")"
	}
	p.linef("  status     %s: %s", status, s.Note)
	if s.Status == "settling" && s.SettleUntil != nil {
		p.linef("  settles    at %s", clock(*s.SettleUntil))
	}
	if s.Ask != "" {
		p.linef("  to ask     VirtFusion is asked, because %s", s.Ask)
	}
	owner := "unknown in VirtFusion"
	if s.Owner != 0 {
		owner = fmt.Sprintf("VirtFusion user %d", s.Owner)
	}
	if s.UserID != nil {
		owner += fmt.Sprintf(", SkyPANEL user %d", *s.UserID)
	} else {
		owner += ", nobody in SkyPANEL"
	}
	p.linef("  owner      %s", owner)
	p.linef("  package    %s", packageWords(s.Package))
	p.linef("  addresses  %s", cmp.Or(strings.Join(s.IPAddresses, ", "), "none"))
	p.linef("  virtfusion state %s, created %s, changed %s", cmp.Or(s.State, "unknown"), when(s.CreatedAt), when(s.UpdatedAt))
	p.linef("  seen       first %s, last %s; the newest observation is of %s, by %s",
		clock(s.FirstSeenAt), clock(s.LastSeenAt), clock(s.ObservedAt), s.ObservedSource)
}

func packageWords(p *api.Package) string {
	switch {
	case p == nil:
		return "VirtFusion does not say"
	case p.MonthlyPrice == nil:
		return fmt.Sprintf("%d, for which SkyPANEL has no price", p.ID)
	case p.Name == nil:
		return fmt.Sprintf("%d, list price %s a month", p.ID, *p.MonthlyPrice)
	}
	return fmt.Sprintf("%d %s, list price %s a month", p.ID, *p.Name, *p.MonthlyPrice)
}

func tellRow(p *page, r *api.BillingRow) {
	whose, state := "SkyPANEL's", "off"
	if r.MadeBy == "serversync" {
		whose = "ours"
	}
	if r.Enabled {
		state = "on"
	}
	if r.ClosedReason != nil {
		state += ", closed by us: " + *r.ClosedReason
	}
	price := r.MonthlyPrice + " a month"
	list, err := decimal.NewFromString(r.MonthlyPrice)
	charged, errCharged := decimal.NewFromString(r.NextCharge.EffectiveMonthly)
	if err == nil && errCharged == nil && !charged.Equal(list) {
		price += " (" + r.NextCharge.EffectiveMonthly + " as charged)"
	}
	p.linef("billing row %d (%s, %s): user %d, %s, %s, %s an hour", r.ID, whose, state, r.UserID, r.PackageName, price, r.HourlyRate)
	p.linef("  billed until %s", when(r.LastBilledAt))
	p.linef("  next       %s", r.NextCharge.Words)
	for _, c := range r.Charges {
		p.linef("  charge %d  %s from %s until %s, %s%s", c.ID, orElse(c.Amount, "no amount"), when(c.From), when(c.Until), c.Status, ledger(c.TransactionID))
	}
	if left := r.ChargesInAll - int64(len(r.Charges)); left > 0 {
		p.linef("  and %d older charges", left)
	}
}

func ledger(transaction *int64) string {
	if transaction == nil {
		return ""
	}
	return fmt.Sprintf(", transaction %d", *transaction)
}

func tellLine(p *page, l *api.HistoryLine) {
	p.linef("%s  %s: %s", clock(l.At), l.Kind, l.Reason)
	var from []string
	if l.BillingID != nil && strings.HasPrefix(l.Kind, "billing_") {
		from = append(from, fmt.Sprintf("billing row %d", *l.BillingID))
	}
	from = append(from, "by "+cmp.Or(l.Source, "nobody known"))
	if l.EventID != nil {
		from = append(from, "event "+*l.EventID)
	}
	if l.RunID != nil {
		from = append(from, "run "+*l.RunID)
	}
	p.linef("    %s", strings.Join(from, ", "))
	before, after := fields(l.Before), fields(l.After)
	for _, name := range slices.Sorted(maps.Keys(union(before, after))) {
		switch was, is := value(before[name]), value(after[name]); {
		case len(before) == 0:
			p.linef("    %s: %s", name, is)
		case len(after) == 0:
			p.linef("    %s was %s", name, was)
		default:
			p.linef("    %s: %s → %s", name, was, is)
		}
	}
}

func fields(object json.RawMessage) map[string]json.RawMessage {
	var f map[string]json.RawMessage
	_ = json.Unmarshal(object, &f) // what is no object has no fields
	return f
}

func union(a, b map[string]json.RawMessage) map[string]json.RawMessage {
	all := maps.Clone(a)
	if all == nil {
		all = make(map[string]json.RawMessage)
	}
	maps.Copy(all, b)
	return all
}

// value is a JSON value for people.
func value(raw json.RawMessage) string {
	var text *string
	if len(raw) == 0 || string(raw) == "null" {
		return "nothing"
	}
	if err := json.Unmarshal(raw, &text); err == nil && text != nil {
		return cmp.Or(*text, `""`)
	}
	return string(raw)
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func when(t *time.Time) string {
	if t == nil {
		return "unknown"
	}
	return clock(*t)
}

func orElse(s *string, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return *s
}
