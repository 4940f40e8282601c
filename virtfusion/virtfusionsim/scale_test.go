package virtfusionsim_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// vast returns the API of a panel with n servers.
func vast(tb testing.TB, n int) http.Handler {
	tb.Helper()
	panel := populated(virtfusionsim.Config{})
	for range n {
		if _, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, PackageID: 1, Built: true, Silent: true}); err != nil {
			tb.Fatal(err)
		}
	}
	return panel.Handler()
}

// discard is an answer that nobody reads.
type discard struct {
	header http.Header
	status int
	io.Writer
}

func (d *discard) Header() http.Header    { return d.header }
func (d *discard) WriteHeader(status int) { d.status = status }

// BenchmarkPage is a page of 200 rows from the middle of fleets of all sizes:
// the size must not matter.
func BenchmarkPage(b *testing.B) {
	for _, form := range []string{"simple", "full"} {
		for _, n := range []int{1000, 100_000} {
			b.Run(fmt.Sprintf("%s/of %d servers", form, n), func(b *testing.B) {
				api := vast(b, n)
				b.ReportAllocs()
				for b.Loop() {
					request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, fmt.Sprintf("/api/v1/servers?type=%s&results=200&page=%d", form, n/400), nil)
					request.Header.Set("Authorization", "Bearer "+virtfusionsim.DefaultToken)
					answer := &discard{header: http.Header{}, Writer: io.Discard}
					if api.ServeHTTP(answer, request); answer.status != http.StatusOK {
						b.Fatal(answer.status)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*200), "ns/row")
			})
		}
	}
}

// BenchmarkCreateServer fills a panel with 100,000 servers.
func BenchmarkCreateServer(b *testing.B) {
	for b.Loop() {
		vast(b, 100_000)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100_000), "ns/server")
}

func TestServersAreListedByID(t *testing.T) {
	t.Parallel()
	panel, client := serving(t) // servers 1 to 3
	for _, id := range []int64{9, 5, 7, 4} {
		must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{ID: id, OwnerID: 1}))
	}
	must[virtfusionsim.Server](t)(panel.Destroy(5))
	if err := panel.DestroySilently(1); err != nil {
		t.Fatal(err)
	}
	var listed []int64
	for number := 1; number <= 3; number++ {
		page := must[virtfusion.Page](t)(client.ListServers(t.Context(), number, 2, number == 2))
		for _, server := range page.Servers {
			listed = append(listed, server.ID)
		}
		if page.HasNext != (number < 3) || page.Total != 5 {
			t.Errorf("page %d: %+v", number, page)
		}
	}
	if want := []int64{2, 3, 4, 7, 9}; !slices.Equal(listed, want) {
		t.Errorf("listed %d, want %d", listed, want)
	}
	if user := must[virtfusion.UserServers](t)(client.ServersOfUser(t.Context(), 1)); len(user.Servers) != 4 || user.Servers[3].ID != 9 {
		t.Errorf("of user 1: %+v", user.Servers)
	}
}
