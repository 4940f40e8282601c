package skypanelsim

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
)

// Connect tells SkyPANEL how to reach VirtFusion's API: the settings that its
// operator would enter.
func Connect(ctx context.Context, database *bun.DB, url, token string) error {
	for key, value := range map[string]string{
		"virtfusion_api_url": url, "virtfusion_api_token": token, "virtfusion_ssl_verify": "true",
	} {
		if _, err := database.NewRaw(`INSERT INTO public.settings (key, value) VALUES (?, ?)
			ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value).Exec(ctx); err != nil {
			return fmt.Errorf("set SkyPANEL's %s: %w", key, err)
		}
	}
	return nil
}
