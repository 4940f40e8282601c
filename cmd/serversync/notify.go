package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/events"
	"serversync/notify"
)

// warnOfNotifications says at the start that nobody can be told in SkyPANEL. That
// stops nothing: each time it is tried again.
func (s *service) warnOfNotifications(ctx context.Context) {
	if !s.config.notifyUsers && !s.config.notifyAdmins {
		return
	}
	if err := db.CanNotify(ctx, s.stores.db); err != nil && ctx.Err() == nil {
		s.log.Warn().Err(err).Msg("nobody will be told in SkyPANEL; billing goes on")
	}
}

// examineNotifications sees whether users can be told in SkyPANEL, where that is
// wanted.
func examineNotifications(ctx context.Context, c *config, database bun.IDB) []finding {
	if !c.notifyUsers && !c.notifyAdmins {
		return nil
	}
	if err := db.CanNotify(ctx, database); err != nil {
		return []finding{ill("notifications", "nobody is told in SkyPANEL", err.Error())}
	}
	return []finding{fine("notifications", "SkyPANEL's table can be added to")}
}

// applyNotifyWebhook reads the secret; the address was read before.
func applyNotifyWebhook(c *config, secret string) error {
	if c.notifyWebhookURL == "" {
		if secret != "" {
			return errors.New("set NOTIFY_WEBHOOK_URL too, or neither")
		}
		return nil
	}
	var err error
	c.notifyWebhook, err = notify.NewWebhook(c.notifyWebhookURL, secret)
	return err
}

// applySMTPURL reads the mail server; the addresses were read before.
func applySMTPURL(c *config, server string) error {
	switch {
	case c.notifyEmailTo == "" && server == "":
		return nil
	case c.notifyEmailTo == "":
		return errors.New("set NOTIFY_EMAIL_TO too, or neither")
	}
	var err error
	c.notifyEmail, err = notify.NewEmail(server, c.notifyEmailFrom, c.notifyEmailTo)
	return err
}

// notifier tells administrators.
func (s *service) notifier() *notify.Notifier {
	c := s.config
	return notify.New(notify.Config{
		DB: s.stores.db, SkyPANEL: c.notifyAdmins, Webhook: c.notifyWebhook, Email: c.notifyEmail,
		More: s.deadLetterNotices, Now: time.Now, Log: s.log,
	})
}

// maxDeadNotices bounds the dead letters that are looked at: newest first.
const maxDeadNotices = 100

// deadLetterNotices are the dead letters, for those who are told of them once.
func (s *service) deadLetterNotices(ctx context.Context) ([]db.Notice, error) {
	letters, _, err := events.NewDeadLetters(s.js, s.stores.durable()).List(ctx, 0, maxDeadNotices)
	if err != nil {
		return nil, err
	}
	notices := make([]db.Notice, len(letters))
	for i := range letters {
		l := &letters[i]
		notices[i] = db.Notice{
			Subject: "dead_letter:" + l.ID + ":" + l.FirstAt.UTC().Format(time.RFC3339), Kind: "dead_letter", Severity: db.AuditWarning,
			Title: "An event could not be reconciled", Message: fmt.Sprintf("%s, after %d attempts: %s", l.Subject, l.Attempts, l.Reason), At: time.Now(),
		}
	}
	return notices, nil
}
