package ingest

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"serversync/events"
	"serversync/virtfusion"
)

func arrival() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func TestKindOf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, status string
		kind         events.Kind
		failed       bool
	}{
		{"server.create", "success", events.KindCreated, false},
		{"server.created", "", events.KindCreated, false},
		{"server.create", "SUCCESS", events.KindCreated, false},
		{"server.create", "fail", events.KindCreated, true},
		{"server.destroy", "success", events.KindDestroyed, false},
		{"server.deleted", "success", events.KindDestroyed, false},
		{"server.destroyed", "", events.KindDestroyed, false},
		{"server.destroy", "fail", events.KindUpdated, true},
		{"server.deleted", "pending", events.KindUpdated, true},
		{"server.updated", "success", events.KindUpdated, false},
		{"server.update", "success", events.KindUpdated, false},
		{"server.build", "fail", events.KindUpdated, true},
		{"server.assign.ipv6", "success", events.KindUpdated, false},
		{"server.something.new", "", events.KindUpdated, false},
	}
	for _, tt := range tests {
		d := delivery{name: tt.name, status: tt.status, created: arrival(), receivedAt: arrival()}
		e := d.event(&virtfusion.Server{ID: 1})
		if e.Kind != tt.kind || e.Failed != tt.failed || e.Name != tt.name {
			t.Errorf("%s %q = %s, failed %t, name %s; want %s, failed %t", tt.name, tt.status, e.Kind, e.Failed, e.Name, tt.kind, tt.failed)
		}
	}
}

func TestReadDelivery(t *testing.T) {
	t.Parallel()
	header := http.Header{}
	header.Set(virtfusion.HeaderEvent, "server.create")
	header.Set(virtfusion.HeaderEventStatus, "fail")
	header.Set(virtfusion.HeaderCreated, "2026-02-28T01:02:03.456789Z")
	inHeader := time.Date(2026, 2, 28, 1, 2, 3, 456789000, time.UTC)
	inBody := time.Date(2026, 2, 27, 23, 0, 0, 0, time.FixedZone("", 3600))

	complete := readDelivery(&virtfusion.Webhook{Event: "server.build", EventStatus: "success", Created: &inBody}, header, arrival())
	if complete.name != "server.build" || complete.status != "success" || !complete.created.Equal(inBody) || complete.created.Location() != time.UTC {
		t.Errorf("the body does not come first: %+v", complete)
	}
	silent := readDelivery(&virtfusion.Webhook{}, header, arrival())
	if silent.name != "server.create" || silent.status != "fail" || !silent.created.Equal(inHeader) {
		t.Errorf("the headers do not speak where the body is silent: %+v", silent)
	}
	if bare := readDelivery(&virtfusion.Webhook{}, http.Header{}, arrival()); bare.name != "" || bare.status != "" || !bare.created.Equal(arrival()) {
		t.Errorf("without anything: %+v", bare)
	}
}

func TestFirstPlausible(t *testing.T) {
	t.Parallel()
	other := arrival().Add(-time.Hour)
	for name, tt := range map[string]struct {
		said *time.Time
		want time.Time
	}{
		"said":             {new(arrival().Add(-time.Minute)), arrival().Add(-time.Minute)},
		"long ago":         {new(time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)), time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)},
		"before 2010":      {new(time.Date(2009, 12, 31, 23, 59, 59, 0, time.UTC)), other},
		"zero":             {new(time.Time{}), other},
		"a little ahead":   {new(arrival().Add(5 * time.Minute)), arrival().Add(5 * time.Minute)},
		"too far ahead":    {new(arrival().Add(5*time.Minute + 1)), other},
		"missing":          {nil, other},
		"year 2010 at UTC": {new(time.Date(2010, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600))), other},
	} {
		if got := firstPlausible(arrival(), tt.said, &other); !got.Equal(tt.want) || got.Location() != time.UTC {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	if got := firstPlausible(arrival(), nil, nil); !got.Equal(arrival()) {
		t.Errorf("nothing said: %s, want the arrival", got)
	}
}

func TestPackageOfACreation(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		event       string
		inServer    *int64
		inArgs      *int64
		wantPackage *int64
	}{
		"from the request":      {"server.create", nil, new(int64(5)), new(int64(5))},
		"the server knows best": {"server.create", new(int64(4)), new(int64(5)), new(int64(4))},
		"not a creation":        {"server.build", nil, new(int64(5)), nil},
		"nobody says":           {"server.create", nil, nil, nil},
		"not an id":             {"server.create", nil, new(int64(0)), nil},
	} {
		d := delivery{name: tt.event, created: arrival(), receivedAt: arrival(), packageID: tt.inArgs}
		if got := d.event(&virtfusion.Server{ID: 1, PackageID: tt.inServer}).Server.PackageID; !cmp.Equal(got, tt.wantPackage) {
			t.Errorf("%s: %v, want %v", name, got, tt.wantPackage)
		}
	}
}

