package virtfusionsim_test

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// The signs by which a reader of pages can tell that something is wrong.
const (
	signAnotherPage = "another page than asked for"
	signRepeat      = "a server seen before"
	signGrowth      = "last_page has grown"
	signTotal       = "total has changed"
	signShort       = "short page"
	signMissing     = "fewer rows than total"
	signEmpty       = "nothing at all"
)

// signs reads on while more is said to follow, for at most eight pages of two,
// and returns what gives the pages away. It looks at [virtfusion.Page] alone.
func signs(t *testing.T, client *virtfusion.Client) []string {
	t.Helper()
	var (
		found     []string
		seen      = map[int64]bool{}
		rows      int
		last, all int64
	)
	note := func(sign string, there bool) {
		if there && !slices.Contains(found, sign) {
			found = append(found, sign)
		}
	}
	for asked := int64(1); asked <= 8; asked++ {
		page := must[virtfusion.Page](t)(client.ListServers(t.Context(), int(asked), 2, false))
		note(signAnotherPage, page.Number != asked)
		note(signGrowth, asked > 1 && page.LastPage > last)
		note(signTotal, asked > 1 && page.Total != all)
		note(signShort, page.HasNext && int64(len(page.Servers)) < page.PerPage)
		for _, server := range page.Servers {
			note(signRepeat, seen[server.ID])
			seen[server.ID] = true
		}
		rows += len(page.Servers)
		last, all = page.LastPage, page.Total
		if !page.HasNext {
			break
		}
	}
	note(signMissing, int64(rows) < all)
	note(signEmpty, rows == 0)
	slices.Sort(found)
	return found
}

// TestPagesThatDoNotAddUpAreTold: each fault of the pages shows in what
// ListServers returns.
func TestPagesThatDoNotAddUpAreTold(t *testing.T) {
	t.Parallel()
	for fault, want := range map[virtfusionsim.Fault][]string{
		virtfusionsim.FaultNone:            nil,
		virtfusionsim.FaultEmptyList:       {signEmpty},
		virtfusionsim.FaultRepeatingPage:   {signRepeat, signAnotherPage},
		virtfusionsim.FaultGrowingLastPage: {signMissing, signGrowth, signShort, signTotal},
		virtfusionsim.FaultEndlessServers:  {signMissing, signGrowth, signShort, signTotal},
		virtfusionsim.FaultShrinkingTotal:  {signTotal},
		virtfusionsim.FaultShortPage:       {signMissing, signShort},
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			panel, client := serving(t, virtfusionsim.APIFault{Kind: fault})
			for range 2 { // five in all
				must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1}))
			}
			slices.Sort(want)
			if got := signs(t, client); !slices.Equal(got, want) {
				t.Errorf("signs: %q, want %q", got, want)
			}
		})
	}
}

// direct has a panel answer in the call, without a network.
type direct struct{ api http.Handler }

func (d direct) RoundTrip(request *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	d.api.ServeHTTP(answer, request)
	return answer.Result(), nil
}

// TestStormsOf429 waits them out on the bubble's clock: as long as VirtFusion
// asks for, or, when it asks for nothing, as the back-off has it.
func TestStormsOf429(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		after    time.Duration // asked for
		storm    int           // calls; 0: for ever
		want     error
		requests int64
		took     time.Duration
	}{
		"short, no Retry-After":      {0, 3, nil, 4, 3 * time.Second},
		"short, Retry-After":         {7 * time.Second, 3, nil, 4, 21 * time.Second},
		"endless, no Retry-After":    {0, 0, virtfusion.ErrRateLimited, 5, 4 * time.Second},
		"endless, Retry-After":       {7 * time.Second, 0, virtfusion.ErrRateLimited, 5, 28 * time.Second},
		"longer than we wait for it": {time.Hour, 1, virtfusion.ErrRateLimited, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				panel := populated(virtfusionsim.Config{})
				panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultTooManyRequests, RetryAfter: test.after, First: test.storm})
				budget := virtfusion.NewBudget(math.Inf(1))
				client := must[*virtfusion.Client](t)(virtfusion.New(virtfusion.Config{
					BaseURL: "http://cp.example.com", Token: virtfusionsim.DefaultToken, Transport: direct{panel.Handler()}, Budget: budget,
					BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Second) },
				}))
				start := time.Now()
				_, err := client.ListServers(t.Context(), 1, 2, false)
				if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				if failed, ok := errors.AsType[*virtfusion.Error](err); ok && failed.RetryAfter != test.after {
					t.Errorf("asked to wait %v, want %v", failed.RetryAfter, test.after)
				}
				if made, took := budget.Stats().Requests, time.Since(start); made != test.requests || took != test.took {
					t.Errorf("%d requests in %v, want %d in %v", made, took, test.requests, test.took)
				}
			})
		})
	}
}
