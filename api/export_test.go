package api

import "context"

// CoverageDue is one look of [API.RunCoverage].
func CoverageDue(ctx context.Context, a *API) error { return a.coverageDue(ctx) }

// AuditDue is one look of the watchdog.
func AuditDue(ctx context.Context, a *API) error { return a.auditDue(ctx) }
