package virtfusion_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"serversync/virtfusion"
)

func decode(t *testing.T, body string) virtfusion.Server {
	t.Helper()
	server, err := virtfusion.DecodeServer([]byte(body))
	if err != nil {
		t.Fatalf("DecodeServer(%s): %v", body, err)
	}
	return server
}

func recorded(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestDecodeServerTolerance(t *testing.T) {
	t.Parallel()
	noon := time.Date(2025, 1, 15, 12, 0, 0, 0, time.UTC)
	network := func(interfaces string) string { return `{"id":1,"network":{"interfaces":` + interfaces + `}}` }
	for name, test := range map[string]struct {
		body string
		want virtfusion.Server
	}{
		"empty":                     {`{}`, virtfusion.Server{}},
		"id number":                 {`{"id":12}`, virtfusion.Server{ID: 12}},
		"id text":                   {`{"id":" 12 "}`, virtfusion.Server{ID: 12}},
		"id whole float":            {`{"id":12.0}`, virtfusion.Server{ID: 12}},
		"id null":                   {`{"id":null}`, virtfusion.Server{}},
		"id zero":                   {`{"id":0}`, virtfusion.Server{}},
		"id negative":               {`{"id":-4}`, virtfusion.Server{}},
		"id fraction":               {`{"id":1.5}`, virtfusion.Server{}},
		"id overflows":              {`{"id":9223372036854775808}`, virtfusion.Server{}},
		"id overflows a float":      {`{"id":1e999}`, virtfusion.Server{}},
		"id words":                  {`{"id":"twelve"}`, virtfusion.Server{}},
		"id infinity":               {`{"id":"Infinity"}`, virtfusion.Server{}},
		"id object":                 {`{"id":{}}`, virtfusion.Server{}},
		"id boolean":                {`{"id":true}`, virtfusion.Server{}},
		"one bad among good":        {`{"id":1,"name":{},"state":[],"settings":"x","cpu":3,"network":"x","owner":"x","created":"soon","hostname":"h"}`, virtfusion.Server{ID: 1, Hostname: new("h")}},
		"php's empty objects":       {`{"id":1,"owner":[],"settings":[],"hypervisor":[],"resources":[],"cpu":[]}`, virtfusion.Server{ID: 1}},
		"name number":               {`{"id":1,"name":123}`, virtfusion.Server{ID: 1, Name: new("123")}},
		"name empty":                {`{"id":1,"name":"","uuid":"","state":""}`, virtfusion.Server{ID: 1, Name: new("")}},
		"name escaped":              {`{"id":1,"name":"a\u00e9\u0000b"}`, virtfusion.Server{ID: 1, Name: new("aéb")}},
		"owner id in the object":    {`{"id":1,"ownerId":"8","owner":{"id":"7","extRelationId":"1001","admin":1,"suspended":"false"}}`, virtfusion.Server{ID: 1, OwnerID: new(int64(7)), Owner: &virtfusion.Owner{ExtRelationID: new(int64(1001)), Admin: new(true), Suspended: new(false)}}},
		"owner id beside":           {`{"id":1,"ownerId":8}`, virtfusion.Server{ID: 1, OwnerID: new(int64(8))}},
		"owner id alone":            {`{"id":1,"owner":8}`, virtfusion.Server{ID: 1, OwnerID: new(int64(8))}},
		"owner null":                {`{"id":1,"ownerId":8,"owner":null}`, virtfusion.Server{ID: 1, OwnerID: new(int64(8))}},
		"owner without relation":    {`{"id":1,"owner":{"id":7,"extRelationId":null}}`, virtfusion.Server{ID: 1, OwnerID: new(int64(7)), Owner: &virtfusion.Owner{}}},
		"flags":                     {`{"id":1,"suspended":1,"protected":"0","rebuild":"true","buildFailed":"no"}`, virtfusion.Server{ID: 1, Suspended: new(true), Protected: new(false), Rebuild: new(true)}},
		"self service level":        {`{"id":1,"selfService":"2"}`, virtfusion.Server{ID: 1, SelfService: new(int64(2))}},
		"self service boolean":      {`{"id":1,"selfService":true}`, virtfusion.Server{ID: 1, SelfService: new(int64(1))}},
		"self service off":          {`{"id":1,"selfService":false}`, virtfusion.Server{ID: 1, SelfService: new(int64(0))}},
		"package none":              {`{"id":1,"packageId":0}`, virtfusion.Server{ID: 1}},
		"commissioned":              {`{"id":1,"commissioned":"3"}`, virtfusion.Server{ID: 1, CommissionStatus: new(int64(virtfusion.Commissioned))}},
		"resources, settings win":   {`{"id":1,"settings":{"resources":{"memory":"1024"}},"resources":{"memory":2,"storage":20,"traffic":0},"cpu":{"cores":"4"}}`, virtfusion.Server{ID: 1, MemoryMB: new(int64(1024)), StorageGB: new(int64(20)), TrafficGB: new(int64(0)), CPUCores: new(int64(4))}},
		"hypervisor":                {`{"id":1,"hypervisor":{"id":2,"name":"hv","groupId":"5"}}`, virtfusion.Server{ID: 1, HypervisorID: new(int64(2)), HypervisorName: new("hv"), HypervisorGroupID: new(int64(5))}},
		"times":                     {`{"id":1,"created":"2025-01-15T13:00:00+01:00","updated":"2025-01-15T12:00:00.5Z","built":"2025-01-15 12:00:00"}`, virtfusion.Server{ID: 1, Created: new(noon), Updated: new(noon.Add(time.Second / 2)), Built: new(noon)}},
		"times that are none":       {`{"id":1,"created":"0000-00-00 00:00:00","updated":"9999-12-31T23:59:59-01:00","built":1736942400}`, virtfusion.Server{ID: 1}},
		"no network":                {`{"id":1,"network":null}`, virtfusion.Server{ID: 1}},
		"empty network":             {`{"id":1,"network":[]}`, virtfusion.Server{ID: 1, IPAddresses: []string{}}},
		"network without nics":      {`{"id":1,"network":{}}`, virtfusion.Server{ID: 1, IPAddresses: []string{}}},
		"network unreadable":        {network(`"x"`), virtfusion.Server{ID: 1}},
		"nics by order, enabled":    {network(`[{"order":3,"enabled":false,"ipv4":[{"address":"192.0.2.9"}]},{"order":"2","ipv4":[{"address":"192.0.2.2"}]},{"order":1,"enabled":1,"ipv6":[{"subnet":"2001:db8::","cidr":"64"}],"ipv4":[{"order":2,"address":"192.0.2.1"},{"order":1,"address":"192.0.2.3"}]}]`), virtfusion.Server{ID: 1, IPAddresses: []string{"192.0.2.3", "192.0.2.1", "2001:db8::/64", "192.0.2.2"}}},
		"nics as php's gapped map":  {network(`{"10":{"ipv4":["192.0.2.2"]},"2":{"ipv4":{"1":{"address":"192.0.2.1"}}}}`), virtfusion.Server{ID: 1, IPAddresses: []string{"192.0.2.1", "192.0.2.2"}}},
		"ipv6 single addresses":     {network(`[{"ipv6":[{"subnet":"2001:db8::","cidr":64,"addresses":["2001:0db8::5",{"address":"2001:db8::6"}]}]}]`), virtfusion.Server{ID: 1, IPAddresses: []string{"2001:db8::5", "2001:db8::6"}}},
		"ipv6 odd subnets":          {network(`[{"ipv6":[{"subnet":"2001:db8::/48"},{"subnet":"2001:db8:1::","cidr":999},{"subnet":"x"},7]}]`), virtfusion.Server{ID: 1, IPAddresses: []string{"2001:db8::/48", "2001:db8:1::"}}},
		"repeated, the last counts": {`{"id":1,"id":2,"name":"a","name":null,"owner":{"id":7,"admin":1},"owner":8,"network":[],"network":"x"}`, virtfusion.Server{ID: 2, OwnerID: new(int64(8))}},
		"repeated, parts add up":    {`{"id":1,"resources":{"memory":1,"storage":2},"resources":"x","resources":{"memory":3}}`, virtfusion.Server{ID: 1, MemoryMB: new(int64(3)), StorageGB: new(int64(2))}},
		"keys in another case":      {`{"ID":1,"OwnerID":8,"h\u006fstname":"h"}`, virtfusion.Server{ID: 1, OwnerID: new(int64(8)), Hostname: new("h")}},
		"space everywhere":          {" {\n\"id\" :\t1 , \"network\" : [ ] ,\r\n\"name\" : \"},:[\" } ", virtfusion.Server{ID: 1, Name: new("},:["), IPAddresses: []string{}}},
		"addresses that are none":   {network(`[{"ipv4":[{"address":"999.1.1.1"},{"address":null},null,{"address":"192.0.2.1"},{"address":"192.0.2.1"}]},"x",null]`), virtfusion.Server{ID: 1, IPAddresses: []string{"192.0.2.1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, decode(t, test.body)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.body, diff)
			}
		})
	}
}

func TestDecodeServerRefusesWhatIsNoObject(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, ` `, `null`, `false`, `[]`, `"x"`, `7`, `{`, `{"id":1`, `{"id":1} x`} {
		if server, err := virtfusion.DecodeServer([]byte(body)); err == nil {
			t.Errorf("DecodeServer(%q) = %+v, want an error", body, server)
		}
	}
}

