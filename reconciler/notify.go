package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/internal/skypanel"
)

const (
	// namedServers is how many servers a notification names.
	namedServers = 5
	// shownName bounds a name in a notification, in characters.
	shownName = 60
)

// newlyBilled is a server of which its owner is to be told.
type newlyBilled struct {
	userID  int64
	name    string
	monthly decimal.Decimal // dollars, by the row
	hours   int64           // in a month
	from    time.Time
}

// notifyOwners tells owners in SkyPANEL of external servers that are billed from
// now on, in the transaction that makes their billing rows: as often as these, and
// no oftener. One owner's servers of a batch are one notification. A server whose
// billing is off costs nothing, and is told of when it gets its price. Nothing that
// goes wrong here holds up billing.
func (r *Reconciler) notifyOwners(ctx context.Context, tx bun.Tx, works []work, decisions []decided, ev *evidence, now time.Time) {
	if !r.notifyUsers {
		return
	}
	var told []newlyBilled
	for i := range decisions {
		if works[i].undo == nil {
			told = appendNewlyBilled(told, &decisions[i], ev)
		}
	}
	if err := db.Notify(ctx, tx, notificationsOf(told), now); err != nil && ctx.Err() == nil {
		r.log.Warn().Err(err).Int("servers", len(told)).Msg("owners were not told of their new servers; billing goes on")
	}
}

// appendNewlyBilled appends a decision's server if it is billed from now on.
func appendNewlyBilled(told []newlyBilled, d *decided, ev *evidence) []newlyBilled {
	one := newlyBilled{name: shown(d.State.Name, d.State.ID)}
	if n := d.Create; n != nil {
		if !n.Enabled {
			return told
		}
		one.userID, one.monthly, one.hours, one.from = n.UserID, n.MonthlyPrice, n.Hours, n.LastBilledAt
		if n.Charge != nil {
			one.from = n.Charge.Start
		}
		return append(told, one)
	}
	known := ev.known[d.serverID]
	if known == nil || known.Status != StatusExternal || known.BillingOn || known.Reason != ReasonUnpriced || !d.State.BillingOn || d.State.UserID == nil {
		return told
	}
	for i := range d.Changes {
		c := &d.Changes[i]
		if c.Enable == nil || !*c.Enable || c.Terms == nil || c.Resume == nil {
			continue
		}
		one.userID, one.monthly, one.hours, one.from = *d.State.UserID, c.Terms.monthlyPrice, c.Terms.hours, *c.Resume
		return append(told, one)
	}
	return told
}

// notificationsOf is one notification for each owner, in the order of their ids.
func notificationsOf(told []newlyBilled) []db.Notification {
	slices.SortStableFunc(told, func(a, b newlyBilled) int { return cmp.Compare(a.userID, b.userID) })
	var all []db.Notification
	for len(told) > 0 {
		n := 1
		for n < len(told) && told[n].userID == told[0].userID {
			n++
		}
		all = append(all, notificationOf(told[:n]))
		told = told[n:]
	}
	return all
}

// notificationOf is what an owner is told of these servers.
func notificationOf(told []newlyBilled) db.Notification {
	n := db.Notification{UserID: told[0].userID, Type: "info"}
	var list, effective decimal.Decimal
	from := told[0].from
	var names []string
	for i := range told {
		t := &told[i]
		list, effective = list.Add(t.monthly), effective.Add(skypanel.EffectiveMonthly(t.monthly, t.hours))
		if t.from.Before(from) {
			from = t.from
		}
		if i < namedServers {
			names = append(names, t.name)
		}
	}
	price := fmt.Sprintf("$%s a month", money(list))
	if !list.Equal(effective) {
		price += fmt.Sprintf(" by the list ($%s as it is charged, by the hour in whole tokens)", money(effective))
	}
	if len(told) == 1 {
		n.Title = "New server: " + names[0]
		n.Message = fmt.Sprintf("Your server %s was created outside this panel and is now in your account. It costs %s, from %s on.", names[0], price, clock(from))
		return n
	}
	n.Title = fmt.Sprintf("%d new servers", len(told))
	which := strings.Join(names, ", ")
	if more := len(told) - len(names); more > 0 {
		which += fmt.Sprintf(" and %d more", more)
	}
	n.Message = fmt.Sprintf("%d servers of yours were created outside this panel and are now in your account: %s. Together they cost %s, the first from %s on.", len(told), which, price, clock(from))
	return n
}

// shown is a server's name for its owner: customers choose names, so it holds no
// control or formatting characters, and no more than can be read.
func shown(name string, id int64) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	name = strings.Join(strings.Fields(name), " ")
	if runes := []rune(name); len(runes) > shownName {
		name = string(runes[:shownName-1]) + "…"
	}
	if name == "" {
		return fmt.Sprintf("number %d", id)
	}
	return `"` + name + `"`
}
