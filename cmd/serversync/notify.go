package main

import (
	"context"

	"github.com/uptrace/bun"

	"serversync/db"
)

// warnOfNotifications says at the start that nobody can be told in SkyPANEL. That
// stops nothing: each time it is tried again.
func (s *service) warnOfNotifications(ctx context.Context) {
	if !s.config.notifyUsers {
		return
	}
	if err := db.CanNotify(ctx, s.stores.db); err != nil && ctx.Err() == nil {
		s.log.Warn().Err(err).Msg("nobody will be told in SkyPANEL; billing goes on")
	}
}

// examineNotifications sees whether users can be told in SkyPANEL, where that is
// wanted.
func examineNotifications(ctx context.Context, c *config, database bun.IDB) []finding {
	if !c.notifyUsers {
		return nil
	}
	if err := db.CanNotify(ctx, database); err != nil {
		return []finding{{Check: "notifications", Detail: "nobody is told in SkyPANEL", Remedy: err.Error()}}
	}
	return []finding{{Check: "notifications", OK: true, Detail: "SkyPANEL's table can be added to"}}
}
