package api

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	defaultServers = 50
	maxServers     = 200

	minSearch, maxSearch = 2, 200
	maxCursor            = 4096
	maxHypervisorName    = 200
	maxFilterIDs         = 200
)

var (
	serverStatuses = []string{"settling", "external", "native", "unlinked", "conflict", "gone"}
	offReasons     = []string{"unpriced", "monthly_mode", "self_service", "owner_inactive", "destroyed", "operator", "disabled_by_skypanel"}
	serverSorts    = []string{db.SortID, db.SortName, db.SortCreated, db.SortUpdated, db.SortFirstSeen, db.SortStatus, db.SortUser}
)

// The parameters of lists: what everybody may select by, what administrators may
// besides, and what a file, which has no pages, knows.
var (
	filterParams = []string{"id", "status", "billing", "reason", "q", "ip", "hypervisor", "package", "created_after", "created_before", "seen_before", "sort"}
	sheetParams  = append([]string{"user", "owner", "awaiting"}, filterParams...)
	pageParams   = []string{"limit", "cursor"}
	userParams   = slices.Concat(filterParams, pageParams)
	adminParams  = slices.Concat(sheetParams, pageParams)
)

// listServers answers GET /api/admin/servers.
func (a *API) listServers(c echo.Context) error {
	query, err := readServersQuery(c, adminParams)
	if err != nil {
		return err
	}
	page, next, err := a.serversPage(c, query)
	if err != nil {
		return err
	}
	items := make([]ListedServer, len(page))
	for i := range page {
		items[i] = toListedServer(&page[i])
	}
	return succeed(c, Page[ListedServer]{Items: items, NextCursor: next})
}

// listOwnServers answers GET /api/user/servers.
func (a *API) listOwnServers(c echo.Context) error {
	query, err := readServersQuery(c, userParams)
	if err != nil {
		return err
	}
	query.UserID = new(caller(c).userID)
	page, next, err := a.serversPage(c, query)
	if err != nil {
		return err
	}
	items := make([]UserServer, len(page))
	for i := range page {
		items[i] = toUserServer(&page[i])
	}
	return succeed(c, Page[UserServer]{Items: items, NextCursor: next})
}

// serversPage reads a page, and what asks for the next one; nil on the last.
func (a *API) serversPage(c echo.Context, query db.ServersQuery) (page []db.ListedServer, next *string, err error) {
	limit := query.Limit
	query.Limit++ // one more tells whether there is a next page
	page, err = db.ListServers(c.Request().Context(), a.db, query)
	if err != nil {
		return nil, nil, fault(err)
	}
	if len(page) > limit {
		page = page[:limit]
		next = new(serverCursor(&query, &page[limit-1]))
	}
	return page, next, nil
}

// readServersQuery reads which servers are wanted, in which order. Other
// parameters than the named ones are refused.
func readServersQuery(c echo.Context, known []string) (db.ServersQuery, error) {
	given, err := readParams(c, known)
	if err != nil {
		return db.ServersQuery{}, err
	}
	return readServers(given)
}

// readServersFilter reads filters that come by another way than a query: those of
// an administrator's list, without an order or pages.
func readServersFilter(given url.Values) (db.ServersQuery, error) {
	if err := knownParams(given, slices.DeleteFunc(slices.Clone(sheetParams), func(name string) bool { return name == "sort" })); err != nil {
		return db.ServersQuery{}, err
	}
	return readServers(given)
}

func readServers(given url.Values) (q db.ServersQuery, err error) {
	for _, read := range []func(url.Values, *db.ServersQuery) error{
		readIDs, readStatuses, readBilling, readOwners, readSearch, readNetwork, readHypervisor, readMoments, readSort, readServersPage,
	} {
		if err := read(given, &q); err != nil {
			return q, err
		}
	}
	return q, nil
}

// readParams returns the query's parameters, each of which must be known and
// there at most once.
func readParams(c echo.Context, known []string) (url.Values, error) {
	given, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, badRequest("bad_query", "the query cannot be read: write it as name=value&…, with everything else than letters and digits percent-encoded")
	}
	return given, knownParams(given, known)
}

func knownParams(given url.Values, known []string) error {
	for name, values := range given {
		if !slices.Contains(known, name) {
			return badRequest("unknown_parameter", "there is no parameter "+strconv.QuoteToASCII(shortened(name, 40))+" here; those that there are: "+cmp.Or(strings.Join(known, ", "), "none"))
		}
		if len(values) > 1 {
			return badRequest("repeated_parameter", name+" is there more than once")
		}
	}
	return nil
}

