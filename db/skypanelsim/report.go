package skypanelsim

import "time"

// Why the job did nothing.
const (
	OffDisabled    = "the job is switched off"     // virtfusion_cron_settings
	OffMonthlyMode = "SkyPANEL bills by the month" // settings
)

// Report says what a tick did; with several workers, what all of them did.
type Report struct {
	At time.Time
	// Off is why the job did nothing; empty: it ran.
	Off string
	// Rows is how many billing rows were looked at.
	Rows int
	// Charges are the hours that were charged, or tried, worker by worker, row
	// by row. A charge without an ID was taken and is in no billing record:
	// its row went away meanwhile.
	Charges []Charge
	// SwitchedOff are the billing rows that the ownership check switched off.
	SwitchedOff []int64
	// NeverBilled are the rows that SkyPANEL silently passes over: neither
	// last_billed_at nor server_created_at says from when they owe.
	NeverBilled []int64
	// Errors are of single rows. SkyPANEL logs them and goes on.
	Errors []error
}

func (r *Report) add(other Report) {
	r.Off = other.Off
	r.Rows += other.Rows
	r.Charges = append(r.Charges, other.Charges...)
	r.SwitchedOff = append(r.SwitchedOff, other.SwitchedOff...)
	r.NeverBilled = append(r.NeverBilled, other.NeverBilled...)
	r.Errors = append(r.Errors, other.Errors...)
}
