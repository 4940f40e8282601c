package main

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"serversync/virtfusion"
)

const virtFusionRemedy = "check VIRTFUSION_API_URL and VIRTFUSION_API_TOKEN, or SkyPANEL's settings virtfusion_api_url and virtfusion_api_token"

// dialVirtFusion makes a client of the API that accepts our token.
func dialVirtFusion(ctx context.Context, c *config, database bun.IDB) (*virtfusion.Client, virtfusionSettings, error) {
	settings, err := readVirtFusionSettings(ctx, c, database)
	if err != nil {
		return nil, settings, err
	}
	client, err := virtfusion.New(virtfusion.Config{
		BaseURL: settings.url, Token: settings.token, SkipTLSVerify: !settings.verify, Budget: virtfusion.NewBudget(c.virtfusionRPS),
		MaxRetries: -1, Timeout: connectTimeout,
	})
	if err == nil {
		err = client.Connect(ctx)
	}
	if err != nil {
		return nil, settings, err
	}
	return client, settings, nil
}

// examineVirtFusion tries the API with what the environment or SkyPANEL's
// settings say.
func examineVirtFusion(ctx context.Context, c *config, database bun.IDB) []finding {
	const check = "VirtFusion"
	client, settings, err := dialVirtFusion(ctx, c, database)
	if err != nil {
		return []finding{ill(check, err.Error(), virtFusionRemedy)}
	}
	findings := []finding{fine(check, "its API accepts the token")}
	if !settings.verify {
		findings = append(findings, worth("VirtFusion's certificate", "it is not verified: whoever sits between can read the API token", "give VirtFusion a valid certificate, then set VIRTFUSION_TLS_VERIFY=true, or SkyPANEL's setting virtfusion_ssl_verify"))
	}
	before := time.Now()
	page, err := client.ListServers(ctx, 1, 1, false)
	if err != nil {
		return append(findings, ill("VirtFusion's servers", err.Error(), "give the API token the right to read servers"))
	}
	return append(findings, examineClock("clock of VirtFusion", page.ObservedAt, before, time.Now()))
}
