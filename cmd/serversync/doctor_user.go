package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/internal/skypanel"
	"serversync/virtfusion"
)

// userExam is the examination of one SkyPANEL user: the link to VirtFusion, what
// VirtFusion answers of the user, and what the books say. It reads only.
type userExam struct {
	db     bun.IDB
	client *virtfusion.Client // nil: VirtFusion cannot be asked
	id     int64              // SkyPANEL's users.id
	// owner is the VirtFusion user; 0: nobody knows.
	owner    int64
	findings []finding
}

// examineUser makes the checks for one user, by SkyPANEL's users.id.
func examineUser(ctx context.Context, c *config, database bun.IDB, userID int64) []finding {
	e := &userExam{db: database, id: userID}
	client, _, err := dialVirtFusion(ctx, c, database)
	if err != nil {
		e.add(ill("VirtFusion", err.Error(), virtFusionRemedy))
	}
	e.client = client
	if err := e.examine(ctx); err != nil {
		e.add(ill("user", err.Error(), "check the id, and DATABASE_URL with serversync doctor"))
	}
	return e.findings
}

// examineUser is what a running service says of one user.
func (s *service) examineUser(ctx context.Context, userID int64) []finding {
	return examineUser(ctx, s.config, s.stores.db, userID)
}

func (e *userExam) add(f finding) { e.findings = append(e.findings, f) }

func (e *userExam) examine(ctx context.Context) error {
	name, err := db.ReadUserName(ctx, e.db, e.id)
	if errors.Is(err, db.ErrNoUser) {
		e.add(ill("user", fmt.Sprintf("SkyPANEL has no user %d", e.id), "give SkyPANEL's users.id; VirtFusion's id of a user is another number"))
		return nil
	}
	if err != nil {
		return err
	}
	users, err := db.UsersByLink(ctx, e.db, nil, []int64{e.id})
	if err != nil || len(users) == 0 {
		return err
	}
	user := &users[0]
	if user.IsActive != nil && *user.IsActive {
		e.add(fine("user", fmt.Sprintf("SkyPANEL's user %d, %s, is active", e.id, name)))
	} else {
		e.add(worth("user", fmt.Sprintf("SkyPANEL's user %d, %s, is not active: SkyPANEL bills none of the servers", e.id, name), "if that was not meant, make the user active in SkyPANEL; first see serversync audit, or all hours since then are charged at once"))
	}
	if err := e.examineLink(ctx, user); err != nil {
		return err
	}
	return e.examineServers(ctx)
}

// examineLink holds SkyPANEL's link of the user against VirtFusion's.
func (e *userExam) examineLink(ctx context.Context, user *db.User) error {
	const check = "link"
	if user.VirtfusionID != nil {
		e.owner = *user.VirtfusionID
		same, err := db.UsersByLink(ctx, e.db, []int64{e.owner}, nil)
		if err != nil {
			return err
		}
		if len(same) > 1 {
			var ids []string
			for _, u := range same {
				ids = append(ids, strconv.FormatInt(u.ID, 10))
			}
			slices.Sort(ids)
			e.add(ill(check, fmt.Sprintf("the users %s all have virtfusion_id %d: nobody can say whose the servers are", strings.Join(ids, ", "), e.owner), "leave users.virtfusion_id with the one whom it belongs to, and set it to NULL for the others"))
		}
	}
	if e.client == nil {
		return nil
	}
	theirs, err := e.client.UserByExtRelation(ctx, e.id)
	switch {
	case errors.Is(err, virtfusion.ErrNotFound) && e.owner == 0:
		e.add(ill(check, fmt.Sprintf("users.virtfusion_id is empty, and VirtFusion has no user whose external relation id is %d", e.id), "set users.virtfusion_id to the VirtFusion user's id, or that user's external relation id to "+strconv.FormatInt(e.id, 10)))
	case errors.Is(err, virtfusion.ErrNotFound):
		e.add(worth(check, fmt.Sprintf("SkyPANEL links the user to VirtFusion's user %d; VirtFusion has no user whose external relation id is %d", e.owner, e.id), "set that VirtFusion user's external relation id, unless another system uses it"))
	case err != nil:
		e.add(ill(check, "VirtFusion, asked for the user, said: "+err.Error(), virtFusionRemedy))
	case e.owner == 0:
		e.owner = theirs.ID
		e.add(worth(check, fmt.Sprintf("users.virtfusion_id is empty; VirtFusion's user %d names SkyPANEL's user %d, and that is what counts", theirs.ID, e.id), fmt.Sprintf("set users.virtfusion_id to %d, if it is the same person", theirs.ID)))
	case e.owner != theirs.ID:
		e.add(ill(check, fmt.Sprintf("SkyPANEL links the user to VirtFusion's user %d, VirtFusion's user %d names SkyPANEL's user %d: their servers are in conflict", e.owner, theirs.ID, e.id), "correct users.virtfusion_id, or the external relation id in VirtFusion"))
	default:
		e.add(fine(check, fmt.Sprintf("SkyPANEL and VirtFusion agree: VirtFusion's user %d", e.owner)))
	}
	return nil
}

