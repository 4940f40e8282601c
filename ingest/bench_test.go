package ingest_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkWebhook measures a delivery of about 4 KB up to a publisher that
// costs nothing: all of the endpoint, none of the broker or the network.
func BenchmarkWebhook(b *testing.B) {
	body := sample(b, "server.create")
	s := assemble(b, withToken())
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ReportMetric(float64(len(body)), "B/body")
	for b.Loop() {
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, path, bytes.NewReader(body))
		req.Header = goodHeader()
		res := httptest.NewRecorder()
		s.handler.ServeHTTP(res, req)
		if res.Code != http.StatusAccepted {
			b.Fatalf("status %d: %s", res.Code, res.Body)
		}
		s.recorder.reset()
		s.log.reset()
	}
}
