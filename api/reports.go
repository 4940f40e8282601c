package api

import (
	"strconv"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

// externalHeadings are the columns of the report of external servers.
var externalHeadings = []string{
	"id", "uuid", "name", "hostname", "ip_addresses", "user_id", "user_email", "owner", "hypervisor", "package_id", "package",
	"list_price", "monthly_price", "effective_monthly", "billing", "billing_reason", "billing_id", "first_seen_at", "recorded_at", "billed_since", "run", "note",
}

// externalReport answers GET /api/admin/reports/external.csv.
func (a *API) externalReport(c echo.Context) error {
	if _, err := readParams(c, nil); err != nil {
		return err
	}
	var after int64
	s := a.newSheet(c, "external-servers", externalHeadings)
	return a.send(c, s, func() (bool, error) {
		page, err := db.ExternalServers(c.Request().Context(), a.db, after, csvBatch)
		if err != nil || len(page) == 0 {
			return false, err
		}
		for i := range page {
			s.row(externalCells(&page[i])...)
		}
		after = page[len(page)-1].VirtfusionID
		return len(page) == csvBatch, nil
	})
}

func externalCells(r *db.ReportedServer) []string {
	v := toListedServer(&r.ListedServer)
	list := ""
	if r.List.Valid {
		list = dollars(r.List.Decimal)
	}
	return []string{
		strconv.FormatInt(v.ID, 10), v.UUID, v.Name, v.Hostname, joined(v.IPAddresses), number(v.UserID), r.UserEmail, number(&v.Owner), v.Hypervisor, number(v.PackageID), r.PackageName,
		list, text(v.MonthlyPrice), text(v.EffectiveMonthly), v.Billing, text(v.BillingReason), number(v.BillingID),
		moment(&v.FirstSeenAt), moment(r.FoundAt), moment(r.BilledSince), r.RunID, v.Note,
	}
}