// examineServers holds VirtFusion's list of the user's servers against the
// inventory and SkyPANEL's billing rows.
func (e *userExam) examineServers(ctx context.Context) error {
	listed := make(map[int64]bool)
	asked := false
	if e.client != nil && e.owner != 0 {
		answer, err := e.client.ServersOfUser(ctx, e.owner)
		switch {
		case errors.Is(err, virtfusion.ErrNotFound):
			e.add(ill("VirtFusion's list", fmt.Sprintf("VirtFusion has no user %d", e.owner), "correct users.virtfusion_id"))
		case err != nil:
			e.add(ill("VirtFusion's list", err.Error(), virtFusionRemedy))
		default:
			asked = true
			for i := range answer.Servers {
				listed[answer.Servers[i].ID] = true
			}
			e.add(fine("VirtFusion's list", fmt.Sprintf("%d servers of VirtFusion's user %d", len(listed), e.owner)))
		}
	}
	linked, err := db.ServersLinkedTo(ctx, e.db, e.id)
	if err != nil {
		return err
	}
	all := maps.Clone(listed)
	for _, l := range linked {
		all[l.ServerID] = true
	}
	delete(all, 0)
	ids := slices.Sorted(maps.Keys(all))
	stored, err := db.ServersByID(ctx, e.db, ids)
	if err != nil {
		return err
	}
	rows, err := db.BillingByServer(ctx, e.db, ids, nil)
	if err != nil {
		return err
	}
	for _, id := range ids {
		at := slices.IndexFunc(stored, func(s db.Server) bool { return s.VirtfusionID == id })
		var known *db.Server
		if at >= 0 {
			known = &stored[at]
		}
		e.examineServer(id, known, slices.DeleteFunc(slices.Clone(rows), func(m db.BillingMatch) bool { return m.VirtfusionServerID != id }), asked, listed[id])
	}
	return nil
}

// examineServer says how one server stands in VirtFusion, in the inventory and in
// SkyPANEL's tables.
func (e *userExam) examineServer(id int64, known *db.Server, rows []db.BillingMatch, asked, listed bool) {
	check := fmt.Sprintf("server %d", id)
	words := []string{map[bool]string{true: "VirtFusion lists it", false: "VirtFusion does not list it"}[listed]}
	if !asked {
		words[0] = "VirtFusion was not asked"
	}
	on := 0
	for i := range rows {
		r := &rows[i]
		state := "off"
		if r.BillingEnabled != nil && *r.BillingEnabled {
			state = "on"
			on++
		}
		price := "$" + r.MonthlyPrice.StringFixed(2) + " a month"
		if h := r.HoursInMonth; h != nil && *h > 0 {
			if charged := skypanel.EffectiveMonthly(r.MonthlyPrice, *h); !charged.Equal(r.MonthlyPrice) {
				price += " ($" + charged.StringFixed(2) + " as charged)"
			}
		}
		words = append(words, fmt.Sprintf("billing row %d of user %d is %s at %s", r.ID, r.UserID, state, price))
	}
	if len(rows) == 0 {
		words = append(words, "it has no billing row")
	}
	explain := fmt.Sprintf("look at its story with serversync explain %d", id)
	resync := fmt.Sprintf("have the user's servers looked at: serversync sweep --user %d", e.id)
	switch {
	case known == nil && listed:
		e.add(ill(check, "it is not in the books; "+strings.Join(words, "; "), resync))
	case known == nil:
		e.add(worth(check, "it is not in the books; "+strings.Join(words, "; "), "see in VirtFusion whether it exists; if not, switch its billing row off in SkyPANEL"))
	default:
		detail := fmt.Sprintf("%s, billing %s", known.Status, known.Billing)
		if known.BillingReason != "" {
			detail += " (" + known.BillingReason + ")"
		}
		detail += ": " + strings.TrimSuffix(known.Note, ".") + "; " + strings.Join(words, "; ")
		owned := known.UserID != nil && *known.UserID == e.id
		switch {
		case on > 1:
			e.add(ill(check, detail, "two rows are on: serversync cleanup --dry-run says which has to go"))
		case known.Status == "gone" && !listed && on == 0:
			e.add(fine(check, detail))
		case asked && listed != (known.Status != "gone" && owned):
			e.add(ill(check, "the books and VirtFusion disagree: "+detail, resync))
		case known.Status == "conflict", known.Status == "gone" && on > 0:
			e.add(ill(check, detail, explain))
		case known.Billing == "off" && owned && known.Status != "gone", known.Status == "unlinked":
			e.add(worth(check, detail, explain))
		default:
			e.add(fine(check, detail))
		}
	}
}
