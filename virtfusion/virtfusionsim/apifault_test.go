package virtfusionsim_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// serving returns a panel with servers 1 and 2 of user 1 (external relation
// 1001) and server 3 of user 2, and a client of it that tries once.
func serving(t *testing.T, faults ...virtfusionsim.APIFault) (*virtfusionsim.Panel, *virtfusion.Client) {
	t.Helper()
	panel := populated(virtfusionsim.Config{Seed: 1, Journal: true, Hook: func(virtfusionsim.Delivery) {}})
	for _, owner := range []int64{1, 1, 2} {
		must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: owner, PackageID: 1, Built: true}))
	}
	panel.SetAPIFaults(faults...)
	server := httptest.NewServer(panel.Handler())
	t.Cleanup(server.Close) // which waits for every handler to return
	return panel, dial(t, server.URL, virtfusionsim.DefaultToken)
}

// call makes each operation of the API through the client.
func call(ctx context.Context, client *virtfusion.Client, op virtfusionsim.Operation) error {
	var err error
	switch op {
	case virtfusionsim.OpConnect:
		err = client.Connect(ctx)
	case virtfusionsim.OpList:
		_, err = client.ListServers(ctx, 1, 2, true)
	case virtfusionsim.OpGet:
		_, err = client.GetServer(ctx, 1)
	case virtfusionsim.OpUserServers:
		_, err = client.ServersOfUser(ctx, 1)
	case virtfusionsim.OpUser:
		_, err = client.UserByExtRelation(ctx, 1001)
	case virtfusionsim.OpPackages:
		_, err = client.Packages(ctx)
	case virtfusionsim.OpPackage:
		_, err = client.Package(ctx, 1)
	case virtfusionsim.OpCredit:
		_, err = client.AddCredit(ctx, 1001, virtfusion.Credit{Tokens: 5})
	default:
		err = errors.New("no such operation: " + string(op))
	}
	return err
}

// refusal is what the client makes of a fault that tells it nothing.
type refusal struct {
	reads  error
	credit error
	// done: the credit was moved all the same.
	done bool
}

func refusals() map[virtfusionsim.Fault]refusal {
	same := func(err error) refusal { return refusal{reads: err, credit: err} }
	down := refusal{virtfusion.ErrUnavailable, virtfusion.ErrOutcomeUnknown, false}
	other := refusal{virtfusion.ErrMalformed, virtfusion.ErrOutcomeUnknown, false}
	return map[virtfusionsim.Fault]refusal{
		virtfusionsim.FaultUnauthorized:       same(virtfusion.ErrUnauthorized),
		virtfusionsim.FaultUnauthorizedText:   same(virtfusion.ErrUnauthorized),
		virtfusionsim.FaultForbidden:          same(virtfusion.ErrForbidden),
		virtfusionsim.FaultNotFound:           same(virtfusion.ErrNotFound),
		virtfusionsim.FaultNotFoundPage:       same(virtfusion.ErrMalformed),
		virtfusionsim.FaultUnprocessable:      same(virtfusion.ErrInvalid),
		virtfusionsim.FaultTooManyRequests:    same(virtfusion.ErrRateLimited),
		virtfusionsim.FaultServerError:        down,
		virtfusionsim.FaultBadGateway:         down,
		virtfusionsim.FaultServiceUnavailable: down,
		virtfusionsim.FaultTruncatedJSON:      {virtfusion.ErrMalformed, virtfusion.ErrOutcomeUnknown, true},
		virtfusionsim.FaultCutOff:             {virtfusion.ErrUnavailable, virtfusion.ErrOutcomeUnknown, true},
		virtfusionsim.FaultHTML:               other,
		virtfusionsim.FaultHTMLAsJSON:         other,
		virtfusionsim.FaultHanging:            down,
		virtfusionsim.FaultHangingBody:        {virtfusion.ErrUnavailable, virtfusion.ErrOutcomeUnknown, true},

		virtfusionsim.FaultDoneThenHanging:        {credit: virtfusion.ErrOutcomeUnknown, done: true},
		virtfusionsim.FaultDoneThenGatewayTimeout: {credit: virtfusion.ErrOutcomeUnknown, done: true},
		virtfusionsim.FaultDoneThenBadGateway:     {credit: virtfusion.ErrOutcomeUnknown, done: true},
		virtfusionsim.FaultDoneThenClosed:         {credit: virtfusion.ErrOutcomeUnknown, done: true},
	}
}

