package api

import (
	"slices"

	"github.com/labstack/echo/v4"
)

// The severities of findings.
const (
	SeverityOK      = "ok"
	SeverityWarning = "warning" // it works, and somebody should look
	SeverityError   = "error"   // it does not work, or money is lost
)

// Finding is one check of the doctor.
type Finding struct {
	Check string `json:"check"`
	// OK: no error; a warning is no failure.
	OK       bool   `json:"ok"`
	Severity string `json:"severity"`
	Detail   string `json:"detail"`           // what was seen
	Remedy   string `json:"remedy,omitempty"` // what to do about it
}

// Doctor is what the doctor found.
type Doctor struct {
	OK     bool      `json:"ok"`
	Checks []Finding `json:"checks"`
}

// Grade fills the severity in from what is there, where nobody has said it. What
// is in order needs no remedy.
func (f *Finding) Grade() {
	switch {
	case !f.OK:
		f.Severity = SeverityError
	case f.Severity == "":
		f.Severity = SeverityOK
	}
	if f.Severity == SeverityOK {
		f.Remedy = ""
	}
}

// examine answers GET /api/admin/doctor.
func (a *API) examine(c echo.Context) error {
	ctx := c.Request().Context()
	if _, err := readParams(c, []string{"user"}); err != nil {
		return err
	}
	var checks []Finding
	if user := c.QueryParam("user"); user != "" {
		id, err := readUserID(user, "bad_user")
		if err != nil {
			return err
		}
		if a.userChecks == nil {
			return fault(ErrNotReady)
		}
		checks = a.userChecks(ctx, id)
	} else {
		checks = a.checks(ctx)
	}
	for i := range checks {
		checks[i].Grade()
	}
	ill := slices.ContainsFunc(checks, func(f Finding) bool { return !f.OK })
	return succeed(c, Doctor{OK: !ill, Checks: checks})
}
