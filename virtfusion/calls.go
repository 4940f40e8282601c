package virtfusion

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// MaxPerPage is the most rows that VirtFusion puts on a page.
const MaxPerPage = 200

// Connect asks whether VirtFusion accepts the token. [ErrMalformed]: something
// else answered, such as a web page.
func (c *Client) Connect(ctx context.Context) error {
	answer, err := c.get(ctx, "/connect", nil)
	if err != nil {
		return err
	}
	if !answer.accepts() {
		return answer.malformed("something other than VirtFusion's API answered", nil)
	}
	return nil
}

// ListServers returns one page (from 1) of all servers, perPage (1 to
// [MaxPerPage]) rows each, in the full form or as simple rows. A page past the
// last is empty.
func (c *Client) ListServers(ctx context.Context, page, perPage int, full bool) (Page, error) {
	const path = "/servers"
	if page < 1 || perPage < 1 || perPage > MaxPerPage {
		return Page{}, invalid(path, fmt.Sprintf("page %d of %d rows: pages count from 1, rows are 1 to %d", page, perPage, MaxPerPage))
	}
	form := "simple"
	if full {
		form = "full"
	}
	answer, err := c.get(ctx, path, url.Values{
		"type":    {form},
		"results": {strconv.Itoa(perPage)},
		"page":    {strconv.Itoa(page)},
	})
	if err != nil {
		return Page{}, err
	}
	body, err := answer.object()
	if err != nil {
		return Page{}, err
	}
	result, known := readPage(body)
	if !known {
		return Page{}, answer.malformed("the page has no list of servers", nil)
	}
	result.ObservedAt = answer.observedAt
	return result, nil
}

// GetServer returns one server in the full form. [ErrNotFound] is VirtFusion's
// word that it is gone; the error then holds ObservedAt.
func (c *Client) GetServer(ctx context.Context, id int64) (Observation, error) {
	path := "/servers/" + strconv.FormatInt(id, 10)
	if id < 1 {
		return Observation{}, invalid(path, "server ids count from 1")
	}
	data, answer, err := c.getObject(ctx, path)
	if err != nil {
		return Observation{}, err
	}
	server := readServer(data)
	if server.ID != id {
		return Observation{}, answer.malformed(fmt.Sprintf("asked for server %d, VirtFusion described server %d", id, server.ID), nil)
	}
	return Observation{Server: server, ObservedAt: answer.observedAt}, nil
}

// ServersOfUser returns the servers of a VirtFusion user, in a form of their
// own. [ErrNotFound]: there is no such user.
func (c *Client) ServersOfUser(ctx context.Context, userID int64) (UserServers, error) {
	path := "/servers/user/" + strconv.FormatInt(userID, 10)
	if userID < 1 {
		return UserServers{}, invalid(path, "VirtFusion user ids count from 1")
	}
	found, answer, err := getRows(ctx, c, path, readServers)
	if err != nil {
		return UserServers{}, err
	}
	return UserServers{Servers: found, ObservedAt: answer.observedAt}, nil
}

// UserByExtRelation returns the VirtFusion user that belongs to the billing
// panel's user ext (SkyPANEL's users.id). [ErrNotFound]: nobody does.
func (c *Client) UserByExtRelation(ctx context.Context, ext int64) (User, error) {
	path := "/users/" + strconv.FormatInt(ext, 10) + "/byExtRelation"
	if ext < 1 {
		return User{}, invalid(path, "external relation ids count from 1")
	}
	data, answer, err := c.getObject(ctx, path)
	if err != nil {
		return User{}, err
	}
	user := readUser(data)
	if user.ID == 0 || (user.ExtRelationID != nil && *user.ExtRelationID != ext) {
		return User{}, answer.malformed(fmt.Sprintf("asked for the user of external relation %d, VirtFusion described another", ext), nil)
	}
	return user, nil
}

// Packages returns all packages; one without an id has ID 0.
func (c *Client) Packages(ctx context.Context) ([]Package, error) {
	found, _, err := getRows(ctx, c, "/packages", readPackages)
	return found, err
}

