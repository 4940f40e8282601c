package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"
	"go.opentelemetry.io/otel/attribute"

	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
)

const (
	// singleLooks is up to how many servers of a page are asked for by their
	// ids; more, and the page is read once more in the full form.
	singleLooks = 5
	// steadyTries is how often two neighbouring pages are read again until no
	// server came or went between them.
	steadyTries = 5
	// wholeScans is how often all pages are read until as many servers were
	// shown as VirtFusion says there are.
	wholeScans = 2
	// barrenPages is how many pages beyond what there was at first may show
	// nothing new, growthPages how many more there may be than twice as many.
	barrenPages = 3
	growthPages = 10
	// fullWithin is how long it takes the sweeps to read every page in the full
	// form: less than a day, some sweeps fail.
	fullWithin = 20 * time.Hour
)

// listingEndless is the problem of a list that has no end.
const listingEndless = "listing_endless"

// scan is one reading of VirtFusion's pages.
type scan struct {
	*job
	conn  bun.IDB // does not wait for the disk
	total int64   // as the last page said; 0: not said
	// lastPage is how many pages there were when the reading began; barren
	// counts the pages beyond it that showed nothing new.
	lastPage int64
	barren   int
	fresh    bool // the page read last showed a server that had not been seen
	// full: every page is read in the full form; else as [job.inFull] says.
	full bool
	// compared takes the rows of a page, by their ids, and what a comparison wants of
	// them, in the order of the ids; saved is called after each page.
	compared func(ctx context.Context, n int64, page virtfusion.Page, full bool, rows map[int64]*virtfusion.Server, listed []db.Listed) error
	saved    func(ctx context.Context) error
}

// list reads all pages and stages what differs from the inventory. It goes on
// after the last page that was done.
func (j *job) list(ctx context.Context) error {
	p := &j.run.Progress
	if p.Scanned {
		return nil
	}
	if p.Since.IsZero() {
		p.Since = j.Now()
	}
	if err := j.connect(ctx); err != nil {
		return err
	}
	if j.client != nil {
		if err := j.remember(ctx); err != nil {
			return err
		}
		if err := j.listAll(ctx); err != nil {
			return err
		}
		p.Whole = !p.Flawed
		if slices.ContainsFunc(j.run.Problems, func(p db.Problem) bool { return p.Code == listingEndless }) {
			// Who shows servers without end shows servers that do not exist.
			if err := db.DropItems(ctx, j.DB, j.run.ID, db.FoundNew, db.FoundReappeared); err != nil {
				return err
			}
		}
	}
	p.Scanned = true
	return j.save(ctx)
}

// remember finds out what the scan had seen before it was interrupted.
func (j *job) remember(ctx context.Context) error {
	p := &j.run.Progress
	if p.Page == 0 {
		return nil
	}
	j.log.Info().Int64("page", p.Page).Msg("a run goes on where it was interrupted")
	p.Page-- // pages may have shifted meanwhile
	seen, err := db.SeenSince(ctx, j.DB, p.Since)
	if err != nil {
		return err
	}
	staged, err := j.stagedIDs(ctx)
	if err != nil {
		return err
	}
	for _, id := range append(seen, staged...) {
		j.seen[id] = struct{}{}
	}
	return nil
}

// listAll reads all pages and stages what differs on them.
func (j *job) listAll(ctx context.Context) error {
	conn, release, err := db.Unhurried(ctx, j.DB)
	if err != nil {
		return err
	}
	defer release()
	s := &scan{job: j, conn: conn, total: j.run.Progress.Total, saved: j.saveNowAndThen}
	s.compared = s.stageDrift
	return s.all(ctx)
}

