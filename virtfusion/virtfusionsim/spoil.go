package virtfusionsim

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Fault is a way in which an answer of the API is wrong.
type Fault string

// The faults of the API's answers.
const (
	// FaultNone is the truth: for APIFault.Before alone.
	FaultNone Fault = ""

	// Refusals.
	FaultUnauthorized       Fault = "401"
	FaultUnauthorizedText   Fault = "401 in plain text"
	FaultForbidden          Fault = "403"
	FaultNotFound           Fault = "404" // in the API's own JSON: a lie about what exists
	FaultNotFoundPage       Fault = "404 of a web server"
	FaultUnprocessable      Fault = "422"
	FaultTooManyRequests    Fault = "429" // see APIFault.RetryAfter
	FaultServerError        Fault = "500"
	FaultBadGateway         Fault = "502 in HTML"
	FaultServiceUnavailable Fault = "503"

	// Answers that cannot be read.
	FaultTruncatedJSON Fault = "truncated JSON" // a whole answer with half of its JSON
	FaultCutOff        Fault = "cut off"        // the connection ends in the middle of the answer
	FaultHTML          Fault = "HTML instead of JSON"
	FaultHTMLAsJSON    Fault = "HTML that calls itself JSON"

	// No answers. They end with the request, with the server's connections
	// ([http.Server.Close]), or with the next SetAPIFaults.
	FaultHanging     Fault = "hanging"
	FaultHangingBody Fault = "hanging in the middle of the answer"

	// Credit calls that are carried out, and look as if they were not.
	FaultDoneThenHanging        Fault = "done, then hanging"
	FaultDoneThenGatewayTimeout Fault = "done, then 504"
	FaultDoneThenBadGateway     Fault = "done, then 502"
	FaultDoneThenClosed         Fault = "done, then closed" // the connection ends without an answer

	// Lies about servers: see APIFault.ServerID. HugeName and HugeIDs spoil
	// users and packages too.
	FaultEmptyList  Fault = "empty list"
	FaultStale      Fault = "stale"       // each server as it was before its last change; destroyed ones are back
	FaultWrongOwner Fault = "wrong owner" // see APIFault.OwnerID
	FaultHugeName   Fault = "huge name"   // of HugeNameBytes; in a list, the first one's
	FaultHugeIDs    Fault = "huge ids"    // 2^31 above the true ones

	// Pages that do not add up.
	FaultRepeatingPage   Fault = "repeating page"    // page 1, whichever was asked for, and another to follow
	FaultGrowingLastPage Fault = "growing last_page" // always one more page; past the true end they are empty
	FaultEndlessServers  Fault = "endless servers"   // always one more page; past the true end, of servers nobody has seen
	FaultShrinkingTotal  Fault = "shrinking total"   // one less with each answer, and last_page with it
	FaultShortPage       Fault = "short page"        // the second half of its rows is missing
)

// HugeNameBytes is how long [FaultHugeName] makes a name.
const HugeNameBytes = 10 << 20

// Faults returns every fault, FaultNone aside.
func Faults() []Fault {
	known := spoilers()
	kinds := make([]Fault, 0, len(known))
	for _, s := range known {
		if s.kind != FaultNone {
			kinds = append(kinds, s.kind)
		}
	}
	return kinds
}

// Operations returns the calls that the fault can spoil.
func (f Fault) Operations() []Operation {
	for _, s := range spoilers() {
		if s.kind == f {
			return s.ops
		}
	}
	return nil
}

// spoil answers a call wrongly.
type spoil func(*bite, http.ResponseWriter, *http.Request)

// spoiler says which calls a fault can spoil, and how it does.
type spoiler struct {
	kind  Fault
	ops   []Operation
	spoil spoil
	// aboutServers: it can lie about a single one in a list.
	aboutServers bool
}