// shortened is at most so many bytes of a text.
func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

func readIDs(given url.Values, q *db.ServersQuery) error {
	value := given.Get("id")
	if value == "" {
		return nil
	}
	words := strings.SplitN(value, ",", maxFilterIDs+1)
	for _, w := range words {
		id, ok := readNumber(w)
		if !ok || id == nil || *id < 1 || len(words) > maxFilterIDs {
			return badRequest("bad_id", "id must be VirtFusion's id of a server, or up to 200 of them, separated by commas")
		}
		q.IDs = append(q.IDs, *id)
	}
	return nil
}

func readStatuses(given url.Values, q *db.ServersQuery) error {
	value := given.Get("status")
	switch value {
	case "":
		return nil
	case "all":
		q.AnyStatus = true
		return nil
	}
	var ok bool
	if q.Statuses, ok = readWords(value, serverStatuses); !ok {
		return badRequest("bad_status", "status must be all, or some of "+strings.Join(serverStatuses, ", ")+", separated by commas")
	}
	return nil
}

// readWords reads words that are separated by commas.
func readWords(value string, known []string) (words []string, ok bool) {
	words = strings.Split(value, ",")
	for _, w := range words {
		if !slices.Contains(known, w) {
			return nil, false
		}
	}
	slices.Sort(words)
	return slices.Compact(words), true
}

func readBilling(given url.Values, q *db.ServersQuery) error {
	switch q.Billing = given.Get("billing"); q.Billing {
	case "", "on", "off":
	default:
		return badRequest("bad_billing", "billing must be on or off")
	}
	if reason := given.Get("reason"); reason != "" {
		var ok bool
		if q.Reasons, ok = readWords(reason, offReasons); !ok {
			return badRequest("bad_reason", "reason must be some of "+strings.Join(offReasons, ", ")+", separated by commas")
		}
	}
	return nil
}

func readOwners(given url.Values, q *db.ServersQuery) error {
	if user := given.Get("user"); user != "" {
		id, err := readUserID(user, "bad_user")
		if err != nil {
			return err
		}
		q.UserID = &id
	}
	var ok bool
	if q.OwnerID, ok = readNumber(given.Get("owner")); !ok {
		return badRequest("bad_owner", "owner must be a VirtFusion user id, or 0 for servers whose owner is unknown")
	}
	if q.PackageID, ok = readNumber(given.Get("package")); !ok {
		return badRequest("bad_package", "package must be the id of a VirtFusion package")
	}
	switch given.Get("awaiting") {
	case "":
	case "true":
		q.Awaiting = new(true)
	case "false":
		q.Awaiting = new(false)
	default:
		return badRequest("bad_awaiting", "awaiting must be true or false")
	}
	return nil
}

// readNumber reads an id; nil when there is none.
func readNumber(value string) (*int64, bool) {
	if value == "" {
		return nil, true
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || value[0] == '+' || value[0] == '-' {
		return nil, false
	}
	return &n, true
}

func readSearch(given url.Values, q *db.ServersQuery) error {
	q.Search = strings.TrimSpace(given.Get("q"))
	if !given.Has("q") || given.Get("q") == "" {
		return nil
	}
	if n := utf8.RuneCountInString(q.Search); n < minSearch || n > maxSearch || !isText(q.Search) {
		return badRequest("bad_q", "q must be from 2 to 200 characters of text: part of an id, a name, a hostname, a UUID or an address")
	}
	return nil
}

// isText reports whether s is text of one line.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func readNetwork(given url.Values, q *db.ServersQuery) error {
	value := given.Get("ip")
	if value == "" {
		return nil
	}
	network, err := netip.ParsePrefix(value)
	if err != nil {
		address, err := netip.ParseAddr(value)
		if err != nil || address.Zone() != "" {
			return badRequest("bad_ip", "ip must be an address such as 192.0.2.7 or 2001:db8::7, or a network such as 192.0.2.0/24")
		}
		network = netip.PrefixFrom(address, address.BitLen())
	}
	if network.Addr().Is4In6() {
		return badRequest("bad_ip", "write an IPv4 address as such: 192.0.2.7")
	}
	if network.Addr().Is4() && network.Bits() < 8 || network.Addr().Is6() && network.Bits() < 16 {
		return badRequest("bad_ip", "a network may be an IPv4 /8 or an IPv6 /16 at most")
	}
	q.Network = network.Masked()
	return nil
}

