// Command upgrade rehearses an upgrade without a maintenance window: an older
// build of the service and a newer one run side by side on one database and one
// stream, with webhooks coming in, forth and back again. In the end everything
// that was answered 202 must be in the books, once. scripts/upgrade-rehearsal.sh
// builds what it needs.
package main
