package main

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/shopspring/decimal"

	"serversync/db"
	"serversync/db/dbtest"
	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

// TestTheDemoBillsInFastMotion: SkyPANEL bills an hour each second, what it takes
// is what was foreseen, what is said of the next charge holds, and the watchdog
// finds nothing that it would not find in real hours.
func TestTheDemoBillsInFastMotion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	out := &logBuffer{}
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serversync", "demo", "--data-dir", dir, "--listen-addr", "127.0.0.1:0", "--hour", "1s", "--log-format", "json"}, out, out)
	}()
	round := regexp.MustCompile(`SkyPANEL: charged an hour of \d+ servers to \d+ customers: \$\d+\.\d\d in all, [^"]+`)
	defer cancel()
	eventually(t, "SkyPANEL has billed some hours", func() bool {
		select {
		case c := <-code:
			t.Fatalf("the demo ended with %d:\n%s", c, out.String())
		default:
		}
		return len(round.FindAllString(out.String(), -1)) >= 4
	})
	if !strings.Contains(out.String(), "an hour of its billing lasts 1s, a month of 730 hours 12m10s") {
		t.Errorf("it does not say how its time runs:\n%s", out.String())
	}
	base := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(out.String())
	ask := func(into any, args ...string) {
		t.Helper()
		var answer, errs bytes.Buffer
		run(t.Context(), append(append([]string{"serversync"}, args...), "--json", "--url", base, "--data-dir", dir), &answer, &errs)
		if err := json.Unmarshal(answer.Bytes(), into); err != nil {
			t.Fatalf("%v: %v\n%s%s", args, err, answer.String(), errs.String())
		}
	}
	var shop struct {
		Rows []struct {
			NextCharge   struct{ At *time.Time }
			ChargesInAll int
		} `json:"billingRows"`
	}
	// The exhibition's first server, made outside SkyPANEL: after the fleet's twelve.
	eventually(t, "server 13 is charged each second", func() bool {
		ask(&shop, "explain", "13")
		return len(shop.Rows) == 1 && shop.Rows[0].ChargesInAll > 1
	})
	if strings.Contains(out.String(), "approval") {
		t.Errorf("the demo's own fleet waits for a person's approval:\n%s", out.String())
	}
	if at := shop.Rows[0].NextCharge.At; at == nil || time.Until(*at) > 2*time.Second {
		t.Errorf("the next charge of server 13 is to come at %v", at)
	}
	var found struct {
		Findings []struct{ Rule, Severity, Evidence string }
	}
	ask(&found, "audit")
	for _, f := range found.Findings {
		switch f.Rule {
		case string(db.AuditChargedTwice), string(db.AuditBackBill), string(db.AuditNoStart), string(db.AuditChargesFail), string(db.AuditOdd):
			t.Errorf("the watchdog: %+v", f)
		}
	}
	cancel()
	if c := <-code; c != exitDone {
		t.Errorf("the demo ended with %d:\n%s", c, out.String())
	}
	if !regexp.MustCompile(`SkyPANEL billed in \d+ rounds, each for an hour that lasted 1s: \d+ charges, \$[\d.]+ in all, as serversync foresaw\.`).MatchString(out.String()) {
		t.Errorf("it does not compare what was charged with what was foreseen:\n%s", out.String())
	}
}

// TestBillWatchSaysWhatWasNotForeseen: it compares, and does not copy.
func TestBillWatchSaysWhatWasNotForeseen(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	world := skypanelsim.NewWorld()
	if err := skypanelsim.Seed(t.Context(), database, world); err != nil {
		t.Fatal(err)
	}
	panel := newPanel(virtfusionsim.Config{}, world)
	if err := exhibit(t.Context(), database, world, panel, time.Second); err != nil { // an order, whose hour is over in a second
		t.Fatal(err)
	}
	log := &logBuffer{}
	w := newBillWatch(database, time.Second, zerolog.New(log))
	if w.summary() != "" {
		t.Errorf("nothing was billed, and it says %s", w.summary())
	}
	tick := func(at time.Time) {
		t.Helper()
		w.tell(w.job(panel).Tick(t.Context(), at))
	}
	server := panel.Servers()[4]
	tick(server.Created.Add(time.Second))
	if !strings.Contains(log.String(), "charged an hour of 1 servers to 1 customers: $0.00 in all, as serversync foresaw") { // Pico's rounds to nothing
		t.Errorf("it says\n%s", log.String())
	}
	w.mu.Lock()
	clear(w.prices)
	w.mu.Unlock()
	w.tell(skypanelsim.Report{Charges: []skypanelsim.Charge{{BillingID: 99, ServerID: 5, UserID: 2, Cents: decimal.NewFromInt(7)}}}, nil)
	if !strings.Contains(log.String(), "$0.07 in all, where serversync foresaw $0.00") || !strings.Contains(w.summary(), "2 charges, $0.07 in all, where serversync foresaw $0.00") {
		t.Errorf("it says\n%s%s", log.String(), w.summary())
	}
}

// TestOrdersDoNotPileUp: beyond as many as the fleet has, the oldest order is cancelled.
func TestOrdersDoNotPileUp(t *testing.T) {
	t.Parallel()
	world := skypanelsim.NewWorld()
	panel := newPanel(virtfusionsim.Config{}, world)
	held := &orders{keep: 3, destroy: panel.Destroy}
	var cancelled []int64
	order := func() int64 {
		server, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 7, PackageID: 3})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range held.add(skypanelsim.Receipt{Server: skypanelsim.Server{ID: server.ID}}) {
			cancelled = append(cancelled, r.Server.ID)
		}
		return server.ID
	}
	first, second := order(), order()
	order()
	if len(cancelled) != 0 {
		t.Errorf("%v are cancelled of three", cancelled)
	}
	if _, err := panel.Destroy(second); err != nil { // by somebody else
		t.Fatal(err)
	}
	order()
	if !slices.Equal(cancelled, []int64{first}) {
		t.Errorf("%v were cancelled for a fourth, and not the oldest", cancelled)
	}
	order() // the second goes, which is gone
	if !slices.Equal(cancelled, []int64{first}) || len(panel.Servers()) != 3 {
		t.Errorf("%v were cancelled, and %d servers are left", cancelled, len(panel.Servers()))
	}
}