func TestServerDoesNotReferToItsBytes(t *testing.T) {
	t.Parallel()
	body := []byte(`{"id":1,"name":"web","uuid":"u-1"}`)
	server, err := virtfusion.DecodeServer(body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'x'
	}
	if *server.Name != "web" || *server.UUID != "u-1" {
		t.Errorf("after overwriting the bytes: %q, %q", *server.Name, *server.UUID)
	}
}

func TestManyAddressesAreBounded(t *testing.T) {
	t.Parallel()
	var addresses []string
	for i := range 5000 {
		addresses = append(addresses, `"2001:db8::`+string("0123456789abcdef"[i%16])+`:`+string("0123456789abcdef"[i/16%16])+string("0123456789abcdef"[i/256%16])+string("0123456789abcdef"[i/4096])+`"`)
	}
	server := decode(t, `{"id":1,"network":{"interfaces":[{"ipv6":[{"addresses":[`+strings.Join(addresses, ",")+`]}]}]}}`)
	if n := len(server.IPAddresses); n != 1024 {
		t.Errorf("kept %d addresses, want 1024", n)
	}
}

// plantSecrets puts marker where VirtFusion's server object has secrets, in
// each object that may hold one.
func plantSecrets(server map[string]any, marker string) {
	inner := func(key string) map[string]any {
		object, ok := server[key].(map[string]any)
		if !ok {
			object = map[string]any{}
			server[key] = object
		}
		return object
	}
	inner("settings")["encryptedPassword"] = marker
	inner("settings")["cloudInitUserData"] = marker
	inner("vnc")["password"] = marker
	inner("os")["screen"] = marker
	inner("qemuAgent")["os"] = map[string]any{"screen": marker}
	inner("owner")["email"] = marker
	server["sshKeys"] = []any{map[string]any{"publicKey": marker}}
}