// all reads the pages until they showed as many servers as there are.
func (s *scan) all(ctx context.Context) error {
	p := &s.run.Progress
	for round := 1; ; round++ {
		whole, err := s.pages(ctx)
		if err != nil || !whole {
			return err
		}
		if p.Total <= p.Listed {
			return nil
		}
		if round == wholeScans {
			s.flaw(db.Problem{Code: "listing_incomplete", Message: fmt.Sprintf(
				"VirtFusion says that it has %d servers, but its list showed %d of them: the next sweep looks again; if it stays so, check what the API token may see",
				p.Total, p.Listed)})
			return nil
		}
		p.Rescans += p.Page
		p.Page = 0
	}
}

// pages reads from the page after the last one done to the end. It returns
// false when it had to stop; the run then has a problem.
func (s *scan) pages(ctx context.Context) (bool, error) {
	p := &s.run.Progress
	failures := 0
	for n := p.Page + 1; ; n++ {
		page, err := s.read(ctx, n, s.full || s.inFull(n))
		fresh := s.fresh
		if err == nil {
			failures = 0
			page, err = s.steady(ctx, n, page)
		}
		if err != nil {
			if ctx.Err() != nil || isDatabase(err) {
				return false, err
			}
			s.flaw(pageProblem(n, err))
			failures++
			if fatal(err) || failures > 1 || n == 1 || n >= p.Pages {
				return false, nil
			}
			continue // one page that cannot be read does not hide the others
		}
		p.Page, p.Pages, p.Total, p.Listed = n, max(page.LastPage, n), s.total, int64(len(s.seen))
		if err := s.saved(ctx); err != nil {
			return false, err
		}
		if stop := s.endlessness(n, page, fresh); stop != nil {
			s.flaw(*stop)
			return false, nil
		}
		if !page.HasNext {
			return true, nil
		}
	}
}

// flaw is a problem for which the listing cannot be taken for whole.
func (s *scan) flaw(p db.Problem) {
	s.run.Progress.Flawed = true
	s.problem(p)
}

// fatal errors are the same for every page.
func fatal(err error) bool {
	return errors.Is(err, virtfusion.ErrUnauthorized) || errors.Is(err, virtfusion.ErrForbidden) || errors.Is(err, errOtherPage)
}

var errOtherPage = errors.New("VirtFusion answered with another page than the one asked for")

func pageProblem(n int64, err error) db.Problem {
	p := problemOf(err, 0)
	p.Message = fmt.Sprintf("page %d of VirtFusion's servers could not be read: %s", n, p.Message)
	return p
}

// databaseError keeps our own database's faults apart from VirtFusion's.
type databaseError struct{ error }

func (e databaseError) Unwrap() error { return e.error }

func isDatabase(err error) bool {
	_, ok := errors.AsType[databaseError](err)
	return ok
}

// inFull says whether this sweep reads a page in the full form. Each reads a
// part, so that within a day every server's package, addresses and self-service
// flag have been compared.
func (j *job) inFull(page int64) bool {
	slots := int64(1)
	if j.Interval > 0 {
		slots = max(1, int64(fullWithin/j.Interval))
	}
	return page%slots == j.run.Progress.Slot%slots
}

// read reads one page and compares it.
func (s *scan) read(ctx context.Context, n int64, full bool) (page virtfusion.Page, err error) {
	ctx, span := s.span(ctx, "list page", attribute.Int64("serversync.page", n), attribute.Bool("serversync.full", full))
	defer func() { endSpan(span, err) }()
	page, err = s.fetch(ctx, n, full)
	if err != nil {
		return page, err
	}
	if err := s.compare(ctx, n, page, full); err != nil {
		return page, err
	}
	return page, nil
}

