// Package virtfusion speaks VirtFusion's two languages: the JSON of its
// webhooks and of its Global API, and the HTTP of that API.
//
// # Wire types
//
// VirtFusion's objects differ between servers, versions and calls: a field may
// be missing or null, a number may be text, a flag may be 0 or 1, and PHP
// writes an empty object as []. The decoders ([DecodeServer], [DecodeWebhook])
// therefore never fail over one bad field; such a field counts as missing, and
// a pointer that is nil says nothing about the server.
//
// The types name only what serversync keeps. The rest of the object holds
// secrets (passwords, keys, console screens, e-mail addresses), and what has no
// place in a type cannot leak out of it.
//
// # Client
//
// [Client] makes every call that serversync needs, within one [Budget] of
// requests a second, in which a user who waits goes ahead of a sweep, with
// bounded retries for what may pass and errors that say what to do next
// ([Error]).
//
// Package virtfusionsim, next to this one, simulates a whole VirtFusion.
package virtfusion
