package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"serversync/virtfusion/virtfusionsim"
)

// bodySize is that of the webhooks that are sent: as large as VirtFusion's.
const bodySize = 4096

// webhookToken is what the endpoint asks for.
const webhookToken = "a-token-for-bench"

// request is a whole HTTP request with a webhook in it, whose server, owner and
// time are written over in place: making it costs the client nothing.
type request struct {
	bytes                      []byte
	ids, owners, relations, at []int // where they stand
	uuids                      []int
}

// What stands in the model of a body where something is written over.
const (
	modelID       = 900_000_001
	modelOwner    = 900_011
	modelRelation = 900_022
	modelUUID     = "1b0e9a3c-6a0e-4c0b-9d4f-0000000abcde"
	timeForm      = "2006-01-02T15:04:05.000000Z"
)

// newRequest makes the model of all requests, from a webhook of the simulated
// VirtFusion.
func newRequest() (*request, error) {
	now := time.Now().UTC()
	panel := virtfusionsim.New(virtfusionsim.Config{Clock: func() time.Time { return now }, WebhookToken: webhookToken})
	panel.AddUser(virtfusionsim.User{ID: modelOwner, ExtRelationID: modelRelation, Name: "Customer of the bench"})
	plan := packages()[0]
	panel.AddPackage(virtfusionsim.Package{ID: plan.ID, Name: plan.Name, MemoryMB: plan.MemoryMB, StorageGB: plan.StorageGB, TrafficGB: plan.TrafficGB, CPUCores: plan.CPUCores})
	panel.AddHypervisor(virtfusionsim.Hypervisor{ID: 1, Name: "host1", GroupID: 1})
	if _, err := panel.CreateServer(virtfusionsim.CreateArgs{
		ID: modelID, UUID: modelUUID, OwnerID: modelOwner, PackageID: plan.ID, Name: "srv-" + strconv.Itoa(modelID),
		Hostname: "srv.customer.example", Built: true, Silent: true, Created: now.Add(-time.Hour),
	}); err != nil {
		return nil, err
	}
	const event = "server.create"
	// Of two webhooks in a row one has its ids as numbers, the other as text:
	// the first is taken.
	body, err := panel.WebhookBody(modelID, event)
	if err != nil {
		return nil, err
	}
	if body, err = padded(body); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST /webhooks/virtfusion HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n", len(body))
	header := panel.WebhookHeader(event)
	header.Del("X-VirtFusion-Created") // else the time would have to be written there too
	if err := header.Write(&b); err != nil {
		return nil, fmt.Errorf("write the header of a webhook: %w", err)
	}
	b.WriteString("\r\n")
	b.Write(body)
	r := &request{bytes: b.Bytes()}
	r.ids = places(r.bytes, strconv.Itoa(modelID))
	r.owners = places(r.bytes, strconv.Itoa(modelOwner))
	r.relations = places(r.bytes, strconv.Itoa(modelRelation))
	r.uuids = places(r.bytes, modelUUID)
	r.at = places(r.bytes, now.Format(timeForm))
	if len(r.ids) == 0 || len(r.owners) == 0 || len(r.relations) != 1 || len(r.uuids) != 1 || len(r.at) != 1 {
		return nil, fmt.Errorf("the model of a webhook is not as it was thought: %s", body)
	}
	return r, nil
}

// padded makes a body as large as a real one is, by its screenshot.
func padded(body []byte) ([]byte, error) {
	short := bodySize - len(body)
	if short <= 0 {
		return body, nil
	}
	const screen = "data:image/png;base64,"
	longer := bytes.Replace(body, []byte(screen), []byte(screen+strings.Repeat("A", short)), 1)
	if !json.Valid(longer) || len(longer) != bodySize {
		return nil, fmt.Errorf("a webhook of %d bytes could not be made %d long", len(body), bodySize)
	}
	return longer, nil
}

// places are where a text stands.
func places(in []byte, text string) []int {
	var all []int
	for at := 0; ; {
		i := bytes.Index(in[at:], []byte(text))
		if i < 0 {
			return all
		}
		all = append(all, at+i)
		at += i + len(text)
	}
}

// copy is a request for one connection.
func (r *request) copy() *request {
	c := *r
	c.bytes = bytes.Clone(r.bytes)
	return &c
}

// about makes the request tell of the nth server, at a time.
func (r *request) about(n int64, at time.Time) []byte {
	owner := n % customers
	r.number(r.ids, firstServer+n, 9)
	r.number(r.owners, firstAccount+owner, 6)
	r.number(r.relations, firstUser+owner, 6)
	const hex = "0123456789abcdef"
	for _, p := range r.uuids {
		for i, rest := p+len(modelUUID)-1, n; i >= p+len(modelUUID)-12; i, rest = i-1, rest>>4 {
			r.bytes[i] = hex[rest&15]
		}
	}
	var room [64]byte // formatting uses more of it than the text needs
	text := at.UTC().AppendFormat(room[:0], timeForm)
	for _, p := range r.at {
		copy(r.bytes[p:], text)
	}
	return r.bytes
}

func (r *request) number(at []int, n int64, digits int) {
	for _, p := range at {
		for i, rest := p+digits-1, n; i >= p; i, rest = i-1, rest/10 {
			r.bytes[i] = byte('0' + rest%10)
		}
	}
}