// fetch asks for one page; one that is shorter than it should be is asked for
// once more.
func (s *scan) fetch(ctx context.Context, n int64, full bool) (virtfusion.Page, error) {
	for again := false; ; again = true {
		page, err := ask(ctx, s.job, func(p panel) (virtfusion.Page, error) {
			return p.ListServers(ctx, int(n), virtfusion.MaxPerPage, full)
		})
		if err != nil {
			return page, err
		}
		if page.Number != 0 && page.Number != n {
			return page, fmt.Errorf("%w: %d instead of %d: report it to VirtFusion", errOtherPage, page.Number, n)
		}
		short := page.HasNext && int64(len(page.Servers)) < page.PerPage
		if !short {
			return page, nil
		}
		if again {
			s.flaw(db.Problem{Code: "page_short", Message: fmt.Sprintf(
				"page %d of VirtFusion's servers has %d rows instead of %d, though others follow: the next sweep looks again",
				n, len(page.Servers), page.PerPage)})
			return page, nil
		}
		s.run.Progress.Rescans++
	}
}

// steady makes sure that nothing slipped through between a page and the one
// before. When a server goes, those behind it move up: the first of this page
// is then the last of the one before, which was read already. VirtFusion's own
// count tells that something came or went in between.
func (s *scan) steady(ctx context.Context, n int64, page virtfusion.Page) (virtfusion.Page, error) {
	before := s.total
	s.total = page.Total
	if n == 1 || before == 0 || page.Total == before {
		return page, nil
	}
	s.log.Debug().Int64("page", n).Int64("total", page.Total).Int64("before", before).Msg("VirtFusion's list shifted while it was read: reading again")
	for range steadyTries {
		s.run.Progress.Rescans++
		previous, err := s.read(ctx, n-1, s.full)
		if err != nil {
			return page, err
		}
		if s.total = previous.Total; previous.Total == page.Total {
			return page, nil
		}
		s.run.Progress.Rescans++
		if page, err = s.read(ctx, n, s.full); err != nil {
			return page, err
		}
		if s.total = page.Total; page.Total == previous.Total {
			return page, nil
		}
	}
	s.flaw(db.Problem{Code: "listing_shifts", Message: fmt.Sprintf(
		"servers come and go faster than VirtFusion's list can be read (page %d): the next sweep looks again", n)})
	return page, nil
}

// endlessness reports a listing that goes on for ever.
func (s *scan) endlessness(n int64, page virtfusion.Page, fresh bool) *db.Problem {
	if s.lastPage == 0 {
		s.lastPage = max(1, page.LastPage)
	}
	if n > s.lastPage && !fresh {
		s.barren++
	}
	if page.HasNext && (s.barren >= barrenPages || n > 2*s.lastPage+growthPages) {
		return &db.Problem{Code: listingEndless, Message: fmt.Sprintf(
			"VirtFusion's list has no end: it began with %d pages, and page %d says that more follow: report it to VirtFusion", s.lastPage, n)}
	}
	return nil
}

// compare takes what a page says of each server once.
func (s *scan) compare(ctx context.Context, n int64, page virtfusion.Page, full bool) error {
	rows := make(map[int64]*virtfusion.Server, len(page.Servers))
	listed := make([]db.Listed, 0, len(page.Servers))
	s.fresh = false
	for i := range page.Servers {
		row := &page.Servers[i]
		if row.ID <= 0 {
			s.flaw(db.Problem{Code: "row_without_id", Message: fmt.Sprintf("row %d on page %d of VirtFusion's servers has no id: report it to VirtFusion", i+1, n)})
			continue
		}
		if _, twice := rows[row.ID]; twice {
			continue
		}
		rows[row.ID] = row
		kept := keep(row)
		listed = append(listed, listedOf(&kept))
		if _, known := s.seen[row.ID]; !known {
			s.seen[row.ID] = struct{}{}
			s.fresh = true
		}
	}
	// In the order in which the reconciler locks them.
	slices.SortFunc(listed, func(a, b db.Listed) int { return cmp.Compare(a.ID, b.ID) })
	return s.compared(ctx, n, page, full, rows, listed)
}

// stageDrift stages the servers of a page that differ from the inventory, and
// notes that all of them were seen.
func (s *scan) stageDrift(ctx context.Context, n int64, page virtfusion.Page, full bool, rows map[int64]*virtfusion.Server, listed []db.Listed) error {
	drift, err := db.SeeListed(ctx, s.conn, listed, s.Now())
	if err != nil {
		return databaseError{err}
	}
	return s.details(ctx, n, page, full, rows, drift)
}