// TestRefusals walks the faults that tell nothing through every call.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for fault, want := range refusals() {
		for _, op := range fault.Operations() {
			t.Run(string(fault)+"/"+string(op), func(t *testing.T) {
				t.Parallel()
				hung := make(chan struct{}, 1)
				panel, client := serving(t, virtfusionsim.APIFault{Kind: fault, Hung: func() { hung <- struct{}{} }})
				if strings.Contains(string(fault), "hanging") {
					client = impatient(t, panel, hung)
				}
				expected := want.reads
				if op == virtfusionsim.OpCredit {
					expected = want.credit
				}
				err := call(t.Context(), client, op)
				if !errors.Is(err, expected) {
					t.Errorf("%v, want %v", err, expected)
				}
				if failed := new(virtfusion.Error); err != nil && !errors.As(err, &failed) {
					t.Errorf("%v is no *virtfusion.Error", err)
				}
				if moved := len(panel.Credits()) > 0; op == virtfusionsim.OpCredit && moved != want.done {
					t.Errorf("credit moved: %v, want %v", moved, want.done)
				}
				if got := panel.APIStats(op); got != (virtfusionsim.APIStats{Calls: 1, Spoiled: 1}) {
					t.Errorf("APIStats = %+v", got)
				}
			})
		}
	}
}

// impatient returns a client of the panel that gives up as soon as a call hangs.
func impatient(t *testing.T, panel *virtfusionsim.Panel, hung <-chan struct{}) *virtfusion.Client {
	t.Helper()
	server := httptest.NewServer(panel.Handler())
	t.Cleanup(server.Close)
	return must[*virtfusion.Client](t)(virtfusion.New(virtfusion.Config{
		BaseURL: server.URL, Token: virtfusionsim.DefaultToken, Budget: virtfusion.NewBudget(math.Inf(1)), MaxRetries: -1,
		Transport: givingUp{server.Client().Transport, hung},
	}))
}

// givingUp ends a request when its call hangs, as a deadline would.
type givingUp struct {
	next http.RoundTripper
	hung <-chan struct{}
}

func (g givingUp) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	go func() {
		<-g.hung
		cancel(context.DeadlineExceeded)
	}()
	return g.next.RoundTrip(request.WithContext(ctx))
}

