package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// profiles serves Go's profiles at PPROF_ADDR until ctx ends, on a listener of
// its own: whoever reads them sees memory, and can slow the process down.
func (s *service) profiles(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.config.pprofAddr)
	if err != nil {
		return fmt.Errorf("listen for profiles (set PPROF_ADDR to another address, or leave it empty): %w", err)
	}
	s.log.Info().Str("address", ln.Addr().String()).Msg("profiles are served at /debug/pprof/, without a password: to this private address alone")
	server := &http.Server{Handler: profileRoutes(), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // a profile that is being taken is no reason to wait
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve profiles: %w", err)
	}
	return nil
}

func profileRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound) // flags may hold secrets
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// applyPprofAddr takes an address that strangers cannot reach, and no other.
func applyPprofAddr(c *config, v string) error {
	c.pprofAddr = v
	if v == "" {
		return nil
	}
	if err := checkAddr(v); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(v) // checkAddr has done it
	if host == "localhost" {
		return nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.IsLoopback() && !addr.IsPrivate() {
		return errors.New("profiles show the process's memory: say a loopback or private address by its number, such as 127.0.0.1:6060, or nothing to have none")
	}
	return nil
}
