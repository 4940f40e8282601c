package main

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestProfilesAreServedAtThePrivateAddressAlone(t *testing.T) {
	t.Parallel()
	r := start(t, config{pprofAddr: "127.0.0.1:0"})
	said := regexp.MustCompile(`"address":"(127\.0\.0\.1:\d+)"[^\n]*profiles are served`)
	var private string
	eventually(t, "profiles are served", func() bool {
		m := said.FindStringSubmatch(r.log.String())
		if m != nil {
			private = "http://" + m[1]
		}
		return m != nil
	})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=1", "/debug/pprof/symbol"} {
		if status, _ := get(t, private+path); status != http.StatusOK {
			t.Errorf("%s at the private address: %d", path, status)
		}
		if status, body := get(t, r.base+path); status != http.StatusNotFound || strings.Contains(body, "goroutine") {
			t.Errorf("%s at the public address: %d %s", path, status, body)
		}
	}
	if status, _ := get(t, private+"/debug/pprof/cmdline"); status != http.StatusNotFound {
		t.Errorf("the command line, which may hold secrets, is shown: %d", status)
	}
	if status, _ := get(t, private+"/metrics"); status != http.StatusNotFound {
		t.Errorf("the private address has more than profiles: %d", status)
	}
}

func TestWhereProfilesMayBeServed(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "127.0.0.1:6060", "[::1]:6060", "localhost:6060", "10.1.2.3:6060", "192.168.0.9:0", "[fd00::1]:6060"} {
		if c, err := read(t, settings(), "--pprof-addr="+good); err != nil || c.pprofAddr != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{":6060", "0.0.0.0:6060", "[::]:6060", "203.0.113.5:6060", "[2001:db8::1]:6060", "example.com:6060", "127.0.0.1", "169.254.1.1:6060"} {
		if _, err := read(t, settings(), "--pprof-addr="+bad); err == nil || !strings.Contains(err.Error(), "PPROF_ADDR") || !strings.Contains(err.Error(), "say a") {
			t.Errorf("%q: %v, want a refusal that says what to do", bad, err)
		}
	}
}

func TestWhereTracesGo(t *testing.T) {
	t.Parallel()
	for _, at := range []struct{ args, want string }{
		{"", ""},
		{"--otel-exporter-otlp-endpoint=http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"},
		{"--otel-exporter-otlp-endpoint=https://otel.example.com/in/", "https://otel.example.com/in/v1/traces"},
		{"--otel-exporter-otlp-traces-endpoint=http://127.0.0.1:4318/spans", "http://127.0.0.1:4318/spans"},
		{"--otel-exporter-otlp-endpoint=http://other:4318 --otel-exporter-otlp-traces-endpoint=http://127.0.0.1:4318/spans", "http://127.0.0.1:4318/spans"},
	} {
		if c, err := read(t, settings(), strings.Fields(at.args)...); err != nil || c.tracesURL != at.want {
			t.Errorf("%s: %q (%v), want %q", at.args, c.tracesURL, err, at.want)
		}
	}
	for _, bad := range []string{"127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://"} {
		if _, err := read(t, settings(), "--otel-exporter-otlp-endpoint="+bad); err == nil || !strings.Contains(err.Error(), "not the URL of a collector") {
			t.Errorf("%q: %v, want a refusal that says what to do", bad, err)
		}
	}
}
