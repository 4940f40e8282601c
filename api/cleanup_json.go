package api

import (
	"fmt"
	"strings"

	"serversync/db"
)

// Cleanup is what a look for duplicate and orphaned records found, and what
// became of it.
type Cleanup struct {
	DryRun   bool             `json:"dryRun"`
	Findings []CleanupFinding `json:"findings"`
	// Truncated: there may be more findings; clean up and look again.
	Truncated bool `json:"truncated"`
	Changed   int  `json:"changed"` // servers in which something changed
	Voided    int  `json:"voided"`  // charges
}

// CleanupFinding is one server's records that break a rule.
type CleanupFinding struct {
	Rule       string  `json:"rule"`
	ServerID   int64   `json:"serverId"`
	UserID     *int64  `json:"userId"`
	BillingIDs []int64 `json:"billingIds"`
	ChargeIDs  []int64 `json:"chargeIds"`
	What       string  `json:"what"`
	Why        string  `json:"why"`
	Action     string  `json:"action"`
	// Done: the finding is no longer there. Missing in a dry run.
	Done *bool `json:"done,omitempty"`
}

// action is what a cleanup does about a finding.
type action string

const (
	actionWithdraw  action = "withdraw"       // the row of ours that is one too many is taken back
	actionSwitchOff action = "switch_off"     // billing is switched off
	actionVoid      action = "void"           // the charge is voided
	actionAsk       action = "ask_virtfusion" // nothing, until VirtFusion has been asked
	actionReview    action = "review"         // nothing: a person must look
)

func actionFor(f *db.CleanupFinding) action {
	switch f.Rule {
	case db.CleanupGone:
		return actionSwitchOff
	case db.CleanupCharge:
		return actionVoid
	case db.CleanupUnknown:
		return actionAsk
	case db.CleanupDuplicate:
	}
	switch ours, theirs := countRows(f); {
	case f.Status == "":
		return actionAsk
	case f.Status == "conflict" || ours == 0 || theirs > 1:
		return actionReview
	}
	return actionWithdraw
}

func countRows(f *db.CleanupFinding) (ours, theirs int) {
	for _, r := range f.Rows {
		if r.Ours {
			ours++
		} else {
			theirs++
		}
	}
	return ours, theirs
}

func toFindings(found []db.CleanupFinding) []CleanupFinding {
	findings := make([]CleanupFinding, 0, len(found))
	for i := range found {
		findings = append(findings, toFinding(&found[i]))
	}
	return findings
}

func toFinding(f *db.CleanupFinding) CleanupFinding {
	v := CleanupFinding{
		Rule: string(f.Rule), ServerID: f.ServerID, UserID: f.UserID, BillingIDs: []int64{}, ChargeIDs: []int64{},
		What: whatIsWrong(f), Why: whyItIs(f), Action: string(actionFor(f)),
	}
	for _, r := range f.Rows {
		v.BillingIDs = append(v.BillingIDs, r.ID)
	}
	for _, c := range f.Charges {
		v.ChargeIDs = append(v.ChargeIDs, c.ID)
	}
	return v
}

// whatIsWrong says what was found.
func whatIsWrong(f *db.CleanupFinding) string {
	switch f.Rule {
	case db.CleanupDuplicate:
		return fmt.Sprintf("server %d is billed by %s", f.ServerID, rowNames(f.Rows))
	case db.CleanupGone:
		return fmt.Sprintf("server %d is gone and still billed, by %s", f.ServerID, rowNames(f.Rows))
	case db.CleanupUnknown:
		return fmt.Sprintf("server %d is billed by %s, and the inventory does not know it", f.ServerID, rowNames(f.Rows))
	case db.CleanupCharge:
		return fmt.Sprintf("server %d has %s pending of %s, withdrawn before", f.ServerID, chargeNames(f.Charges), rowNames(f.Rows))
	}
	return string(f.Rule)
}

// whyItIs says what is to be done, and why that is right.
func whyItIs(f *db.CleanupFinding) string {
	switch actionFor(f) {
	case actionSwitchOff:
		return "VirtFusion confirmed its end: billing is switched off, rows and charges stay as history"
	case actionVoid:
		return "nobody collects the first hour of a row that was taken back: the charge is marked failed"
	case actionAsk:
		return "a server that is not listed is not proven gone: ask VirtFusion, by a sweep or by its user's sync; nothing is changed until then"
	case actionReview:
		if f.Status == "conflict" {
			return "the evidence disagrees, nothing is changed until a person has looked: " + f.Note
		}
		return "several rows are SkyPANEL's own, which are not ours to change: switch all but one off there, and refund what was charged twice"
	case actionWithdraw:
	}
	if _, theirs := countRows(f); theirs == 1 {
		return "the customer pays twice: SkyPANEL's own row stays, ours is taken back; deleted while nobody was charged by it, else switched off and listed for a refund"
	}
	return "the customer pays twice: one row of ours stays, the others are taken back; deleted while nobody was charged by them, else switched off and listed for a refund"
}

func rowNames(rows []db.CleanupRow) string {
	names := make([]string, len(rows))
	for i, r := range rows {
		whose := "SkyPANEL's"
		if r.Ours {
			whose = "ours"
		}
		names[i] = fmt.Sprintf("row %d (%s, user %d)", r.ID, whose, r.UserID)
	}
	return listed(names)
}

func chargeNames(charges []db.CleanupPending) string {
	names := make([]string, len(charges))
	for i, c := range charges {
		names[i] = fmt.Sprintf("charge %d", c.ID)
		if c.Amount.Valid {
			names[i] += fmt.Sprintf(" of %s", c.Amount.Decimal.StringFixed(4))
		}
	}
	return listed(names)
}

func listed(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
