// Package api is the HTTP interface for people and their programs: what
// serversync knows, why it decided what it did, and what operators may ask of
// it. It reads through package db; whatever changes billing rows it asks of
// the reconciler, through an interface of its own.
package api

import (
	"context"
	"errors"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
)

// books is the reconciler, the only one who changes billing rows. Its methods
// return [ErrNotReady] while it is still starting.
type books interface {
	// Redecide decides servers that the inventory knows again from what is
	// stored, and returns in how many something changed.
	Redecide(ctx context.Context, serverIDs []int64) (changed int, err error)
	// VoidOrphanedCharges voids the pending charges of ours whose rows were
	// withdrawn, and returns how many.
	VoidOrphanedCharges(ctx context.Context) (voided int, err error)
}

// Config is what an [API] is made of.
type Config struct {
	DB *bun.DB
	// Books changes billing rows.
	Books books
	// AdminToken is the bearer token that opens the admin's routes. Not empty.
	AdminToken string
	// Checks are the doctor's, made anew at each call.
	Checks func(ctx context.Context) []Finding
	Now    func() time.Time
	Log    zerolog.Logger
}

// API answers the routes under /api.
type API struct {
	db     *bun.DB
	books  books
	auth   *authenticator
	checks func(ctx context.Context) []Finding
	now    func() time.Time
	log    zerolog.Logger
}

// New fails without an admin token: an empty one would let everybody in.
func New(c Config) (*API, error) {
	if c.AdminToken == "" {
		return nil, errors.New("the admin token is empty: set ADMIN_TOKEN, or leave it out to have one made")
	}
	return &API{db: c.DB, books: c.Books, checks: c.Checks, auth: newAuthenticator(c.AdminToken, c.Now), now: c.Now, log: c.Log}, nil
}

// Register adds the routes.
func (a *API) Register(e *echo.Echo) {
	admin := e.Group("/api/admin", a.auth.require(roleAdmin))
	admin.GET("/servers/:id/timeline", a.timeline)
	admin.POST("/cleanup", a.cleanup)
	admin.GET("/doctor", a.examine)
}
