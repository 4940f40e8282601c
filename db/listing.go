package db

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// What a list of servers can be sorted by; equal ones are in the order of their
// ids.
const (
	SortID        = "id"
	SortName      = "name" // in lower case, by code points
	SortCreated   = "created"
	SortUpdated   = "updated"
	SortFirstSeen = "first_seen"
	SortStatus    = "status"
	SortUser      = "user" // those who are nobody's come first
)

// sortKeys are the expressions that the list's indexes are made of, and the type
// of each.
var sortKeys = map[string]struct{ expression, kind string }{
	SortID:        {"s.virtfusion_id", "bigint"},
	SortName:      {`lower(s.name) COLLATE "C"`, "text"},
	SortCreated:   {"coalesce(s.created_at, timestamptz '0001-01-01 00:00:00+00')", "timestamptz"},
	SortUpdated:   {"coalesce(s.updated_at, timestamptz '0001-01-01 00:00:00+00')", "timestamptz"},
	SortFirstSeen: {"s.first_seen_at", "timestamptz"},
	SortStatus:    {"s.status", "text"},
	SortUser:      {"coalesce(s.user_id, 0)", "bigint"},
}

// ServersQuery selects servers for [ListServers]; zero values select all.
type ServersQuery struct {
	IDs           []int64  // VirtFusion's; nil: all
	UserID        *int64   // SkyPANEL users.id
	OwnerID       *int64   // VirtFusion user id
	Statuses      []string // nil: all but gone
	AnyStatus     bool     // gone too; Statuses counts for nothing
	Billing       string   // 'on', 'off'
	Reasons       []string // billing_reason
	Search        string   // part of id, name, hostname, UUID or an address; at least two characters
	Network       netip.Prefix
	Hypervisor    HypervisorRef
	PackageID     *int64
	Awaiting      *bool // a person's approval
	CreatedAfter  time.Time
	CreatedBefore time.Time
	SeenBefore    time.Time

	Sort       string // one of the constants; empty: SortFirstSeen
	Descending bool
	After      *ServerKey // the last server of the page before
	Limit      int        // 0: no limit
}

// HypervisorRef names a hypervisor by one of the two.
type HypervisorRef struct {
	ID   *int64
	Name string // in any case
}

// ServerKey is a server's place in a list: what it is sorted by, and its id.
type ServerKey struct {
	Value any // int64, string or time.Time, as the sort has it
	ID    int64
}

// ListedServer is a server with what the billing row that counts says.
type ListedServer struct {
	Server
	// Monthly is the row's price in dollars, by Hours in a month (> 0); invalid:
	// there is no row.
	Monthly decimal.NullDecimal
	Hours   int64
	// LowerName is what SortName sorts by.
	LowerName string
}

// Key is the server's place in a list that is sorted so.
func (l *ListedServer) Key(sort string) ServerKey {
	k := ServerKey{ID: l.VirtfusionID}
	switch sort {
	case SortID:
		k.Value = l.VirtfusionID
	case SortName:
		k.Value = l.LowerName
	case SortCreated:
		k.Value = orFirst(l.CreatedAt)
	case SortUpdated:
		k.Value = orFirst(l.UpdatedAt)
	case SortStatus:
		k.Value = l.Status
	case SortUser:
		k.Value = int64(0)
		if l.UserID != nil {
			k.Value = *l.UserID
		}
	default:
		k.Value = l.FirstSeenAt
	}
	return k
}

