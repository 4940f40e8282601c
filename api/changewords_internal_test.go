package api

import (
	"testing"

	"serversync/db"
)

// What a customer reads of their servers' past says what became of them.
func TestChangeMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, before, after, want string }{
		{"observed", `null`, `{"name": "web"}`, "it was found in VirtFusion"},
		{"observed", `{"name": "web", "state": "queued"}`, `{"name": "www", "state": "running", "ip_addresses": []}`, "its name, state, addresses changed in VirtFusion"},
		{"observed", `{}`, `{"updated_at": "2026-11-23T13:02:10Z"}`, "VirtFusion showed it again"},
		{"decided", `null`, `{"status": "settling", "user_id": 8}`, "it is new; whether it was ordered in the billing panel is being looked up"},
		{"decided", `{"status": "settling"}`, `{"status": "external", "billing": "on"}`, "it is billed by the hour"},
		{"decided", `{"status": "settling"}`, `{"status": "external", "billing": "off", "billing_reason": "unpriced"}`, "it is not billed: its plan has no price yet"},
		{"decided", `{"billing": "on"}`, `{"status": "gone", "billing": "off", "billing_reason": "destroyed"}`, "it was deleted"},
		{"decided", `{}`, `{"status": "conflict"}`, "the records disagree about it; your provider looks at it"},
		{"decided", `{}`, `{"status": "native"}`, "it was ordered in the billing panel"},
		{"decided", `{}`, `{"user_id": 9}`, "how it is billed was looked at again"},
		{"billing_created", `null`, `{"billing_enabled": true, "monthly_price": "14.95"}`, "its billing was recorded, at a list price of $14.95 a month"},
		{"billing_created", `null`, `{"billing_enabled": true, "monthly_price": "11", "hours_in_month": 730}`, "its billing was recorded, at a list price of $11 a month; $14.60 a month are charged, each hour in whole cents"},
		{"billing_created", `null`, `{"billing_enabled": true, "monthly_price": "7.3", "hours_in_month": 730}`, "its billing was recorded, at a list price of $7.3 a month"},
		{"billing_created", `null`, `{"billing_enabled": true, "monthly_price": "much", "hours_in_month": 730}`, "its billing was recorded, at a list price of $much a month"},
		{"billing_created", `null`, `{"billing_enabled": false, "monthly_price": "0"}`, "it was recorded, without being billed"},
		{"billing_changed", `{"monthly_price": "2.5"}`, `{"monthly_price": "24"}`, "its list price changed from $2.5 to $24 a month"},
		{"billing_changed", `{"billing_enabled": false}`, `{"billing_enabled": true}`, "its billing was switched on"},
		{"billing_changed", `{"package_id": 1}`, `{"package_id": 2}`, "its plan changed"},
		{"charge_taken", `{}`, `{}`, "its first hour was charged"},
		{"charge_failed", `{}`, `{}`, "its first hour is not charged"},
		{"charge_cancelled", `{}`, `{}`, "its first hour is not charged"},
		{"charge_unclear", `{}`, `{}`, "whether its first hour was charged is looked at by your provider"},
		{"billing_closed", `{}`, `{}`, "its billing ended"},
		{"of tomorrow", `7`, `"x"`, "something about it changed"},
	} {
		var u db.UserChange
		u.Kind, u.Before, u.After = c.kind, []byte(c.before), []byte(c.after)
		if got := changeMessage(&u); got != c.want {
			t.Errorf("%s %s → %s: %q, want %q", c.kind, c.before, c.after, got, c.want)
		}
	}
}