const marker = "PLANTED-SECRET-6d1f"

func FuzzDecodeServer(f *testing.F) {
	for _, name := range []string{"server_1.json", "server_3.json", "servers_of_user_7.json", "servers_simple_page1.json"} {
		var wrapped struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(recorded(f, name), &wrapped); err != nil {
			f.Fatal(err)
		}
		var rows []json.RawMessage
		if json.Unmarshal(wrapped.Data, &rows) != nil {
			rows = []json.RawMessage{wrapped.Data}
		}
		for _, row := range rows {
			f.Add([]byte(row))
		}
	}
	f.Add([]byte(`{"id":"1","network":{"interfaces":{"3":{"ipv6":[{"subnet":"::","cidr":-1}]}}},"owner":[],"created":"9999-12-31 23:59:59"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		server, err := virtfusion.DecodeServer(body)
		if err != nil {
			if !cmp.Equal(server, virtfusion.Server{}) {
				t.Errorf("an error and a server: %+v", server)
			}
			return
		}
		if server.ID < 0 || len(server.IPAddresses) > 1024 {
			t.Errorf("out of bounds: %+v", server)
		}
		_ = server.PrimaryIP()
		var object map[string]any
		if err := json.Unmarshal(body, &object); err != nil || bytes.Contains(body, []byte(marker)) {
			return
		}
		plantSecrets(object, marker)
		planted, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		server, err = virtfusion.DecodeServer(planted)
		if err != nil {
			t.Fatalf("with secrets planted: %v", err)
		}
		encoded, err := json.Marshal(server)
		if err != nil {
			t.Fatalf("what was decoded cannot be written down: %v", err)
		}
		if bytes.Contains(encoded, []byte(marker)) {
			t.Errorf("a secret got through: %s", encoded)
		}
	})
}

func BenchmarkDecodeWebhook(b *testing.B) {
	body := recorded(b, "webhook_server_create.json")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		webhook, err := virtfusion.DecodeWebhook(body)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := webhook.Data.DecodeServer(); err != nil {
			b.Fatal(err)
		}
	}
}