func readHypervisor(given url.Values, q *db.ServersQuery) error {
	value := given.Get("hypervisor")
	if value == "" {
		return nil
	}
	if id, ok := readNumber(value); ok {
		q.Hypervisor.ID = id
		return nil
	}
	if len(value) > maxHypervisorName || !isText(value) {
		return badRequest("bad_hypervisor", "hypervisor must be the id of one, or its whole name")
	}
	q.Hypervisor.Name = value
	return nil
}

func readMoments(given url.Values, q *db.ServersQuery) error {
	for name, moment := range map[string]*time.Time{"created_after": &q.CreatedAfter, "created_before": &q.CreatedBefore, "seen_before": &q.SeenBefore} {
		value := given.Get(name)
		if value == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			t, err = time.Parse(time.DateOnly, value)
		}
		if err != nil || t.Year() < 1970 {
			return badRequest("bad_"+name, name+" must be a time such as 2026-03-01T12:00:00Z, or a day such as 2026-03-01 (UTC), from 1970 on")
		}
		*moment = t
	}
	return nil
}

func readSort(given url.Values, q *db.ServersQuery) error {
	value := given.Get("sort")
	if value == "" {
		value = "-" + db.SortFirstSeen
	}
	q.Sort, q.Descending = strings.CutPrefix(value, "-")
	if !slices.Contains(serverSorts, q.Sort) {
		return badRequest("bad_sort", "sort must be one of "+strings.Join(serverSorts, ", ")+"; with - before it for the other direction")
	}
	return nil
}

func readServersPage(given url.Values, q *db.ServersQuery) error {
	var err error
	if q.Limit, err = readLimit(given.Get("limit"), defaultServers, maxServers); err != nil {
		return err
	}
	if cursor := given.Get("cursor"); cursor != "" {
		var ok bool
		if q.After, ok = readServerCursor(cursor, q); !ok {
			return badRequest("bad_cursor", "cursor must be the nextCursor of the page before, with the same sort")
		}
	}
	return nil
}

// readLimit reads how many items a page may have.
func readLimit(value string, byDefault, atMost int) (int, error) {
	if value == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return 0, badRequest("bad_limit", "limit must be a number from 1 to "+strconv.Itoa(atMost))
	}
	return min(n, atMost), nil
}

// place is what a cursor holds: the order, and the last server's place in it.
type place struct {
	Sort string `json:"s"`
	Key  string `json:"k"`
	ID   int64  `json:"i"`
}

func sortName(q *db.ServersQuery) string {
	if q.Descending {
		return "-" + q.Sort
	}
	return q.Sort
}

func serverCursor(q *db.ServersQuery, last *db.ListedServer) string {
	key := last.Key(q.Sort)
	p := place{Sort: sortName(q), ID: key.ID}
	switch v := key.Value.(type) {
	case string:
		p.Key = v
	case int64:
		p.Key = strconv.FormatInt(v, 10)
	case time.Time:
		p.Key = strconv.FormatInt(v.UnixMicro(), 10)
	}
	return encodeCursor(p)
}

func readServerCursor(cursor string, q *db.ServersQuery) (*db.ServerKey, bool) {
	p, ok := decodeCursor[place](cursor)
	if !ok || p.Sort != sortName(q) || p.ID < 0 {
		return nil, false
	}
	key := db.ServerKey{Value: p.Key, ID: p.ID}
	switch q.Sort {
	case db.SortName, db.SortStatus:
		return &key, !strings.ContainsRune(p.Key, 0)
	case db.SortID, db.SortUser:
		n, err := strconv.ParseInt(p.Key, 10, 64)
		key.Value = n
		return &key, err == nil && n >= 0
	}
	n, err := strconv.ParseInt(p.Key, 10, 64)
	key.Value = time.UnixMicro(n).UTC()
	return &key, err == nil && n >= firstMoment.UnixMicro() && n <= lastMoment.UnixMicro()
}

// firstMoment stands for a time that nobody said.
var firstMoment = time.Time{}

// encodeCursor makes a text of a place that nobody is meant to read.
func encodeCursor(place any) string {
	raw, err := json.Marshal(place)
	if err != nil { // of texts and numbers
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func decodeCursor[T any](cursor string) (place T, ok bool) {
	if len(cursor) > maxCursor {
		return place, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || !utf8.Valid(raw) {
		return place, false
	}
	return place, json.Unmarshal(raw, &place) == nil
}