// orFirst is the time, or the one that stands for a time which nobody said.
func orFirst(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// ListServers reads a page of the inventory. Each order, and each filter but
// SeenBefore, has an index: where SeenBefore alone selects, the inventory is read
// in the list's order until the page is full.
func ListServers(ctx context.Context, idb bun.IDB, q ServersQuery) ([]ListedServer, error) {
	policy, err := ReadPolicy(ctx, idb)
	if err != nil {
		return nil, err
	}
	statement, args := q.statement(policy.HoursPerMonth)
	servers, err := queryAll(ctx, idb, scanListed, statement, args...)
	if err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	return servers, nil
}

func scanListed(rows *sql.Rows) (ListedServer, error) {
	var l ListedServer
	var err error
	l.Server, err = scanServerAnd(rows, &l.Monthly, &l.Hours, &l.LowerName)
	return l, err
}

// statement writes the query. What has an index selects within the innermost
// parentheses; OFFSET 0 keeps the planner from moving the rest into them, where
// it would read the whole table for it.
func (q *ServersQuery) statement(hours int64) (statement string, args []any) {
	p := &parameters{}
	key, direction := sortKeys[SortFirstSeen], "ASC"
	if k, ok := sortKeys[q.Sort]; ok {
		key = k
	}
	if q.Descending {
		direction = "DESC"
	}
	order := fmt.Sprintf("ORDER BY %s %s, s.virtfusion_id %s", key.expression, direction, direction)
	inner, outer := q.conditions(p), ""
	written, due := q.search(p)
	if q.After != nil {
		comparison := ">"
		if q.Descending {
			comparison = "<"
		}
		inner = append(inner, fmt.Sprintf("(%s, s.virtfusion_id) %s (%s, %s)",
			key.expression, comparison, p.add(q.After.Value, key.kind), p.add(q.After.ID, "bigint")))
	}
	limit := ""
	if q.Limit > 0 {
		limit = "LIMIT " + p.add(q.Limit, "bigint")
	}
	bound := limit
	if !q.SeenBefore.IsZero() {
		bound, outer = "OFFSET 0", "WHERE s.last_seen_at < "+p.add(q.SeenBefore, "timestamptz")
	}
	return `
		SELECT ` + serverColumns + `, b.monthly_price, CASE WHEN b.hours_in_month > 0 THEN b.hours_in_month ELSE ` + p.add(hours, "bigint") + ` END, lower(s.name)
		FROM (
			SELECT s.* FROM (` + either(inner, written, due, order+" "+bound) + `) s
			` + outer + ` ` + order + ` ` + limit + `) s
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = s.billing_id
		` + order, p.values
}

// either selects servers by all conditions of inner and, where there are any, all
// of written or all of due: as two queries, each of which can end once it has
// enough.
func either(inner, written, due []string, order string) string {
	selecting := func(more []string) string {
		return "(SELECT s.* FROM serversync.servers s WHERE " + strings.Join(slices.Concat(inner, more), " AND ") + " " + order + ")"
	}
	if written == nil {
		return selecting(nil)
	}
	return selecting(written) + " UNION ALL " + selecting(due)
}

// livingStatuses are all but gone. Named one by one, they can be looked up in an
// index.
var livingStatuses = []string{"settling", "external", "native", "unlinked", "conflict"}

// conditions are those that an index can answer, or that another's index
// narrows down first.
func (q *ServersQuery) conditions(p *parameters) []string {
	all := []string{"true"}
	is := func(condition string, value any, kind string) {
		all = append(all, strings.Replace(condition, "?", p.add(value, kind), 1))
	}
	switch {
	case q.AnyStatus:
	case q.Statuses == nil:
		is("s.status = ANY (?)", livingStatuses, "text[]")
	default:
		is("s.status = ANY (?)", q.Statuses, "text[]")
	}
	if q.IDs != nil {
		is("s.virtfusion_id = ANY (?)", q.IDs, "bigint[]")
	}
	if q.UserID != nil {
		is("s.user_id = ?", *q.UserID, "bigint")
	}
	if q.OwnerID != nil {
		is("s.owner_id = ?", *q.OwnerID, "bigint")
	}
	if q.Billing != "" {
		is("s.billing = ?", q.Billing, "text")
	}
	if q.Reasons != nil {
		is("s.billing_reason = ANY (?)", q.Reasons, "text[]")
	}
	if q.PackageID != nil {
		is("s.package_id = ?", *q.PackageID, "bigint")
	}
	if q.Hypervisor.ID != nil {
		is("s.hypervisor_id = ?", *q.Hypervisor.ID, "bigint")
	}
	if q.Hypervisor.Name != "" {
		is("lower(s.hypervisor_name) = lower(?)", q.Hypervisor.Name, "text")
	}
	if !q.CreatedAfter.IsZero() {
		is(sortKeys[SortCreated].expression+" >= ?", q.CreatedAfter, "timestamptz")
	}
	if !q.CreatedBefore.IsZero() {
		is(sortKeys[SortCreated].expression+" < ? AND s.created_at IS NOT NULL", q.CreatedBefore, "timestamptz")
	}
	switch {
	case q.Awaiting == nil:
	case *q.Awaiting:
		all = append(all, "s.awaiting_run <> ''")
	default:
		all = append(all, "s.awaiting_run = ''")
	}
	return all
}

// search finds texts and networks: written are the conditions for servers whose
// words are written, due for those where that is still to be done ([KeepWords]),
// which are few, and are looked at themselves.
//
// Words are found through their pairs of letters. All pairs are in many texts that
// do not hold the whole, hence strpos.
func (q *ServersQuery) search(p *parameters) (written, due []string) {
	within := func(texts ...string) {
		indexed, plain := make([]string, len(texts)), make([]string, len(texts))
		for i, text := range texts {
			part := "lower(" + p.add(text, "text") + ")"
			indexed[i] = "serversync.pairs(w.words) @> serversync.pairs(" + part + ") AND strpos(w.words, " + part + ") > 0"
			plain[i] = "strpos(serversync.words_of(s.virtfusion_id, s.name, s.hostname, s.uuid, s.ip_addresses), " + part + ") > 0"
		}
		written = append(written, "s.virtfusion_id IN (SELECT w.virtfusion_id FROM serversync.server_words w WHERE "+strings.Join(indexed, " OR ")+")")
		due = append(due, "("+strings.Join(plain, " OR ")+")")
	}
	if q.Search != "" {
		within(q.Search)
	}
	if q.Network.IsValid() {
		within(networkTexts(q.Network)...)
		holds := "EXISTS (SELECT FROM unnest(s.ip_addresses) AS a WHERE serversync.to_inet(a) && " + p.add(q.Network.String(), "inet") + ")"
		written, due = append(written, holds), append(due, holds)
	}
	if written == nil {
		return nil, nil
	}
	written = append(written, "s.virtfusion_id NOT IN (SELECT d.virtfusion_id FROM serversync.words_due d)")
	return written, append(due, "s.virtfusion_id = ANY (ARRAY(SELECT DISTINCT d.virtfusion_id FROM serversync.words_due d))")
}

// networkTexts are texts of which one is in the words of every server that has
// an address in the network, or a network around a single address: an IPv4 one of
// at most a /24, or an IPv6 one of a usual size.
func networkTexts(network netip.Prefix) []string {
	address := network.Masked().Addr()
	if address.Is4() {
		parts := strings.Split(address.String(), ".")[:min(network.Bits(), 24)/8]
		return []string{strings.Join(parts, ".") + "."}
	}
	if !network.IsSingleIP() {
		return []string{beginning(address, network.Bits()/16)}
	}
	texts := []string{address.String()}
	for _, bits := range []int{48, 56, 60, 64, 80, 96, 112} {
		texts = append(texts, netip.PrefixFrom(address, bits).Masked().String())
	}
	return texts
}

// beginning is how addresses that have so many groups of 16 bits in common begin
// when they are written out. Groups of zeros may be written as "::", but a single
// one between others is not.
func beginning(address netip.Addr, groups int) string {
	raw := address.As16()
	var written []string
	for i := range groups {
		written = append(written, strconv.FormatUint(uint64(raw[2*i])<<8|uint64(raw[2*i+1]), 16))
	}
	for i, g := range written {
		if g == "0" && (i == 0 || i+1 == len(written) || written[i+1] == "0") {
			written = written[:i]
			break
		}
	}
	if len(written) == 0 {
		return "::"
	}
	return strings.Join(written, ":")
}

// ReadUserName reads what a user of SkyPANEL is called: the full name, else the
// username, else nothing. [ErrNoUser]: there is no such user.
func ReadUserName(ctx context.Context, idb bun.IDB, userID int64) (string, error) {
	names, err := queryAll(ctx, idb, func(rows *sql.Rows) (name string, err error) {
		return name, rows.Scan(&name)
	}, `
		SELECT coalesce(nullif(btrim(u.full_name), ''), btrim(u.username), '')
		FROM public.users u WHERE u.id = $1`, userID)
	if err == nil && len(names) == 0 {
		err = ErrNoUser
	}
	if err != nil {
		return "", fmt.Errorf("read the name of user %d: %w", userID, err)
	}
	return names[0], nil
}

// parameters collects the values of a statement that is put together.
type parameters struct{ values []any }

// add keeps a value and returns how the statement names it, with its type.
func (p *parameters) add(value any, kind string) string {
	p.values = append(p.values, value)
	return "$" + strconv.Itoa(len(p.values)) + "::" + kind
}
