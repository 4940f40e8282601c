package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

// addProof adds a proof that found a mismatch, begun now.
func (s *system) addProof(t *testing.T, id, state string) {
	t.Helper()
	p := db.NewProof("clock", s.now())
	p.ID, p.State, p.Note, p.SweepRun, p.VirtFusionTotal, p.KnownLeast, p.KnownMost = id, state, "as it was", "swept", 5, 4, 6
	p.Agree, p.Mismatches, p.Details = 4, 2, []db.Mismatch{
		{ServerID: 7, UserID: new(int64(41)), Field: "package_id", Ours: "3", Theirs: "4"}, {Field: "total", Ours: "5", Theirs: "7"},
	}
	p.Problems = []db.Problem{{Code: "page_short", Message: "a page was short"}, {Code: "virtfusion_unavailable", Message: "no answer", ServerID: 7}}
	p.CoverageSum = db.CoverageSum{Total: 5, On: 2, Off: map[string]int64{"unpriced": 1}, Native: 2}
	if state != db.ProofRunning {
		p.EndedAt = new(s.now().Add(time.Minute))
	}
	if _, joined, err := db.StartProof(t.Context(), s.db, p); err != nil || joined {
		t.Fatal(joined, err)
	}
}

func TestProofs(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const path = "/api/admin/proofs"
	if page := data[api.Page[api.Proof]](t, s.admin(t, http.MethodGet, path)); len(page.Items) != 0 || page.NextCursor != nil {
		t.Errorf("%+v", page)
	}
	for n := range 3 {
		s.wait(time.Hour)
		s.addProof(t, fmt.Sprintf("p%d", n), db.ProofIncomplete)
	}

	// Whoever asks while one runs gets that one.
	s.wait(time.Hour)
	a := s.admin(t, http.MethodPost, path)
	started := dataOf[api.Proof](t, a, http.StatusAccepted)
	if started.State != "running" || started.RequestedBy == "" || a.header.Get("Location") != path+"/"+started.ID || started.SweepRunID != nil {
		t.Errorf("%d %s", a.status, a.raw)
	}
	again := s.admin(t, http.MethodPost, path)
	if dataOf[api.Proof](t, again, http.StatusAccepted).ID != started.ID || !strings.Contains(again.raw, "was running already") {
		t.Errorf("%s", again.raw)
	}

	page := data[api.Page[api.Proof]](t, s.admin(t, http.MethodGet, path+"?limit=2"))
	if len(page.Items) != 2 || page.Items[0].ID != started.ID || page.Items[1].ID != "p2" || page.NextCursor == nil {
		t.Fatalf("%+v", page)
	}
	rest := data[api.Page[api.Proof]](t, s.admin(t, http.MethodGet, path+"?limit=2&cursor="+*page.NextCursor))
	if len(rest.Items) != 2 || rest.Items[0].ID != "p1" || rest.Items[1].ID != "p0" || rest.NextCursor != nil {
		t.Errorf("%+v", rest)
	}

	p := data[api.ProofWithDetails](t, s.admin(t, http.MethodGet, path+"/p2"))
	if p.State != "incomplete" || p.EndedAt == nil || p.TotalAgrees != nil || p.Coverage.Total != 5 || p.Coverage.Off["unpriced"] != 1 || *p.SweepRunID != "swept" ||
		p.Problems[0].ServerID != nil || *p.Problems[1].ServerID != 7 {
		t.Errorf("%+v", p)
	}
	if len(p.Details) != 2 || *p.Details[0].ServerID != 7 || *p.Details[0].UserID != 41 || p.Details[0].Theirs != "4" || p.Details[1].ServerID != nil || p.Details[1].UserID != nil {
		t.Errorf("%+v", p.Details)
	}
	for path, code := range map[string]string{
		"?limit=x": "bad_limit", "?cursor=x": "bad_cursor", "?of=7": "unknown_parameter", "/none": "proof_not_found", "/%00": "proof_not_found",
	} {
		if a := s.admin(t, http.MethodGet, "/api/admin/proofs"+path); a.body.Error.Code != code {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
}