// read is what the client makes of an answer that it cannot see through: what
// it returns for a call, in short.
func read(t *testing.T, client *virtfusion.Client, op virtfusionsim.Operation) string {
	t.Helper()
	var (
		found []string
		err   error
	)
	show := func(servers []virtfusion.Server) {
		for _, s := range servers {
			found = append(found, fmt.Sprintf("%d of %d %s", s.ID, *s.OwnerID, short(*s.Name)))
		}
	}
	switch op {
	case virtfusionsim.OpList:
		var page virtfusion.Page
		page, err = client.ListServers(t.Context(), 1, 2, false)
		show(page.Servers)
	case virtfusionsim.OpGet:
		var seen virtfusion.Observation
		if seen, err = client.GetServer(t.Context(), 1); err == nil {
			show([]virtfusion.Server{seen.Server})
		}
	case virtfusionsim.OpUserServers:
		var seen virtfusion.UserServers
		seen, err = client.ServersOfUser(t.Context(), 1)
		show(seen.Servers)
	case virtfusionsim.OpUser:
		var user virtfusion.User
		if user, err = client.UserByExtRelation(t.Context(), 1001); err == nil {
			found = append(found, fmt.Sprintf("%d %s", user.ID, short(*user.Name)))
		}
	case virtfusionsim.OpPackages:
		var plans []virtfusion.Package
		plans, err = client.Packages(t.Context())
		for _, plan := range plans {
			found = append(found, fmt.Sprintf("%d %s", plan.ID, short(*plan.Name)))
		}
	case virtfusionsim.OpPackage:
		var plan virtfusion.Package
		if plan, err = client.Package(t.Context(), 1); err == nil {
			found = append(found, fmt.Sprintf("%d %s", plan.ID, short(*plan.Name)))
		}
	default:
		t.Fatalf("no such read: %s", op)
	}
	if failed := new(virtfusion.Error); errors.As(err, &failed) {
		return failed.Kind.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(found, ", ")
}

// short is a name, or how long it is.
func short(name string) string {
	if len(name) > 100 {
		return fmt.Sprintf("%d bytes", len(name))
	}
	return name
}

// lies are the faults that the client takes for the truth, or stumbles over,
// and what it makes of them. Server 1 has been renamed from old to new, and
// server 4 of user 1, called gone, has been destroyed.
func lies() map[virtfusionsim.Fault]map[virtfusionsim.Operation]string {
	const malformed = "malformed answer"
	return map[virtfusionsim.Fault]map[virtfusionsim.Operation]string{
		virtfusionsim.FaultNone: {
			virtfusionsim.OpList: "1 of 1 new, 2 of 1 server-2", virtfusionsim.OpGet: "1 of 1 new",
			virtfusionsim.OpUserServers: "1 of 1 new, 2 of 1 server-2", virtfusionsim.OpUser: "1 Customer 1",
			virtfusionsim.OpPackages: "1 S, 2 M", virtfusionsim.OpPackage: "1 S",
		},
		virtfusionsim.FaultEmptyList: {
			virtfusionsim.OpList: "", virtfusionsim.OpUserServers: "", virtfusionsim.OpPackages: "",
		},
		virtfusionsim.FaultStale: {
			virtfusionsim.OpList: "1 of 1 old, 2 of 1 server-2", virtfusionsim.OpGet: "1 of 1 old",
			virtfusionsim.OpUserServers: "1 of 1 old, 2 of 1 server-2, 4 of 1 gone",
		},
		virtfusionsim.FaultWrongOwner: {
			virtfusionsim.OpList: "1 of 2 new, 2 of 2 server-2", virtfusionsim.OpGet: "1 of 2 new",
			virtfusionsim.OpUserServers: "3 of 1 server-3",
		},
		virtfusionsim.FaultHugeName: {
			virtfusionsim.OpList: "1 of 1 10485760 bytes, 2 of 1 server-2", virtfusionsim.OpGet: "1 of 1 10485760 bytes",
			virtfusionsim.OpUserServers: "1 of 1 10485760 bytes, 2 of 1 server-2", virtfusionsim.OpUser: "1 10485760 bytes",
			virtfusionsim.OpPackages: "1 10485760 bytes, 2 M", virtfusionsim.OpPackage: "1 10485760 bytes",
		},
		virtfusionsim.FaultHugeIDs: {
			virtfusionsim.OpList: "2147483649 of 1 new, 2147483650 of 1 server-2", virtfusionsim.OpGet: malformed,
			virtfusionsim.OpUserServers: "2147483649 of 1 new, 2147483650 of 1 server-2", virtfusionsim.OpUser: "2147483649 Customer 1",
			virtfusionsim.OpPackages: "2147483649 S, 2147483650 M", virtfusionsim.OpPackage: malformed,
		},
	}
}

// TestLies walks the faults that tell something false through every call.
func TestLies(t *testing.T) {
	t.Parallel()
	for fault, wants := range lies() {
		for _, op := range fault.Operations() {
			if fault == virtfusionsim.FaultNone && (op == virtfusionsim.OpConnect || op == virtfusionsim.OpCredit) {
				continue
			}
			t.Run(string(fault)+"/"+string(op), func(t *testing.T) {
				t.Parallel()
				panel, client := serving(t)
				renamed(t, panel)
				truth := read(t, client, op)
				panel.SetAPIFaults(virtfusionsim.APIFault{Kind: fault, Op: op})
				want, ok := wants[op]
				if got := read(t, client, op); got != want || !ok {
					t.Errorf("%q, want %q", got, want)
				}
				panel.SetAPIFaults()
				if got := read(t, client, op); got != truth {
					t.Errorf("afterwards %q, want the truth, %q", got, truth)
				}
			})
		}
	}
}

// renamed changes server 1, and destroys a server 4.
func renamed(t *testing.T, panel *virtfusionsim.Panel) {
	t.Helper()
	server := must[virtfusionsim.Server](t)
	server(panel.Rename(1, "old", ""))
	server(panel.Rename(1, "new", ""))
	gone := server(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, Name: "gone"}))
	server(panel.Destroy(gone.ID))
}