// Package returns one package. [ErrNotFound]: there is no such package.
func (c *Client) Package(ctx context.Context, id int64) (Package, error) {
	path := "/packages/" + strconv.FormatInt(id, 10)
	if id < 1 {
		return Package{}, invalid(path, "package ids count from 1")
	}
	data, answer, err := c.getObject(ctx, path)
	if err != nil {
		return Package{}, err
	}
	plan := readPackage(data)
	if plan.ID != id {
		return Package{}, answer.malformed(fmt.Sprintf("asked for package %d, VirtFusion described package %d", id, plan.ID), nil)
	}
	return plan, nil
}

// Credit is an amount of a user's self-service credit.
type Credit struct {
	// Tokens are whole ones, at least 1.
	Tokens int64 `json:"tokens"`
	// Reference1 and Reference2 come back in VirtFusion's own records.
	Reference1 int64  `json:"reference_1"`
	Reference2 string `json:"reference_2"`
}

// CreditReceipt is VirtFusion's record of a credit call.
type CreditReceipt struct {
	// ID is VirtFusion's id of the record; 0 when the answer names none.
	ID int64
}

// AddCredit gives credit to the VirtFusion user of the external relation ext.
//
// It is sent once. [ErrOutcomeUnknown] says that VirtFusion may have carried it
// out all the same; every other error says that it did not. Done means a 2xx
// with VirtFusion's JSON or with nothing: a web page of another is no receipt.
func (c *Client) AddCredit(ctx context.Context, ext int64, credit Credit) (CreditReceipt, error) {
	return c.moveCredit(ctx, http.MethodPost, ext, credit)
}

// RemoveCredit takes credit from the VirtFusion user of the external relation
// ext, on the same terms as [Client.AddCredit].
func (c *Client) RemoveCredit(ctx context.Context, ext int64, credit Credit) (CreditReceipt, error) {
	return c.moveCredit(ctx, http.MethodDelete, ext, credit)
}

func (c *Client) moveCredit(ctx context.Context, method string, ext int64, credit Credit) (CreditReceipt, error) {
	r := request{method: method, path: "/selfService/credit/byUserExtRelationId/" + strconv.FormatInt(ext, 10), once: true}
	if ext < 1 || credit.Tokens < 1 {
		return CreditReceipt{}, invalid(r.path, "credit needs a user and at least one token")
	}
	body, err := json.Marshal(credit)
	if err != nil {
		return CreditReceipt{}, fmt.Errorf("virtfusion: %s: encode: %w", r.op(), err)
	}
	r.body = body
	answer, err := c.do(ctx, r)
	if err != nil {
		return CreditReceipt{}, err
	}
	var wire struct {
		Data struct {
			ID number `json:"id"`
		} `json:"data"`
	}
	_ = decodeLeniently(answer.body, &wire) // any JSON is the receipt, and so is none
	return CreditReceipt{ID: wire.Data.ID.id()}, nil
}

// get makes a read.
func (c *Client) get(ctx context.Context, path string, query url.Values) (*answer, error) {
	return c.do(ctx, request{method: http.MethodGet, path: path, query: query})
}

// getObject reads {"data": object}, and returns the object.
func (c *Client) getObject(ctx context.Context, path string) ([]byte, *answer, error) {
	answer, err := c.get(ctx, path, nil)
	if err != nil {
		return nil, nil, err
	}
	body, err := answer.object()
	if err != nil {
		return nil, nil, err
	}
	data := field(body, "data")
	if !isObject(data) {
		return nil, nil, answer.malformed("the answer has no object in data", nil)
	}
	return data, answer, nil
}

// getRows reads {"data": […]}.
func getRows[T any](ctx context.Context, c *Client, path string, read func([]byte) ([]T, bool)) ([]T, *answer, error) {
	answer, err := c.get(ctx, path, nil)
	if err != nil {
		return nil, nil, err
	}
	body, err := answer.object()
	if err != nil {
		return nil, nil, err
	}
	found, known := read(field(body, "data"))
	if !known {
		return nil, nil, answer.malformed("the answer has no list in data", nil)
	}
	return found, answer, nil
}
