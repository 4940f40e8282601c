package api

import (
	"encoding/json"
	"strings"

	"github.com/shopspring/decimal"

	"serversync/db"
	"serversync/internal/skypanel"
)

// changed is what a line of the history says was before, or is after, as far as a
// customer is told of it.
type changed struct {
	Status         string  `json:"status"`
	Billing        string  `json:"billing"`
	BillingReason  string  `json:"billing_reason"`
	BillingEnabled *bool   `json:"billing_enabled"`
	MonthlyPrice   *string `json:"monthly_price"`
	HoursInMonth   *int64  `json:"hours_in_month"`
}

// changeMessage says to a customer what became of a server of theirs. It is made
// of what changed, never of the operators' words for why, which may name others.
func changeMessage(u *db.UserChange) string {
	var before, after changed
	_ = json.Unmarshal(u.Before, &before) // what is missing or says something else is told in general words
	_ = json.Unmarshal(u.After, &after)
	switch u.Kind {
	case "observed":
		return observedMessage(u)
	case "decided":
		return decidedMessage(&after)
	case "billing_created":
		if after.BillingEnabled != nil && !*after.BillingEnabled {
			return "it was recorded, without being billed"
		}
		if after.MonthlyPrice != nil {
			return "its billing was recorded, at a list price of $" + *after.MonthlyPrice + " a month" + chargedWords(&after)
		}
		return "its billing was recorded"
	case "billing_changed":
		switch {
		case before.MonthlyPrice != nil && after.MonthlyPrice != nil && *before.MonthlyPrice != *after.MonthlyPrice:
			return "its list price changed from $" + *before.MonthlyPrice + " to $" + *after.MonthlyPrice + " a month" + chargedWords(&after)
		case after.BillingEnabled != nil && *after.BillingEnabled:
			return "its billing was switched on"
		case after.BillingEnabled != nil:
			return "its billing was switched off"
		}
		return "its plan changed"
	case "billing_closed":
		return "its billing ended"
	case "billing_withdrawn":
		return "the record of its billing was taken back: nothing was charged by it"
	case "refund_due":
		return "a charge is looked at by your provider"
	case "charge_taken":
		return "its first hour was charged"
	case "charge_failed", "charge_cancelled":
		return "its first hour is not charged"
	case "charge_unclear":
		return "whether its first hour was charged is looked at by your provider"
	case "charge_voided":
		return "a charge that was waiting was dropped"
	}
	return "something about it changed"
}

// chargedWords say what is charged a month, where a change tells and that is another
// amount than the list price.
func chargedWords(after *changed) string {
	if after.MonthlyPrice == nil || after.HoursInMonth == nil || *after.HoursInMonth <= 0 {
		return ""
	}
	price, err := decimal.NewFromString(*after.MonthlyPrice)
	if err != nil {
		return ""
	}
	charged := skypanel.EffectiveMonthly(price, *after.HoursInMonth)
	if charged.Equal(price) {
		return ""
	}
	return "; $" + dollars(charged) + " a month are charged, each hour in whole cents"
}

// notBilled says each reason to a customer.
var notBilled = map[string]string{
	"unpriced":             "its plan has no price yet",
	"monthly_mode":         "your provider bills by the month",
	"self_service":         "VirtFusion bills it itself",
	"owner_inactive":       "your account is not active",
	"destroyed":            "it was deleted",
	"operator":             "your provider switched it off",
	"disabled_by_skypanel": "the billing panel does not bill it",
}

func decidedMessage(after *changed) string {
	switch {
	case after.Status == "gone":
		return "it was deleted"
	case after.Status == "settling":
		return "it is new; whether it was ordered in the billing panel is being looked up"
	case after.Status == "conflict":
		return "the records disagree about it; your provider looks at it"
	case after.Billing == "on":
		return "it is billed by the hour"
	case notBilled[after.BillingReason] != "":
		return "it is not billed: " + notBilled[after.BillingReason]
	case after.Status == "native":
		return "it was ordered in the billing panel"
	case after.Status == "external":
		return "it was created outside the billing panel"
	}
	return "how it is billed was looked at again"
}

// observedMessage names what VirtFusion showed otherwise than before.
func observedMessage(u *db.UserChange) string {
	var before, after map[string]json.RawMessage // nil where there is none: told in general words
	_ = json.Unmarshal(u.Before, &before)
	_ = json.Unmarshal(u.After, &after)
	if before == nil {
		return "it was found in VirtFusion"
	}
	var what []string
	for _, part := range []struct {
		name string
		keys []string
	}{
		{"name", []string{"name", "hostname"}},
		{"state", []string{"state", "suspended", "commission_status", "build_failed"}},
		{"addresses", []string{"ip_addresses"}},
		{"plan", []string{"package_id"}},
		{"resources", []string{"memory_mb", "storage_gb", "traffic_gb", "cpu_cores"}},
		{"owner", []string{"owner_id"}},
		{"place", []string{"hypervisor_id", "hypervisor_name", "hypervisor_group_id"}},
	} {
		for _, key := range part.keys {
			if _, is := after[key]; is {
				what = append(what, part.name)
				break
			}
		}
	}
	if what == nil {
		return "VirtFusion showed it again"
	}
	return "its " + strings.Join(what, ", ") + " changed in VirtFusion"
}
