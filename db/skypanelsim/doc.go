// Package skypanelsim simulates the SkyPANEL whose database serversync is a
// guest in, for the demo and for tests: a small company's tables ([Seed]),
// customers who order servers through SkyPANEL ([Order], [Shop]) in its real
// sequence, which races with VirtFusion's webhook, and the job that bills them
// by the hour ([Job]), with its real arithmetic and its real flaws.
//
// The company is plain data ([World]), so that the same users and packages can
// be given to a simulated VirtFusion.
//
// # Who pays when
//
// An order pays the server's first hour, rounded up ([PayUpfront]). Each hour
// after it is charged by the job at its beginning, rounded to the nearest cent:
// last_billed_at is the time until which a row is paid, and where it is null
// that is an hour after the server's creation. A server that was not ordered
// here has no order that pays; its record says from when the job charges.
// [Charges] reads what was charged, and [Overlaps] finds time that was charged
// twice.
package skypanelsim
