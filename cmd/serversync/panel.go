package main

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/virtfusion"
)

// virtfusionSettings are how to reach VirtFusion's API: what the environment
// says, else SkyPANEL's settings.
type virtfusionSettings struct {
	url, token string
	verify     bool
}

// errNoVirtFusion means that nobody has said how to reach VirtFusion's API.
var errNoVirtFusion = errors.New("VirtFusion's API is not configured: set VIRTFUSION_API_URL and VIRTFUSION_API_TOKEN, or SkyPANEL's settings virtfusion_api_url and virtfusion_api_token")

// readVirtFusionSettings looks at the environment first. database may be nil.
func readVirtFusionSettings(ctx context.Context, c *config, database bun.IDB) (virtfusionSettings, error) {
	s := virtfusionSettings{url: c.virtfusionURL, token: c.virtfusionToken, verify: true}
	if database != nil && (s.url == "" || s.token == "" || c.virtfusionTLSVerify == nil) {
		stored, err := db.ReadSettings(ctx, database, "virtfusion_api_url", "virtfusion_api_token", "virtfusion_ssl_verify")
		if err != nil {
			return s, err
		}
		s.url, s.token = cmp.Or(s.url, stored["virtfusion_api_url"]), cmp.Or(s.token, stored["virtfusion_api_token"])
		s.verify = stored["virtfusion_ssl_verify"] != "false"
	}
	if c.virtfusionTLSVerify != nil {
		s.verify = *c.virtfusionTLSVerify
	}
	if s.url == "" || s.token == "" {
		return s, errNoVirtFusion
	}
	return s, nil
}

// panelClient keeps one API client for as long as its settings stay the same,
// so that a token rotated in SkyPANEL needs no restart.
type panelClient struct {
	budget  *virtfusion.Budget  // shared by all clients of the process
	metrics *virtfusion.Metrics // so are these

	mu       sync.Mutex
	settings virtfusionSettings
	client   *virtfusion.Client
}

func (p *panelClient) get(s virtfusionSettings, log zerolog.Logger) (*virtfusion.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil && p.settings == s {
		return p.client, nil
	}
	client, err := virtfusion.New(virtfusion.Config{
		BaseURL: s.url, Token: s.token, SkipTLSVerify: !s.verify, Budget: p.budget, Logger: &log, Metrics: p.metrics,
	})
	if err != nil {
		return nil, err
	}
	p.settings, p.client = s, client
	return client, nil
}

// virtfusion returns the API client of the moment.
func (s *service) virtfusion(ctx context.Context) (*virtfusion.Client, error) {
	settings, err := readVirtFusionSettings(ctx, s.config, s.stores.db)
	if err != nil {
		return nil, err
	}
	return s.panel.get(settings, s.log)
}