// TestMisprints reads on for as long as the list says that more follows, for at
// most five pages of two rows; three servers are there.
func TestMisprints(t *testing.T) {
	t.Parallel()
	for fault, want := range misprints() {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			for _, full := range []bool{false, true} {
				_, client := serving(t, virtfusionsim.APIFault{Kind: fault})
				var got []string
				for number := 1; number <= 5; number++ {
					page := must[virtfusion.Page](t)(client.ListServers(t.Context(), number, 2, full))
					var ids []int64
					for _, server := range page.Servers {
						ids = append(ids, server.ID)
					}
					got = append(got, fmt.Sprintf("%d on %d/%d of %d", ids, page.Number, page.LastPage, page.Total))
					if !page.HasNext {
						break
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("full %v: %q, want %q", full, got, want)
				}
			}
		})
	}
}

func misprints() map[virtfusionsim.Fault][]string {
	return map[virtfusionsim.Fault][]string{
		virtfusionsim.FaultNone:            {"[1 2] on 1/2 of 3", "[3] on 2/2 of 3"},
		virtfusionsim.FaultRepeatingPage:   {"[1 2] on 1/2 of 3", "[1 2] on 1/2 of 3", "[1 2] on 1/2 of 3", "[1 2] on 1/2 of 3", "[1 2] on 1/2 of 3"},
		virtfusionsim.FaultGrowingLastPage: {"[1 2] on 1/2 of 4", "[3] on 2/3 of 6", "[] on 3/4 of 8", "[] on 4/5 of 10", "[] on 5/6 of 12"},
		virtfusionsim.FaultEndlessServers:  {"[1 2] on 1/2 of 4", "[3] on 2/3 of 6", "[1000006 1000007] on 3/4 of 8", "[1000008 1000009] on 4/5 of 10", "[1000010 1000011] on 5/6 of 12"},
		virtfusionsim.FaultShrinkingTotal:  {"[1 2] on 1/1 of 2"},
		virtfusionsim.FaultShortPage:       {"[1] on 1/2 of 3", "[] on 2/2 of 3"},
	}
}

func TestEveryFaultIsTested(t *testing.T) {
	t.Parallel()
	for _, fault := range virtfusionsim.Faults() {
		_, refused := refusals()[fault]
		_, lied := lies()[fault]
		_, misprinted := misprints()[fault]
		if !refused && !lied && !misprinted {
			t.Errorf("no table has %q", fault)
		}
	}
	if n := len(virtfusionsim.Faults()); n != len(refusals())+len(lies())+len(misprints())-2 { // FaultNone is in two
		t.Errorf("%d faults in all", n)
	}
	if ops := virtfusionsim.Fault("nonsense").Operations(); ops != nil {
		t.Errorf("nonsense spoils %v", ops)
	}
	defer func() {
		if recover() == nil {
			t.Error("a fault that does not exist was accepted")
		}
	}()
	populated(virtfusionsim.Config{}).SetAPIFaults(virtfusionsim.APIFault{Kind: "nonsense"})
}

