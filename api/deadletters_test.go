package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/events"
	"serversync/events/eventstest"
)

// letters stands for the dead letters: it has one for each id that begins with
// "one", and does as it is told.
type letters struct {
	real   *events.DeadLetters // when set
	err    error               // when set
	panics bool
}

func (l *letters) List(ctx context.Context, cursor uint64, limit int) ([]events.DeadLetter, uint64, error) {
	switch {
	case l.panics:
		panic("the broker fell over")
	case l.err != nil:
		return nil, 0, l.err
	case l.real != nil:
		return l.real.List(ctx, cursor, limit)
	}
	return []events.DeadLetter{{ID: "one", Data: []byte(`{"a": 1}`)}}, 0, nil
}

func (l *letters) Requeue(ctx context.Context, id string) error {
	switch {
	case l.panics:
		panic("the broker fell over")
	case l.err != nil:
		return l.err
	case l.real != nil:
		return l.real.Requeue(ctx, id)
	case id != "one":
		return events.ErrNoDeadLetter
	}
	return nil
}

func (l *letters) Discard(ctx context.Context, id string) error {
	if l.real != nil {
		return l.real.Discard(ctx, id)
	}
	return l.Requeue(ctx, id)
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := setup(t)
	broker := eventstest.New(t)
	s.letters.real = events.NewDeadLetters(broker.JetStream)
	if a := s.admin(t, http.MethodGet, "/api/admin/dead-letters"); string(a.body.Data) != `{"items":[],"nextCursor":null}` {
		t.Errorf("none: %s", a.raw)
	}
	for i, data := range []string{`{"schema":1}`, "{\x00 anything", "", strings.Repeat("x", 5000), `{"name":"<script>"}`} {
		_, err := s.letters.real.Put(t.Context(), events.DeadLetter{
			ID: "letter-" + strconv.Itoa(i), Reason: "refused <b>", Attempts: 5, FirstAt: time.Unix(1, 0), LastAt: time.Unix(2, 0), StoredAt: time.Unix(0, 0),
			Stream: events.StreamName, Sequence: 7, Subject: "virtfusion.users.7.servers.5.created", Data: []byte(data),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	var all []api.DeadLetter
	for cursor := ""; ; {
		page := data[api.Page[api.DeadLetter]](t, s.admin(t, http.MethodGet, "/api/admin/dead-letters?limit=2"+cursor))
		for _, l := range page.Items {
			ids, all = append(ids, l.ID), append(all, l)
		}
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	if got := strings.Join(ids, " "); got != "letter-4 letter-3 letter-2 letter-1 letter-0" {
		t.Errorf("pages: %s", got)
	}
	first := all[4]
	if string(first.Event) != `{"schema":1}` || first.Text != nil || first.Reason != "refused <b>" || first.Attempts != 5 || first.Sequence != 7 || first.Omitted ||
		!first.FirstAt.Equal(time.Unix(1, 0)) || first.Subject != "virtfusion.users.7.servers.5.created" {
		t.Errorf("%+v", first)
	}
	if l := all[3]; string(l.Event) != "null" && l.Event != nil || *l.Text != "{\x00 anything" {
		t.Errorf("no JSON: %+v", l)
	}
	if l := all[1]; len(*l.Text) > 4200 {
		t.Errorf("%d bytes of text are shown", len(*l.Text))
	}
	if raw := s.admin(t, http.MethodGet, "/api/admin/dead-letters").raw; strings.ContainsAny(raw, "<>\x00") {
		t.Errorf("what a page could take for more than text: %s", raw)
	}

	if _, err := broker.JetStream.Publish(t.Context(), strings.TrimSuffix(events.DeadSubjectAll, ">")+"odd", []byte("not JSON")); err != nil {
		t.Fatal(err)
	}
	if found := data[api.Page[api.DeadLetter]](t, s.admin(t, http.MethodGet, "/api/admin/dead-letters")); len(found.Items) != 6 || found.Items[0].ID != "odd" || *found.Items[0].Text != "not JSON" {
		t.Errorf("with one that cannot be read: %+v", found)
	}
	if a := s.admin(t, http.MethodPost, "/api/admin/dead-letters/odd/requeue"); a.status != http.StatusConflict || a.body.Error.Code != "dead_letter_unusable" {
		t.Errorf("requeue of what cannot be read: %s", a.raw)
	}
	if a := s.admin(t, http.MethodDelete, "/api/admin/dead-letters/odd"); a.status != http.StatusOK {
		t.Errorf("discard: %s", a.raw)
	}

	a := s.admin(t, http.MethodPost, "/api/admin/dead-letters/letter-0/requeue")
	if got := data[api.Settled](t, a); got.ID != "letter-0" || !strings.Contains(a.body.Message, "requeued") {
		t.Errorf("requeue: %s", a.raw)
	}
	if a := s.admin(t, http.MethodDelete, "/api/admin/dead-letters/letter-1"); a.status != http.StatusOK || !strings.Contains(a.body.Message, "discarded") {
		t.Errorf("discard: %s", a.raw)
	}
	for _, path := range []string{
		"POST letter-0/requeue", "DELETE letter-1", "DELETE none", "POST none/requeue", "DELETE " + strings.Repeat("a", 4000), "DELETE %2a", "POST a.b/requeue", "DELETE %3e", "POST a%20b/requeue",
	} {
		method, id, _ := strings.Cut(path, " ")
		if a := s.admin(t, method, "/api/admin/dead-letters/"+id); a.status != http.StatusNotFound || a.body.Error.Code != "dead_letter_not_found" {
			t.Errorf("%.60s = %s", path, a.raw)
		}
	}
	if left := data[api.Page[api.DeadLetter]](t, s.admin(t, http.MethodGet, "/api/admin/dead-letters")); len(left.Items) != 3 || slices.ContainsFunc(left.Items, func(l api.DeadLetter) bool { return l.ID < "letter-2" }) {
		t.Errorf("left: %+v", left)
	}

	s.letters.real, s.letters.err = nil, errors.New("the broker is away")
	for _, path := range []string{"GET /api/admin/dead-letters", "POST /api/admin/dead-letters/one/requeue", "DELETE /api/admin/dead-letters/one"} {
		method, path, _ := strings.Cut(path, " ")
		a := s.admin(t, method, path)
		if a.status != http.StatusServiceUnavailable || a.body.Error.Code != "broker_unavailable" || a.header.Get("Retry-After") == "" || strings.Contains(a.raw, "is away") {
			t.Errorf("without a broker: %s %s = %d %s", method, path, a.status, a.raw)
		}
	}
	for query, want := range map[string]string{"limit=0": "bad_limit", "limit=x": "bad_limit", "cursor=0": "bad_cursor", "cursor=-1": "bad_cursor", "cursor=x": "bad_cursor", "sort=id": "unknown_parameter", "limit=1&limit=2": "repeated_parameter"} {
		if a := s.admin(t, http.MethodGet, "/api/admin/dead-letters?"+query); fmt.Sprint(a.status, a.body.Error.Code) != "400"+want {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
}
