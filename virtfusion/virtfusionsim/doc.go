// Package virtfusionsim simulates a VirtFusion: the panel's state, its Global
// API ([Panel.Handler]) and its webhooks ([Panel.Run], [Panel.Drain] or
// [Config.Hook]). It behaves as the contract says the real one does: Laravel
// pages, three forms of a server, ids as numbers or text, secrets in every full
// object ([Secrets]), one attempt at each delivery and no second one.
//
// A [Fleet] makes a panel live: it creates, rebuilds, renames, suspends, moves
// and destroys servers at a chosen rate, in a sequence fixed by its seed.
//
// # Faults
//
// A panel behaves until it is told otherwise; its faults are fixed by its seed
// and their order.
//
// Webhooks are lost, late, repeated and reordered by chance
// ([Panel.SetDeliveryFaults]) or by script ([Panel.Script], [Panel.Hold],
// [Panel.Release]). [Panel.Flush] delivers what is still held back, and
// [Panel.Redeliver] everything once more. The API fails, hangs and lies as
// [Panel.SetAPIFaults] says; [Faults] lists how. The clock is wrong by
// [Panel.SetSkew].
package virtfusionsim
