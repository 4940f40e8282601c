package virtfusionsim

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Handler returns the panel's Global API, under /api/v1. While it has no
// faults (SetAPIFaults), it tells the truth.
func (p *Panel) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, op Operation, truth http.HandlerFunc) {
		mux.HandleFunc(method+" /api/v1"+path, p.faulty(op, truth))
	}
	handle("GET", "/connect", OpConnect, p.connect)
	handle("GET", "/servers", OpList, p.listServers)
	handle("GET", "/servers/{id}", OpGet, p.getServer)
	handle("GET", "/servers/user/{id}", OpUserServers, p.serversOfUser)
	handle("GET", "/users/{ext}/byExtRelation", OpUser, p.userByExtRelation)
	handle("GET", "/packages", OpPackages, p.listPackages)
	handle("GET", "/packages/{id}", OpPackage, p.getPackage)
	handle("POST", "/selfService/credit/byUserExtRelationId/{ext}", OpCredit, p.addCredit)
	handle("DELETE", "/selfService/credit/byUserExtRelationId/{ext}", OpCredit, p.removeCredit)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Sprintf("The route %s could not be found.", r.URL.Path))
	})
	return p.dated(p.authenticated(mux))
}

// authenticated lets only bearers of the token through.
func (p *Panel) authenticated(next http.Handler) http.Handler {
	want := []byte("Bearer " + p.config.Token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			fail(w, http.StatusUnauthorized, "Unauthenticated.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *Panel) connect(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, object{"success": true})
}

func (p *Panel) listServers(w http.ResponseWriter, r *http.Request) {
	if asked, ok := askedPage(w, r); ok {
		reply(w, http.StatusOK, p.page(asked))
	}
}

// pageRequest asks for a page of servers.
type pageRequest struct {
	full    bool
	perPage int
	number  int
	address string // without the query
}

// link is the address of a page.
func (q pageRequest) link(to int) string { return fmt.Sprintf("%s?page=%d", q.address, to) }

// askedPage reads the query; when it cannot, it answers and returns false.
func askedPage(w http.ResponseWriter, r *http.Request) (pageRequest, bool) {
	query := r.URL.Query()
	form := query.Get("type")
	if form != "" && form != "simple" && form != "full" {
		invalidField(w, "type", "The selected type is invalid.")
		return pageRequest{}, false
	}
	perPage, ok := queryNumber(query, "results", 20)
	if !ok || perPage < 1 || perPage > 200 {
		invalidField(w, "results", "The results must be between 1 and 200.")
		return pageRequest{}, false
	}
	number, ok := queryNumber(query, "page", 1)
	if !ok || number < 1 {
		number = 1 // as Laravel does
	}
	return pageRequest{full: form == "full", perPage: perPage, number: number, address: "http://" + r.Host + r.URL.Path}, true
}

// page is a Laravel page of servers, by id.
func (p *Panel) page(q pageRequest) object {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.servers.ordered
	last := pages(len(all), q.perPage)
	from := len(all)
	if q.number <= last {
		from = (q.number - 1) * q.perPage
	}
	shown := all[from:min(from+q.perPage, len(all))]
	rows := make([]object, len(shown))
	for i, server := range shown {
		if q.full {
			rows[i] = writer{panel: p, textual: server.ID%3 == 0}.full(server)
		} else {
			rows[i] = writer{panel: p}.simple(server)
		}
	}
	link := func(to int) any {
		if to < 1 || to > last {
			return nil
		}
		return q.link(to)
	}
	page := object{
		"current_page": q.number, "data": rows, "last_page": last, "per_page": q.perPage, "total": len(all),
		"first_page_url": link(1), "last_page_url": link(last), "next_page_url": link(q.number + 1), "prev_page_url": link(q.number - 1),
		"path": q.address, "from": nil, "to": nil,
	}
	if len(shown) > 0 {
		page["from"], page["to"] = from+1, from+len(shown)
	}
	return page
}

// pages is how many pages so many rows fill; at least one.
func pages(rows, perPage int) int { return max(1, (rows+perPage-1)/perPage) }

func (p *Panel) getServer(w http.ResponseWriter, r *http.Request) {
	p.answer(w, func() (any, bool) {
		server, ok := p.servers.get(pathNumber(r, "id"))
		if !ok {
			return nil, false
		}
		return writer{panel: p}.full(server), true
	})
}

func (p *Panel) serversOfUser(w http.ResponseWriter, r *http.Request) {
	p.answer(w, func() (any, bool) {
		user, ok := p.users[pathNumber(r, "id")]
		if !ok {
			return nil, false
		}
		rows := []object{}
		for _, server := range p.servers.ordered {
			if server.OwnerID == user.ID {
				rows = append(rows, writer{panel: p}.ofUser(server))
			}
		}
		return rows, true
	})
}

func (p *Panel) userByExtRelation(w http.ResponseWriter, r *http.Request) {
	p.answer(w, func() (any, bool) {
		user, ok := p.byExtRelation(pathNumber(r, "ext"))
		return writer{panel: p}.user(user), ok
	})
}

// byExtRelation finds a user by the billing panel's id; the caller holds mu.
func (p *Panel) byExtRelation(ext int64) (User, bool) {
	var first int64
	for id, user := range p.users {
		if ext != 0 && user.ExtRelationID == ext && (first == 0 || id < first) {
			first = id
		}
	}
	user, ok := p.users[first]
	return user, ok
}

func (p *Panel) listPackages(w http.ResponseWriter, _ *http.Request) {
	p.answer(w, func() (any, bool) {
		rows := []object{}
		for _, plan := range sortedByID(p.packages) {
			rows = append(rows, writer{panel: p}.plan(plan))
		}
		return rows, true
	})
}

func (p *Panel) getPackage(w http.ResponseWriter, r *http.Request) {
	p.answer(w, func() (any, bool) {
		plan, ok := p.packages[pathNumber(r, "id")]
		return writer{panel: p}.plan(plan), ok
	})
}

func (p *Panel) addCredit(w http.ResponseWriter, r *http.Request) {
	if id, ok := p.credit(w, r, 1); ok {
		reply(w, http.StatusCreated, object{"data": object{"id": id}})
	}
}

func (p *Panel) removeCredit(w http.ResponseWriter, r *http.Request) {
	if _, ok := p.credit(w, r, -1); ok {
		w.WriteHeader(http.StatusNoContent)
	}
}

// credit records a credit call; when it cannot, it answers and returns false.
func (p *Panel) credit(w http.ResponseWriter, r *http.Request, sign int64) (int64, bool) {
	var body struct {
		Tokens     int64  `json:"tokens"`
		Reference1 int64  `json:"reference_1"`
		Reference2 string `json:"reference_2"`
	}
	err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&body)
	if err != nil || body.Tokens < 1 {
		invalidField(w, "tokens", "The tokens must be at least 1.")
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	user, ok := p.byExtRelation(pathNumber(r, "ext"))
	if !ok {
		fail(w, http.StatusNotFound, "Not found.")
		return 0, false
	}
	credit := Credit{
		ID: int64(len(p.credits)) + 1, ExtRelationID: user.ExtRelationID, Tokens: sign * body.Tokens,
		Reference1: body.Reference1, Reference2: body.Reference2,
	}
	p.credits = append(p.credits, credit)
	return credit.ID, true
}

// answer writes {"data": …}, or 404. read runs under mu.
func (p *Panel) answer(w http.ResponseWriter, read func() (any, bool)) {
	p.mu.Lock()
	data, ok := read()
	p.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "Not found.")
		return
	}
	reply(w, http.StatusOK, object{"data": data})
}

// pathNumber is a number in the path; what is none finds nothing.
func pathNumber(r *http.Request, name string) int64 {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func queryNumber(query url.Values, name string, missing int) (int, bool) {
	if !query.Has(name) {
		return missing, true
	}
	n, err := strconv.Atoi(query.Get(name))
	return n, err == nil
}

func invalidField(w http.ResponseWriter, field, message string) {
	reply(w, http.StatusUnprocessableEntity, object{"message": message, "errors": object{field: []string{message}}})
}

func fail(w http.ResponseWriter, status int, message string) {
	reply(w, status, object{"message": message, "errors": []any{}})
}

// reply writes JSON. An answer that cannot be written has lost its reader.
func reply(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