// details completes and stages what differs. A simple row has neither package
// nor addresses: few are asked for one by one, many by the page in full.
func (s *scan) details(ctx context.Context, n int64, page virtfusion.Page, full bool, rows map[int64]*virtfusion.Server, drift []db.Drift) error {
	observedAt := page.ObservedAt
	if !full && len(drift) > singleLooks {
		whole, err := s.fetch(ctx, n, true)
		if err != nil {
			return err
		}
		full, observedAt = true, whole.ObservedAt
		rows = make(map[int64]*virtfusion.Server, len(whole.Servers))
		for i := range whole.Servers {
			rows[whole.Servers[i].ID] = &whole.Servers[i]
		}
	}
	items := make([]db.RunItem, 0, len(drift))
	for _, d := range drift {
		var e events.Event
		if row := rows[d.ServerID]; full && row != nil && d.Found != db.FoundOlder {
			e = s.event(row, observedAt)
		} else {
			var err error
			if e, err = s.look(ctx, d.ServerID); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if fatal(err) {
					return err
				}
				s.problem(problemOf(err, d.ServerID))
				continue
			}
			if d.Found == db.FoundOlder {
				e.Source = events.SourceRefetch // asked for itself, it stands by its time alone
			}
		}
		item, err := s.item(d.Found, &e)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	s.run.Progress.Drift += int64(len(items))
	if err := db.StageItems(ctx, s.DB, s.run.ID, items); err != nil {
		return databaseError{err}
	}
	return nil
}

// item is a finding with its observation.
func (j *job) item(found string, e *events.Event) (db.RunItem, error) {
	if e.Kind == events.KindDestroyed {
		found = db.FoundGone
	}
	content, err := json.Marshal(e)
	if err != nil {
		return db.RunItem{}, fmt.Errorf("encode the observation of server %d: %w", e.Server.ID, err)
	}
	return db.RunItem{RunID: j.run.ID, ServerID: e.Server.ID, Found: found, Event: string(content)}, nil
}

// stagedIDs are the servers that the run has found so far.
func (j *job) stagedIDs(ctx context.Context) ([]int64, error) {
	var ids []int64
	err := j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		for i := range items {
			ids = append(ids, items[i].ServerID)
		}
		return nil
	})
	return ids, err
}

// itemsAtOnce is how many findings are worked on together.
const itemsAtOnce = events.BatchSize

// eachItem goes through the run's items in one state, in the order of their
// servers, some at a time.
func (j *job) eachItem(ctx context.Context, state string, do func([]db.RunItem) error) error {
	for after := int64(0); ; {
		items, err := db.RunItems(ctx, j.DB, j.run.ID, state, after, itemsAtOnce)
		if err != nil || len(items) == 0 {
			return err
		}
		after = items[len(items)-1].ServerID
		if err := do(items); err != nil {
			return err
		}
	}
}

// listedOf is what a listing says, for comparing.
func listedOf(s *events.Server) db.Listed {
	l := db.Listed{
		ID: s.ID, UUID: s.UUID, Name: s.Name, Hostname: s.Hostname, State: s.State, CommissionStatus: s.CommissionStatus,
		Suspended: s.Suspended, Protected: s.Protected, BuildFailed: s.BuildFailed, SelfService: s.SelfService,
		PackageID: s.PackageID, MemoryMB: s.MemoryMB, StorageGB: s.StorageGB, TrafficGB: s.TrafficGB, CPUCores: s.CPUCores,
		IPAddresses: s.IPAddresses, HypervisorID: s.HypervisorID, UpdatedAt: s.UpdatedAt,
	}
	if o := s.Owner; o != nil {
		l.OwnerID, l.OwnerExt, l.OwnerWhole = &o.ID, o.ExtRelationID, o.Whole
	}
	return l
}
