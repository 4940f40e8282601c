package main

import (
	"strings"
	"testing"
)

// TestNotifySettings: nothing is told unless a setting says so, and half of what
// is needed is a fault that names the rest.
func TestNotifySettings(t *testing.T) {
	t.Parallel()
	c, err := read(t, settings())
	if err != nil || c.notifyUsers || c.notifyAdmins || c.notifyWebhook != nil || c.notifyEmail != nil {
		t.Errorf("by default: %+v, %v", c, err)
	}
	const secret = "--notify-webhook-secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	c, err = read(t, settings(), "--notify-users", "--notify-admins", "--notify-webhook-url=http://127.0.0.1:9/x", secret, "--notify-email-to=ops@company.test", "--smtp-url=smtps://mail.company.test")
	if err != nil || !c.notifyUsers || !c.notifyAdmins || c.notifyWebhook == nil || c.notifyEmail == nil {
		t.Errorf("all: %+v, %v", c, err)
	}
	for says, args := range map[string][]string{
		"set NOTIFY_WEBHOOK_URL too":    {secret},
		"NOTIFY_WEBHOOK_SECRET must be": {"--notify-webhook-url=https://hooks.company.test/hush"},
		"NOTIFY_WEBHOOK_URL must be":    {"--notify-webhook-url=hush", secret},
		"set NOTIFY_EMAIL_TO too":       {"--smtp-url=smtps://hush@mail.company.test"},
		"SMTP_URL must be":              {"--notify-email-to=ops@company.test"},
		"NOTIFY_EMAIL_TO must be":       {"--notify-email-to=ops", "--smtp-url=smtps://hush@mail.company.test"},
		"NOTIFY_EMAIL_FROM must be":     {"--notify-email-to=ops@company.test", "--notify-email-from=x", "--smtp-url=smtps://hush@mail.company.test"},
	} {
		if _, err := read(t, settings(), args...); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
