package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"serversync/api"
	"serversync/db"
)

// foresee gives a run the effects on two customers' bills.
func (a *administered) foresee(t *testing.T, id string) {
	t.Helper()
	a.exec(t, `
		UPDATE serversync.runs SET preview = preview || '{"rows": {"created": 1, "ended": 1}, "cost": {"listBefore": "24", "listAfter": "11", "effectiveBefore": "21.9", "effectiveAfter": "14.6"}}' WHERE id = ?0;
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, effect, forecast) VALUES
			(?0, 11, 'new', 'done', 'create', '{"serverId": 11, "name": "=1+1", "userId": 41, "effect": "create", "shares": [{"userId": 41, "rows": {"created": 1}, "listAfter": "11", "effectiveAfter": "14.6", "firstCharge": "0.0151"}]}'),
			(?0, 12, 'gone', 'done', 'end', '{"serverId": 12, "userId": 42, "effect": "end", "shares": [{"userId": 42, "rows": {"ended": 1}, "listBefore": "24", "effectiveBefore": "21.9"}]}')`, id)
}

func TestADryRunTellsEachCustomersBill(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.add(t, "tried", db.RunSucceeded, true)
	a.foresee(t, "tried")
	ended := "  user 42: -21.90 (21.90 → 0.00; by the prices -24.00), 1 ended of 1 server\n"
	made := "  user 41: +14.60 (0.00 → 14.60; by the prices +11.00), 1 made of 1 server; first charge 0.0151 (recorded, nobody collects it)\n"
	code, out, errs := a.command(t, "sweep", "--watch", "tried")
	if code != exitDone || !strings.Contains(out, ended+made) || !strings.Contains(out, "rows      1 made, 1 ended\n") ||
		!strings.Contains(out, "21.90 → 14.60 as it is charged for what changes, 24.00 → 11.00 by the prices\n") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	file := filepath.Join(t.TempDir(), "preview.csv")
	code, out, errs = a.command(t, "sweep", "--watch", "tried", "--changes-over", "20", "--csv", file)
	if code != exitDone || !strings.Contains(out, ended) || strings.Contains(out, "user 41: +") {
		t.Errorf("over 20: exit %d:\n%s%s", code, out, errs)
	}
	if content, err := os.ReadFile(file); err != nil || strings.Count(string(content), "\n") != 2 || !strings.Contains(string(content), "\n42,1,0,1,") {
		t.Errorf("the file: %v\n%s", err, content)
	}
	_, out, _ = a.command(t, "sweep", "--watch", "tried", "--changes-over", "5.00", "--json")
	var printed api.Run
	if err := json.Unmarshal([]byte(out), &printed); err != nil || len(printed.Preview.ByCustomer) != 2 || printed.Preview.ByCustomer[0].EffectiveChange != "-21.90" {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"sweep", "--dry-run", "--changes-over", "much"}, {"replay", "--user", "41", "--changes-over=-1"}, {"sweep", "--csv", "x", "--no-wait"}} {
		if code, _, errs := a.command(t, args...); code != exitUsage {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
	a.add(t, "bare", db.RunSucceeded, true)
	a.exec(t, `UPDATE serversync.runs SET preview = NULL WHERE id = 'bare'`)
	if code, _, errs := a.command(t, "sweep", "--watch", "bare", "--csv", file); code != exitFailed || !strings.Contains(errs, "there is no preview") {
		t.Errorf("without a preview: exit %d: %s", code, errs)
	}
	if code, _, errs := a.command(t, "sweep", "--watch", "tried", "--csv", t.TempDir()); code != exitFailed || !strings.Contains(errs, "write the preview to") {
		t.Errorf("to a directory: exit %d: %s", code, errs)
	}
}

// A run that asks again says how it differs from what was approved, and what to type
// approves this preview and no other.
func TestSweepApprovesAPreview(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.add(t, "asks", db.RunNeedsApproval, false)
	a.exec(t, `UPDATE serversync.runs SET preview = preview || '{"mark": "second", "differs": {"approvedBy": "ann", "approved": "14.6", "now": "21.9", "servers": 1, "serverIds": [7],
		"backBilledApproved": "0.5", "backBilledNow": "9",
		"customers": 2, "byCustomer": [{"userId": 41, "approved": "14.6", "now": "21.9"}, {"userId": 42, "approved": "7.3", "now": "7.3", "backBilledApproved": "0.5", "backBilledNow": "9"}]}}' WHERE id = 'asks'`)
	_, out, _ := a.command(t, "sweep", "--watch", "asks")
	for _, says := range []string{
		"ann approved +14.60 a month, as it is charged; now it is +21.90.\n9.00 is charged at once for the time before; 0.50 was approved.\n  user 41: approved +14.60, now +21.90\n  user 42: approved +7.30, now +7.30; at once 9.00, approved 0.50\n", "something else would be done with 1 server, such as 7\n",
		"serversync sweep --approve asks --preview second\n",
	} {
		if !strings.Contains(out, says) {
			t.Errorf("it does not say %q:\n%s", says, out)
		}
	}
	if code, _, errs := a.command(t, "sweep", "--approve", "asks", "--preview", "first"); code != exitFailed || !strings.Contains(errs, "was previewed again since") {
		t.Errorf("an older preview: exit %d: %s", code, errs)
	}
	a.endNext(t, db.RunSucceeded)
	if code, out, errs := a.command(t, "sweep", "--approve", "asks", "--preview", "second"); code != exitDone {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	if code, _, errs := a.command(t, "sweep", "--preview", "second"); code != exitUsage {
		t.Errorf("of no run: exit %d: %s", code, errs)
	}
}
