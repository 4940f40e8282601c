package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestStatistics(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(x.values); got != x.want {
			t.Errorf("median of %v: got %v, want %v", x.values, got, x.want)
		}
	}
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for share, want := range map[float64]time.Duration{0: 1, 1: 1, 50: 50, 50.5: 51, 99: 99, 99.9: 100, 100: 100} {
		if got := percentile(hundred, share); got != want {
			t.Errorf("percentile %v: got %d, want %d", share, got, want)
		}
	}
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("percentile of nothing: got %d", got)
	}
	if got := median(quotients([]float64{10, 30, 4}, []float64{5, 10, 0})); got != 2.5 { // a round without the other counts for nothing
		t.Errorf("median of quotients: got %v, want 2.5", got)
	}
	for value, want := range map[float64]string{0: "0", 0.333: "0.33", 12.34: "12.3", 999.6: "1,000", 1234567: "1,234,567"} {
		if got := number(value); got != want {
			t.Errorf("number %v: got %s, want %s", value, got, want)
		}
	}
	for _, x := range []struct {
		target target
		value  float64
		want   string
	}{{atLeast(4), 4, "met"}, {atLeast(4), 3.9, "**missed**"}, {atMost(0), 0, "met"}, {atMost(0), 1, "**missed**"}, {target{}, 1, ""}} {
		if got := x.target.met(x.value); got != x.want {
			t.Errorf("%v of %v: got %q, want %q", x.value, x.target, got, x.want)
		}
	}
}

// TestRequest: the requests of the load client are what they claim to be.
func TestRequest(t *testing.T) {
	t.Parallel()
	model, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 1000, time.UTC)
	_, body, _ := strings.Cut(string(model.copy().about(1234, at)), "\r\n\r\n")
	if len(body) != bodySize {
		t.Errorf("the body has %d bytes, want %d", len(body), bodySize)
	}
	for _, want := range []string{`"id":100001235,`, `"ownerId":100235,`, `"extRelationId":500235,`, `"uuid":"` + uuid(1234) + `"`, `"created":"2026-03-01T12:00:00.000001Z",`} {
		if !strings.Contains(body, want) {
			t.Errorf("the body has no %s: %s", want, body)
		}
	}
}

// quickly is a run of next to nothing.
func quickly(t *testing.T, only string, out *bytes.Buffer) config {
	t.Helper()
	return config{sections: regexp.MustCompile(only), rounds: 1, quick: true, parent: t.TempDir(), command: "make bench", out: out}
}

// TestQuick runs everything but the installed program, and writes the document.
func TestQuick(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := quickly(t, "ingest|reconcile|growth|end_to_end|sweep|replay|api", &out)
	b, err := run(t.Context(), c)
	if err != nil {
		t.Fatalf("%v, after:\n%s", err, &out)
	}
	if left, err := os.ReadDir(c.parent); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	out.Reset()
	b.results.printRatios(&out)
	for _, name := range []string{
		"ingest_durable_64_vs_plain", "ingest_durable_256_vs_plain", "ingest_durable_vs_no_publish", "reconcile_new_vs_raw_sql",
		"reconcile_new_vs_seed", "reconcile_unchanged_vs_new", "reconcile_1m_vs_1k_rows",
	} {
		line := regexp.MustCompile(`(?m)^ratio ` + name + ` [0-9]+\.[0-9]+$`)
		if !line.MatchString(out.String()) {
			t.Errorf("there is no ratio %s in\n%s", name, &out)
		}
	}
	path := filepath.Join(t.TempDir(), "performance.md")
	kept := keepFrom + "\n\nWords of a person.\n\n" + keepTo
	if err := os.WriteFile(path, []byte("# Old\n\n"+kept+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{kept, "`reconcile_new_vs_seed`", "*plain at 64*", "by `make bench` on"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "# Old") {
		t.Error("the document has what was there before")
	}
}

// TestRawSQL: raw SQL writes what the reconciler writes into all tables, and
// would be found out if it did not.
func TestRawSQL(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := &bench{config: quickly(t, ".", new(bytes.Buffer)), dir: t.TempDir(), started: time.Now()}
	if err := os.Chmod(b.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.stores.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	s, err := b.startBroker(ctx, "nats")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	ours, raw := newBooks(t, b), newBooks(t, b)
	before, err := ours.snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const count = 30
	if err := s.told(ctx, span(0, count).births()); err != nil {
		t.Fatal(err)
	}
	if _, err := drain(ctx, ours, s); err != nil {
		t.Fatal(err)
	}
	after, err := ours.snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	writes, err := after.since(before, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.sameAs(ctx, ours); !errors.Is(err, errDiffer) {
		t.Errorf("before raw SQL has written: got %v, want %v", err, errDiffer)
	}
	if _, _, err := raw.write(ctx, writes); err != nil {
		t.Fatal(err)
	}
	if err := raw.sameAs(ctx, ours); err != nil {
		t.Error(err)
	}
	for table, least := range map[string]int64{
		"serversync.servers": count, "serversync.words_due": count, "serversync.billing_rows": count, "serversync.history": count,
		"public.virtfusion_hourly_billing": count, "public.virtfusion_hourly_transactions": count,
	} {
		if rows, err := raw.count(ctx, table); err != nil || rows < least {
			t.Errorf("%s has %d rows, %v; want at least %d", table, rows, err, least)
		}
	}
	if err := raw.exec(ctx, `UPDATE virtfusion_hourly_billing SET monthly_price = monthly_price + 1 WHERE id = 1`); err != nil {
		t.Fatal(err)
	}
	if err := raw.sameAs(ctx, ours); !errors.Is(err, errDiffer) {
		t.Errorf("after a price was changed: got %v, want %v", err, errDiffer)
	}
}

func newBooks(t *testing.T, b *bench) *books {
	t.Helper()
	k, err := b.books(t.Context(), templateName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.drop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return k
}
