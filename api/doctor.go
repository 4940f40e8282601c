package api

import (
	"slices"

	"github.com/labstack/echo/v4"
)

// Finding is one check of the doctor.
type Finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`           // what was seen
	Remedy string `json:"remedy,omitempty"` // what to do about it
}

// Doctor is what the doctor found.
type Doctor struct {
	OK     bool      `json:"ok"`
	Checks []Finding `json:"checks"`
}

// examine answers GET /api/admin/doctor.
func (a *API) examine(c echo.Context) error {
	checks := a.checks(c.Request().Context())
	ill := slices.ContainsFunc(checks, func(f Finding) bool { return !f.OK })
	return succeed(c, Doctor{OK: !ill, Checks: checks})
}