// bite is a fault that spoils one call.
type bite struct {
	APIFault
	panel *Panel
	op    Operation
	id    int64 // in the path; 0: none
	// truth is the handler that would have answered.
	truth http.HandlerFunc
	// number counts the calls that this fault has spoiled, from 1.
	number int
	over   <-chan struct{}
}

const (
	typeJSON  = "application/json"
	typeText  = "text/plain; charset=UTF-8"
	typeHTML  = "text/html; charset=UTF-8"
	loginPage = "<!DOCTYPE html>\n<html><head><title>Login</title></head><body><form method=\"post\"></form></body></html>\n"
)

// spoilers is the table of all faults. (A function, because what it names leads
// back to it.)
func spoilers() []spoiler {
	var (
		all     = Operations()
		servers = []Operation{OpList, OpGet, OpUserServers}
		lists   = []Operation{OpList, OpUserServers, OpPackages}
		named   = []Operation{OpList, OpGet, OpUserServers, OpUser, OpPackages, OpPackage}
		credit  = []Operation{OpCredit}
		paged   = []Operation{OpList}
	)
	return []spoiler{
		{kind: FaultNone, ops: all, spoil: func(b *bite, w http.ResponseWriter, r *http.Request) { b.truth(w, r) }},

		{kind: FaultUnauthorized, ops: all, spoil: says(http.StatusUnauthorized, typeJSON, words("Unauthenticated."))},
		{kind: FaultUnauthorizedText, ops: all, spoil: says(http.StatusUnauthorized, typeText, "Unauthorized")},
		{kind: FaultForbidden, ops: all, spoil: says(http.StatusForbidden, typeJSON, words("This action is unauthorized."))},
		{kind: FaultNotFound, ops: all, spoil: says(http.StatusNotFound, typeJSON, words("Not found."))},
		{kind: FaultNotFoundPage, ops: all, spoil: says(http.StatusNotFound, typeHTML, "<html><h1>404 Not Found</h1></html>")},
		{kind: FaultUnprocessable, ops: all, spoil: says(http.StatusUnprocessableEntity, typeJSON, words("The given data was invalid."))},
		{kind: FaultTooManyRequests, ops: all, spoil: (*bite).tooMany},
		{kind: FaultServerError, ops: all, spoil: says(http.StatusInternalServerError, typeJSON, words("Server Error"))},
		{kind: FaultBadGateway, ops: all, spoil: says(http.StatusBadGateway, typeHTML, "<html><h1>502 Bad Gateway</h1></html>")},
		{kind: FaultServiceUnavailable, ops: all, spoil: says(http.StatusServiceUnavailable, typeJSON, words("Service Unavailable"))},

		{kind: FaultTruncatedJSON, ops: all, spoil: (*bite).truncated},
		{kind: FaultCutOff, ops: all, spoil: (*bite).cutOff},
		{kind: FaultHTML, ops: all, spoil: says(http.StatusOK, typeHTML, loginPage)},
		{kind: FaultHTMLAsJSON, ops: all, spoil: says(http.StatusOK, typeJSON, loginPage)},

		{kind: FaultHanging, ops: all, spoil: (*bite).hang},
		{kind: FaultHangingBody, ops: all, spoil: (*bite).hangInBody},
		{kind: FaultDoneThenHanging, ops: credit, spoil: (*bite).doThenHang},
		{kind: FaultDoneThenGatewayTimeout, ops: credit, spoil: (*bite).doThenTimeOut},
		{kind: FaultDoneThenBadGateway, ops: credit, spoil: (*bite).doThenBadGateway},
		{kind: FaultDoneThenClosed, ops: credit, spoil: (*bite).doThenClose},

		{kind: FaultEmptyList, ops: lists, spoil: lie(emptied)},
		{kind: FaultStale, ops: servers, spoil: lie(outdated), aboutServers: true},
		{kind: FaultWrongOwner, ops: servers, spoil: lie(misattributed), aboutServers: true},
		{kind: FaultHugeName, ops: named, spoil: lie(longNamed), aboutServers: true},
		{kind: FaultHugeIDs, ops: named, spoil: lie(shifted), aboutServers: true},

		{kind: FaultRepeatingPage, ops: paged, spoil: misprint((*bite).firstPage)},
		{kind: FaultGrowingLastPage, ops: paged, spoil: misprint((*bite).onePageMore)},
		{kind: FaultEndlessServers, ops: paged, spoil: misprint((*bite).inventedPage)},
		{kind: FaultShrinkingTotal, ops: paged, spoil: misprint((*bite).lessInAll)},
		{kind: FaultShortPage, ops: paged, spoil: misprint((*bite).halfAPage)},
	}
}