// TestWhichCallsAreSpoiled makes eight calls, and notes which ones fail.
func TestWhichCallsAreSpoiled(t *testing.T) {
	t.Parallel()
	const kind = virtfusionsim.FaultServerError
	for name, test := range map[string]struct {
		faults []virtfusionsim.APIFault
		failed string
	}{
		"all":               {[]virtfusionsim.APIFault{{Kind: kind}}, "11111111"},
		"none":              {nil, "00000000"},
		"lists":             {[]virtfusionsim.APIFault{{Kind: kind, Op: virtfusionsim.OpList}}, "00110011"},
		"page 2":            {[]virtfusionsim.APIFault{{Kind: kind, Page: 2}}, "00010001"},
		"server 2":          {[]virtfusionsim.APIFault{{Kind: kind, ServerID: 2}}, "01000100"},
		"first two":         {[]virtfusionsim.APIFault{{Kind: kind, First: 2}}, "11000000"},
		"all but the first": {[]virtfusionsim.APIFault{{Kind: kind, Skip: 1}}, "01111111"},
		"second get":        {[]virtfusionsim.APIFault{{Kind: kind, Op: virtfusionsim.OpGet, Skip: 1, First: 1}}, "01000000"},
		"one after another": {[]virtfusionsim.APIFault{{Kind: kind, First: 2}, {Kind: virtfusionsim.FaultNone, First: 2}, {Kind: kind}}, "11001111"},
		"by chance":         {[]virtfusionsim.APIFault{{Kind: kind, Chance: 0.5}}, "00100111"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			panel, client := serving(t, test.faults...)
			failed := ""
			note := func(err error) {
				if err == nil {
					failed += "0"
				} else {
					failed += "1"
				}
			}
			for range 2 {
				for id := range int64(2) {
					_, err := client.GetServer(t.Context(), id+1)
					note(err)
				}
				for page := range 2 {
					_, err := client.ListServers(t.Context(), page+1, 2, false)
					note(err)
				}
			}
			if failed != test.failed {
				t.Errorf("failed: %s, want %s", failed, test.failed)
			}
			if all, gets := panel.APIStats(virtfusionsim.OpAny), panel.APIStats(virtfusionsim.OpGet); all.Calls != 8 || gets.Calls != 4 {
				t.Errorf("%d calls, %d of them gets", all.Calls, gets.Calls)
			}
		})
	}
}

func TestALieAboutOneServer(t *testing.T) {
	t.Parallel()
	panel, client := serving(t)
	renamed(t, panel)
	for _, test := range []struct {
		fault virtfusionsim.APIFault
		list  string
		get   string // of server 1
	}{
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultWrongOwner, ServerID: 2, OwnerID: 1 << 31}, "1 of 1 new, 2 of 2147483648 server-2", "1 of 1 new"},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultStale, ServerID: 2}, "1 of 1 new, 2 of 1 server-2", "1 of 1 new"},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultStale, ServerID: 1}, "1 of 1 old, 2 of 1 server-2", "1 of 1 old"},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultHugeName, ServerID: 2}, "1 of 1 new, 2 of 1 10485760 bytes", "1 of 1 new"},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultHugeIDs, ServerID: 1}, "2147483649 of 1 new, 2 of 1 server-2", "malformed answer"},
	} {
		panel.SetAPIFaults(test.fault)
		if list, get := read(t, client, virtfusionsim.OpList), read(t, client, virtfusionsim.OpGet); list != test.list || get != test.get {
			t.Errorf("%s about server %d: %q and %q", test.fault.Kind, test.fault.ServerID, list, get)
		}
	}
	panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultStale, ServerID: 4})
	if _, err := client.GetServer(t.Context(), 4); err != nil {
		t.Errorf("a stale answer about a server that is gone: %v", err)
	}
}

func TestRetryAfterIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, want := range []time.Duration{0, 7 * time.Second} {
		_, client := serving(t, virtfusionsim.APIFault{Kind: virtfusionsim.FaultTooManyRequests, RetryAfter: want})
		var failed *virtfusion.Error
		if err := client.Connect(t.Context()); !errors.As(err, &failed) || failed.RetryAfter != want {
			t.Errorf("%v asks for %v, want %v", err, failed.RetryAfter, want)
		}
	}
}

// TestChangeInTheMiddleOfAScan: server 1 goes after page 1, so that server 3 is
// on no page at all.
func TestChangeInTheMiddleOfAScan(t *testing.T) {
	t.Parallel()
	panel, client := serving(t)
	panel.SetAPIFaults(virtfusionsim.APIFault{Op: virtfusionsim.OpList, Page: 2, First: 1, Before: func() {
		must[virtfusionsim.Server](t)(panel.Destroy(1))
	}})
	first := must[virtfusion.Page](t)(client.ListServers(t.Context(), 1, 2, false))
	second := must[virtfusion.Page](t)(client.ListServers(t.Context(), 2, 2, false))
	if first.Total != 3 || second.Total != 2 || len(second.Servers) != 0 {
		t.Errorf("%+v, then %+v", first, second)
	}
}

func TestHangingCallsEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*virtfusionsim.Panel, *httptest.Server, context.CancelFunc){
		"with the caller": func(_ *virtfusionsim.Panel, _ *httptest.Server, cancel context.CancelFunc) { cancel() },
		"with the server": func(_ *virtfusionsim.Panel, server *httptest.Server, _ context.CancelFunc) {
			server.CloseClientConnections()
		},
		"with the fault": func(panel *virtfusionsim.Panel, _ *httptest.Server, _ context.CancelFunc) { panel.SetAPIFaults() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hung := make(chan struct{}, 1)
			panel := populated(virtfusionsim.Config{})
			panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultDoneThenHanging, Hung: func() { hung <- struct{}{} }})
			returned := make(chan struct{})
			handler := panel.Handler()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(returned)
				handler.ServeHTTP(w, r)
			}))
			t.Cleanup(server.Close)
			client := dial(t, server.URL, virtfusionsim.DefaultToken)
			var calling errgroup.Group
			calling.Go(func() error { return call(ctx, client, virtfusionsim.OpCredit) })
			<-hung
			end(panel, server, cancel)
			<-returned
			if err := calling.Wait(); !errors.Is(err, virtfusion.ErrOutcomeUnknown) || len(panel.Credits()) != 1 {
				t.Errorf("%v, and %d credits moved", err, len(panel.Credits()))
			}
		})
	}
}

func TestServersWithHugeIDs(t *testing.T) {
	t.Parallel()
	panel, client := serving(t)
	const huge = 1<<31 + 5
	args := virtfusionsim.CreateArgs{ID: huge, OwnerID: panel.AddUser(virtfusionsim.User{ID: huge}).ID, PackageID: panel.AddPackage(virtfusionsim.Package{ID: huge}).ID}
	must[virtfusionsim.Server](t)(panel.CreateServer(args))
	got := must[virtfusion.Observation](t)(client.GetServer(t.Context(), huge)).Server
	if got.ID != huge || *got.OwnerID != huge || *got.PackageID != huge {
		t.Errorf("%+v", got)
	}
	if next := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1})); next.ID != huge+1 {
		t.Errorf("the next one is %d", next.ID)
	}
	if _, err := panel.CreateServer(args); err == nil {
		t.Error("two servers have the same id")
	}
}
