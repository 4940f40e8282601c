package api

import (
	"database/sql"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	defaultProofs = 20
	maxProofs     = 200
)

// Proof is every server that is known beside a full read of VirtFusion's. Times are
// UTC.
type Proof struct {
	ID          string     `json:"id"`
	State       string     `json:"state"` // "running", "complete", "incomplete"
	RequestedBy string     `json:"requestedBy"`
	StartedAt   time.Time  `json:"startedAt"`
	EndedAt     *time.Time `json:"endedAt"`  // null: it runs
	Note        string     `json:"note"`     // the state in words
	Problems    []Problem  `json:"problems"` // why it is not complete
	SweepRunID  *string    `json:"sweepRunId"`
	Page        int64      `json:"page"`
	Pages       int64      `json:"pages"`
	Calls       int64      `json:"calls"`

	VirtFusionTotal int64 `json:"virtFusionTotal"`
	Listed          int64 `json:"listed"`
	KnownLeast      int64 `json:"knownLeast"`
	KnownMost       int64 `json:"knownMost"`
	TotalAgrees     *bool `json:"totalAgrees"` // null: it is not complete

	Agree      int64    `json:"agree"`
	Awaiting   int64    `json:"awaitingApproval"`
	Moved      int64    `json:"moved"`
	Mended     int64    `json:"mended"`
	Mismatches int64    `json:"mismatches"` // servers, and 1 for a total that differs
	Coverage   Coverage `json:"coverage"`
}

// ProofWithDetails is one proof with what differs, of at most
// [db.MaxProofDetails] mismatches.
type ProofWithDetails struct {
	Proof

	Details []Mismatch `json:"details"`
}

// Mismatch is something in which a server stayed different.
type Mismatch struct {
	ServerID *int64 `json:"serverId"` // null: the total
	UserID   *int64 `json:"userId"`   // SkyPANEL's users.id; null: nobody
	Field    string `json:"field"`
	Ours     string `json:"ours"`
	Theirs   string `json:"theirs"`
}

func toProof(p *db.Proof) Proof {
	v := Proof{
		ID: p.ID, State: p.State, RequestedBy: p.RequestedBy, StartedAt: p.StartedAt.UTC(), EndedAt: utc(p.EndedAt), Note: p.Note,
		Problems: make([]Problem, len(p.Problems)), SweepRunID: orNull(p.SweepRun), Page: p.Page, Pages: p.Pages, Calls: p.Calls,
		VirtFusionTotal: p.VirtFusionTotal, Listed: p.Listed, KnownLeast: p.KnownLeast, KnownMost: p.KnownMost,
		Agree: p.Agree, Awaiting: p.Awaiting, Moved: p.Moved, Mended: p.Mended, Mismatches: p.Mismatches,
		Coverage: Coverage{Total: p.Total, On: p.On, Off: p.Off, Native: p.Native, Unlinked: p.Unlinked, Conflict: p.Conflict, Settling: p.Settling},
	}
	if p.State == db.ProofComplete {
		v.TotalAgrees = new(p.TotalAgrees())
	}
	for i, problem := range p.Problems {
		v.Problems[i] = Problem{Code: problem.Code, Message: problem.Message}
		if problem.ServerID != 0 {
			v.Problems[i].ServerID = new(problem.ServerID)
		}
	}
	return v
}

// startProof answers POST /api/admin/proofs.
func (a *API) startProof(c echo.Context) error {
	if _, err := readParams(c, nil); err != nil {
		return err
	}
	proof, joined, err := db.StartProof(c.Request().Context(), a.db, db.NewProof(caller(c).name, a.now()))
	if err != nil {
		return fault(err)
	}
	message := "a full proof is started: a sweep goes before it"
	if joined {
		message = "a proof was running already: this is that one"
	}
	c.Response().Header().Set(echo.HeaderLocation, "/api/admin/proofs/"+proof.ID)
	return c.JSON(http.StatusAccepted, successBody{Success: true, Message: message, Data: toProof(&proof)})
}

// listProofs answers GET /api/admin/proofs.
func (a *API) listProofs(c echo.Context) error {
	given, err := readParams(c, pageParams)
	if err != nil {
		return err
	}
	limit, err := readLimit(given.Get("limit"), defaultProofs, maxProofs)
	if err != nil {
		return err
	}
	var start time.Time
	var id string
	if cursor := given.Get("cursor"); cursor != "" {
		var ok bool
		if start, id, ok = readRunCursor(cursor); !ok {
			return badRequest("bad_cursor", "cursor must be the nextCursor of the page before")
		}
	}
	found, err := db.Proofs(c.Request().Context(), a.db, start, id, limit+1)
	if err != nil {
		return fault(err)
	}
	page := Page[Proof]{Items: make([]Proof, 0, limit)}
	if len(found) > limit {
		found = found[:limit]
		last := &found[limit-1]
		page.NextCursor = new(strconv.FormatInt(last.StartedAt.UnixMicro(), 10) + "." + last.ID)
	}
	for i := range found {
		page.Items = append(page.Items, toProof(&found[i]))
	}
	return succeed(c, page)
}

// showProof answers GET /api/admin/proofs/:id.
func (a *API) showProof(c echo.Context) error {
	id := c.Param("id")
	found, err := db.Proof{}, sql.ErrNoRows
	if runID.MatchString(id) {
		found, err = db.ReadProof(c.Request().Context(), a.db, id)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return refuse(http.StatusNotFound, "proof_not_found", "there is no proof with this id; GET /api/admin/proofs lists them")
	}
	if err != nil {
		return fault(err)
	}
	proof := ProofWithDetails{Proof: toProof(&found), Details: make([]Mismatch, len(found.Details))}
	for i, m := range found.Details {
		proof.Details[i] = Mismatch{UserID: m.UserID, Field: m.Field, Ours: m.Ours, Theirs: m.Theirs}
		if m.ServerID != 0 {
			proof.Details[i].ServerID = new(m.ServerID)
		}
	}
	return succeed(c, proof)
}