// words is the API's own JSON for what it refuses.
func words(message string) string { return `{"message":"` + message + `","errors":[]}` }

// says gives a fixed answer.
func says(status int, contentType, body string) spoil {
	return func(_ *bite, w http.ResponseWriter, r *http.Request) {
		send(w, status, contentType, []byte(body))
	}
}

func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (b *bite) tooMany(w http.ResponseWriter, _ *http.Request) {
	if b.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(b.RetryAfter/time.Second)))
	}
	send(w, http.StatusTooManyRequests, typeJSON, []byte(words("Too Many Attempts.")))
}

func (b *bite) truncated(w http.ResponseWriter, r *http.Request) {
	whole := b.record(r)
	send(w, whole.status, typeJSON, whole.half())
}

func (b *bite) cutOff(w http.ResponseWriter, r *http.Request) {
	b.record(r).sendHalf(w)
	panic(http.ErrAbortHandler) // ends the connection
}

func (b *bite) hang(_ http.ResponseWriter, r *http.Request) { b.wait(r) }

func (b *bite) hangInBody(w http.ResponseWriter, r *http.Request) {
	b.record(r).sendHalf(w)
	b.wait(r)
}

func (b *bite) doThenHang(_ http.ResponseWriter, r *http.Request) {
	b.record(r)
	b.wait(r)
}

func (b *bite) doThenTimeOut(w http.ResponseWriter, r *http.Request) {
	b.record(r)
	send(w, http.StatusGatewayTimeout, typeHTML, []byte("<html><h1>504 Gateway Time-out</h1></html>"))
}

func (b *bite) doThenBadGateway(w http.ResponseWriter, r *http.Request) {
	b.record(r)
	send(w, http.StatusBadGateway, typeHTML, []byte("<html><h1>502 Bad Gateway</h1></html>"))
}

func (b *bite) doThenClose(_ http.ResponseWriter, r *http.Request) {
	b.record(r)
	panic(http.ErrAbortHandler) // ends the connection
}

// wait hangs until the request or the faults end, and ends the connection. The
// server notices that a caller has gone only when it has read what that sent.
func (b *bite) wait(r *http.Request) {
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
	if b.Hung != nil {
		b.Hung()
	}
	select {
	case <-r.Context().Done():
	case <-b.over:
	}
	panic(http.ErrAbortHandler)
}

// recorded is an answer that nobody has seen yet.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// record has the truth answer, and keeps its answer.
func (b *bite) record(r *http.Request) *recorded {
	answer := &recorded{header: http.Header{}, status: http.StatusOK}
	b.truth(answer, r)
	return answer
}

// Header implements [http.ResponseWriter].
func (a *recorded) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *recorded) WriteHeader(status int) { a.status = status }

// Write implements [http.ResponseWriter].
func (a *recorded) Write(body []byte) (int, error) { return a.body.Write(body) }

func (a *recorded) half() []byte { return a.body.Bytes()[:a.body.Len()/2] }

// sendHalf promises the whole answer and sends the first half of it.
func (a *recorded) sendHalf(w http.ResponseWriter) {
	if a.body.Len() > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	}
	send(w, a.status, typeJSON, a.half())
	_ = http.NewResponseController(w).Flush()
}
