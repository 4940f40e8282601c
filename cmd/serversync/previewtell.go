package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
	"github.com/urfave/cli/v3"

	"serversync/api"
)

// shownCustomers are at most told of; a CSV file has all.
const shownCustomers = 1000

func changesOverFlag(command string) cli.Flag {
	return &cli.StringFlag{
		Name: "changes-over", Usage: "of a preview, show only customers whose month changes by more than so many dollars, such as 5.00 (default: all)",
		Sources: cli.EnvVars(command + "_CHANGES_OVER"),
	}
}

func csvFlag(command string) cli.Flag {
	return &cli.StringFlag{Name: "csv", Usage: "write what it would do to each customer's bill to this file", Sources: cli.EnvVars(command + "_CSV")}
}

// checkPreviewFlags refuses, before anything is begun, what the service would
// refuse at the end.
func checkPreviewFlags(cmd *cli.Command) error {
	over := cmd.String("changes-over")
	if amount, err := decimal.NewFromString(over); over != "" && (err != nil || amount.IsNegative()) {
		return &usageError{errors.New("--changes-over takes dollars a month, such as 5.00")}
	}
	if cmd.Bool("no-wait") && (over != "" || cmd.String("csv") != "") {
		return &usageError{errors.New("--changes-over and --csv tell of the end of a run: leave out --no-wait")}
	}
	return nil
}

// readPreview reads what a run would do to each customer's bill, where that is to
// be shown; nil: nowhere. It writes the CSV file that was asked for.
func readPreview(ctx context.Context, cmd *cli.Command, client *adminClient, run *api.Run) (*api.PreviewCustomers, error) {
	over, file := cmd.String("changes-over"), cmd.String("csv")
	if run.Preview == nil {
		if file != "" {
			return nil, fmt.Errorf("there is no preview to write to %s", file)
		}
		return nil, nil //nolint:nilnil // nothing to be shown
	}
	query := url.Values{}
	if over != "" {
		query.Set("changesOver", over)
	}
	if file != "" {
		if err := client.download(ctx, runPath(run.ID)+"/preview.csv", query, file); err != nil {
			return nil, err
		}
	}
	if over == "" && (cmd.Bool("json") || !run.DryRun && run.State != "needs_approval") {
		return nil, nil //nolint:nilnil // as above
	}
	query.Set("limit", strconv.Itoa(shownCustomers))
	var shown api.PreviewCustomers
	if err := client.call(ctx, http.MethodGet, runPath(run.ID)+"/preview", query, &shown); err != nil {
		return nil, err
	}
	run.Preview.ByCustomer = shown.Items
	return &shown, nil
}

// download writes a file of the service's to one of ours. One that does not come
// whole is none.
func (a *adminClient) download(ctx context.Context, path string, query url.Values, file string) error {
	content, err := a.fetch(ctx, path, query)
	if err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the preview to %s: %w", file, err)
	}
	return nil
}

// tellCustomers says what changes for each customer, the largest change first.
func tellCustomers(p *page, shown *api.PreviewCustomers) {
	if shown == nil || len(shown.Items) == 0 {
		return
	}
	p.linef("By customer, as it is charged a month, for what changes:")
	for i := range shown.Items {
		c := &shown.Items[i]
		line := fmt.Sprintf("  user %d: %s (%s → %s; by the prices %s), %s of %s", c.UserID, signed(c.EffectiveChange), c.EffectiveBefore, c.EffectiveAfter,
			signed(c.ListChange), rowWords(&c.Rows), counted(c.Servers, "server"))
		if c.FirstCharges > 0 {
			fate := "recorded, nobody collects it"
			if c.Collected {
				fate = "taken at once"
			}
			line += fmt.Sprintf("; first charge %s (%s)", c.FirstChargeAmount, fate)
		}
		p.linef("%s", line)
	}
	if more := shown.Total - int64(len(shown.Items)); more > 0 {
		p.linef("  and %s more: --csv FILE writes all", counted(more, "customer"))
	}
}

// rowWords are what happens to billing rows, but for what happens to none.
func rowWords(r *api.RowChanges) string {
	var parts []string
	for _, part := range []struct {
		n    int64
		what string
	}{
		{r.Created, "made"},
		{r.Changed, "changed"},
		{r.Enabled, "switched on again"},
		{r.Disabled, "switched off for now"},
		{r.Ended, "ended"},
		{r.Withdrawn, "withdrawn"},
		{r.Moved, "closed, as the server moved"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	return strings.Join(parts, ", ")
}

// tellDifference says how a run that asks again differs from what was approved.
func tellDifference(p *page, d *api.Difference) {
	if d == nil {
		return
	}
	p.linef("%s approved %s a month, as it is charged; now it is %s.", d.ApprovedBy, signed(d.Approved), signed(d.Now))
	if d.BackBilledNow != d.BackBilledApproved {
		p.linef("%s is charged at once for the time before; %s was approved.", d.BackBilledNow, d.BackBilledApproved)
	}
	for _, c := range d.ByCustomer {
		atOnce := ""
		if c.BackBilledNow != c.BackBilledApproved {
			atOnce = fmt.Sprintf("; at once %s, approved %s", c.BackBilledNow, c.BackBilledApproved)
		}
		p.linef("  user %d: approved %s, now %s%s", c.UserID, signed(c.Approved), signed(c.Now), atOnce)
	}
	if more := d.Customers - int64(len(d.ByCustomer)); more > 0 {
		p.linef("  and %s more", counted(more, "customer"))
	}
	if d.Servers > 0 {
		p.linef("  something else would be done with %s, such as %s", counted(d.Servers, "server"), strings.Trim(fmt.Sprint(d.ServerIDs), "[]"))
	}
}
