package virtfusion_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"serversync/virtfusion"
)

// prepared answers every request with the same bytes, without a network.
type prepared []byte

func (p prepared) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header:        http.Header{"Content-Type": {"application/json"}},
		ContentLength: int64(len(p)), Body: io.NopCloser(bytes.NewReader(p)),
	}, nil
}

// pageOf is a page of n rows, each like the recorded one but for its id.
func pageOf(tb testing.TB, recording string, n int) []byte {
	tb.Helper()
	var page map[string]any
	if err := json.Unmarshal(recorded(tb, recording), &page); err != nil {
		tb.Fatal(err)
	}
	recordedRows, ok := page["data"].([]any)
	if !ok {
		tb.Fatalf("%s has no rows", recording)
	}
	first, err := json.Marshal(recordedRows[0])
	if err != nil {
		tb.Fatal(err)
	}
	rows := make([]map[string]any, n)
	for i := range rows {
		if err := json.Unmarshal(first, &rows[i]); err != nil {
			tb.Fatal(err)
		}
		rows[i]["id"], rows[i]["name"] = i+1, fmt.Sprintf("server-%d", i+1)
	}
	page["data"], page["per_page"], page["total"] = rows, n, n
	body, err := json.Marshal(page)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// BenchmarkListServers is one page of 200 rows: the request, the answer's bytes
// and their decoding, without a network.
func BenchmarkListServers(b *testing.B) {
	const rows = virtfusion.MaxPerPage
	for name, form := range map[string]struct {
		recording string
		full      bool
	}{"simple": {"servers_simple_page1.json", false}, "full": {"servers_full.json", true}} {
		b.Run(name, func(b *testing.B) {
			body := pageOf(b, form.recording, rows)
			client, err := virtfusion.New(virtfusion.Config{
				BaseURL: "http://cp.example.com", Token: token, Transport: prepared(body), Budget: unlimited(),
			})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				page, err := client.ListServers(b.Context(), 1, rows, form.full)
				if err != nil || len(page.Servers) != rows || page.Servers[rows-1].ID != rows {
					b.Fatalf("%d rows, %v", len(page.Servers), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}