func TestKeepOwner(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		id    *int64
		owner *virtfusion.Owner
		want  *events.Owner
	}{
		"nothing":              {nil, nil, nil},
		"id alone":             {new(int64(3)), nil, &events.Owner{ID: 3}},
		"object":               {new(int64(3)), &virtfusion.Owner{ExtRelationID: new(int64(17))}, &events.Owner{ID: 3, ExtRelationID: new(int64(17)), Whole: true}},
		"object without":       {new(int64(3)), &virtfusion.Owner{}, &events.Owner{ID: 3, Whole: true}},
		"object, no id":        {nil, &virtfusion.Owner{ExtRelationID: new(int64(17))}, nil},
		"id 0":                 {new(int64(0)), nil, nil},
		"negative":             {new(int64(-1)), nil, nil},
		"ext relation below 1": {new(int64(3)), &virtfusion.Owner{ExtRelationID: new(int64(0))}, &events.Owner{ID: 3, Whole: true}},
	} {
		if diff := cmp.Diff(tt.want, keepOwner(&virtfusion.Server{OwnerID: tt.id, Owner: tt.owner})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestKeepBoundsEverything(t *testing.T) {
	t.Parallel()
	nonsense := new(int64(math.MinInt64))
	got := keep(&virtfusion.Server{
		ID: 1, Name: new(strings.Repeat("x", 1<<20)), Hostname: new("a\x00b\xffc"), State: new(strings.Repeat("é", 1000)),
		UUID: new("\x00"), HypervisorName: new("\x00"),
		CommissionStatus: nonsense, SelfService: nonsense, PackageID: nonsense, MemoryMB: nonsense, StorageGB: nonsense,
		TrafficGB: nonsense, CPUCores: nonsense, HypervisorID: nonsense, HypervisorGroupID: nonsense,
		IPAddresses: append([]string{"", "a b", "192.0.2.1 192.0.2.2"}, slices.Repeat([]string{"192.0.2.1", "2001:db8::/64"}, 50_000)...),
		Created:     new(time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)),
		Updated:     new(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)),
		Built:       new(time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200))),
	})
	want := events.Server{
		ID: 1, Name: new(strings.Repeat("x", 1024)), Hostname: new("a\uFFFDb\uFFFDc"), State: new(strings.Repeat("é", 512)),
		UUID: new("\uFFFD"), HypervisorName: new("\uFFFD"),
		IPAddresses: append(slices.Repeat([]string{"192.0.2.1", "2001:db8::/64"}, 254), "192.0.2.1"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeepTellsNoneFromNotSaid(t *testing.T) {
	t.Parallel()
	if got := keep(&virtfusion.Server{ID: 1}).IPAddresses; got != nil {
		t.Errorf("addresses that were not said became %v", got)
	}
	if got := keep(&virtfusion.Server{ID: 1, IPAddresses: []string{}}).IPAddresses; got == nil {
		t.Error("a server without addresses became one that says nothing")
	}
	if got := keep(&virtfusion.Server{ID: 1, UUID: new("")}).UUID; got != nil {
		t.Error("an empty UUID says something")
	}
	if diff := cmp.Diff(events.Server{ID: 1}, keep(&virtfusion.Server{ID: 1})); diff != "" {
		t.Errorf("a bare server says something (-want +got):\n%s", diff)
	}
}

func TestCleanText(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "plain", "\x00", "\xff\xfe", strings.Repeat("\x00", 5000), strings.Repeat("\xff", 5000),
		strings.Repeat("€", 400), "x" + strings.Repeat("€", 400), "xx" + strings.Repeat("€", 400), strings.Repeat("😀", 2000),
	} {
		got := cleanText(s)
		if len(got) > maxTextBytes || !utf8.ValidString(got) || strings.ContainsRune(got, 0) {
			t.Errorf("cleanText(%.20q…) = %d bytes, valid %t", s, len(got), utf8.ValidString(got))
		}
		if utf8.ValidString(s) && !strings.ContainsRune(s, 0) && !strings.HasPrefix(s, got) {
			t.Errorf("cleanText(%.20q…) changed the text", s)
		}
	}
}
