package api

import (
	"encoding/csv"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	// csvBatch is how many lines are in memory at once.
	csvBatch = 1000
	// csvPatience is how long a client may take to accept a batch.
	csvPatience = 30 * time.Second
)

// sheet is a CSV file on its way to a client: UTF-8, with a row of headings. A
// batch is sent as soon as it is written.
type sheet struct {
	c   echo.Context
	csv *csv.Writer
}

// newSheet begins a file. Nothing is sent before the first flush, so that a fault
// up to then is answered as any other.
func (a *API) newSheet(c echo.Context, name string, headings []string) *sheet {
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, "text/csv; charset=utf-8; header=present")
	header.Set(echo.HeaderContentDisposition, `attachment; filename="`+name+"-"+a.now().UTC().Format(time.DateOnly)+`.csv"`)
	s := &sheet{c: c, csv: csv.NewWriter(c.Response())}
	_ = s.csv.Write(headings) // into memory: Flush tells
	return s
}

// row adds a line; its cells are made harmless.
func (s *sheet) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = harmless(cell)
	}
	_ = s.csv.Write(cells) // flush tells
}

// flush sends what was written. The server's limit on the time of an answer is
// for single answers: each batch has its own.
func (s *sheet) flush() error {
	_ = http.NewResponseController(s.c.Response()).SetWriteDeadline(time.Now().Add(csvPatience)) // a recorder of a test has none
	s.csv.Flush()
	if err := s.csv.Error(); err != nil {
		return err
	}
	s.c.Response().Flush()
	return nil
}

// moneyCell is what money looks like, in dollars and cents or hundredths of them.
var moneyCell = regexp.MustCompile(`^-?[0-9]+\.[0-9]{2}([0-9]{2})?$`)

// harmless keeps a spreadsheet from taking a cell for a formula: what could begin
// one, blanks before it or not, gets an apostrophe before it.
func harmless(cell string) string {
	if moneyCell.MatchString(cell) {
		return cell // also one below zero, which is to be added up
	}
	begin := strings.TrimLeftFunc(cell, unicode.IsSpace)
	first, _ := utf8.DecodeRuneInString(begin)
	if begin != "" && strings.ContainsRune("=+-@＝＋－＠", first) || strings.HasPrefix(cell, "\t") || strings.HasPrefix(cell, "\r") || strings.HasPrefix(cell, "\n") {
		return "'" + cell
	}
	return cell
}

// send writes batches until there are no more. Once the first is on its way an error
// cannot be answered: the connection is cut, so that nobody takes what came for
// the whole.
func (a *API) send(c echo.Context, s *sheet, next func() (more bool, err error)) error {
	for {
		more, err := next()
		if err == nil {
			err = s.flush()
		}
		switch {
		case err == nil && !more:
			return nil
		case err == nil:
			continue
		case !c.Response().Committed:
			header := c.Response().Header()
			header.Del(echo.HeaderContentDisposition)
			header.Del(echo.HeaderContentType)
			return fault(err)
		}
		if c.Request().Context().Err() == nil {
			a.log.Warn().Err(err).Str("path", c.Path()).Msg("a CSV file could not be finished; its connection is cut")
		}
		panic(http.ErrAbortHandler)
	}
}

// serverHeadings are the columns of the list of servers.
var serverHeadings = []string{
	"id", "uuid", "user_id", "owner", "name", "hostname", "state", "suspended", "ip_addresses", "memory_mb", "storage_gb", "traffic_gb", "cpu_cores",
	"hypervisor_id", "hypervisor", "package_id", "status", "billing", "billing_reason", "billing_id", "monthly_price", "effective_monthly", "note", "awaiting_run", "settle_until",
	"created_at", "updated_at", "first_seen_at", "last_seen_at", "gone_at",
}

// listServersCSV answers GET /api/admin/servers.csv.
func (a *API) listServersCSV(c echo.Context) error {
	query, err := readServersQuery(c, sheetParams)
	if err != nil {
		return err
	}
	query.Limit = csvBatch
	s := a.newSheet(c, "servers", serverHeadings)
	return a.send(c, s, func() (bool, error) {
		page, err := db.ListServers(c.Request().Context(), a.db, query)
		if err != nil || len(page) == 0 {
			return false, err
		}
		for i := range page {
			s.row(serverCells(&page[i])...)
		}
		query.After = new(page[len(page)-1].Key(query.Sort))
		return len(page) == csvBatch, nil
	})
}

func serverCells(l *db.ListedServer) []string {
	v := toListedServer(l)
	return []string{
		number(&v.ID), v.UUID, number(v.UserID), number(&v.Owner), v.Name, v.Hostname, v.State, strconv.FormatBool(v.Suspended), joined(v.IPAddresses),
		number(v.Resources.MemoryMB), number(v.Resources.StorageGB), number(v.Resources.TrafficGB), number(v.Resources.CPUCores),
		number(v.HypervisorID), v.Hypervisor, number(v.PackageID), v.Status, v.Billing, text(v.BillingReason), number(v.BillingID), text(v.MonthlyPrice), text(v.EffectiveMonthly),
		v.Note, text(v.AwaitingRun), moment(v.SettleUntil), moment(v.CreatedAt), moment(v.UpdatedAt), moment(&v.FirstSeenAt), moment(&v.LastSeenAt), moment(v.GoneAt),
	}
}

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

func joined(addresses []string) string { return strings.Join(addresses, " ") }

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
