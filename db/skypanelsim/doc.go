// Package skypanelsim simulates the SkyPANEL whose database serversync is a
// guest in, for the demo and for tests: a small company's tables ([Seed]) and
// customers who order servers through SkyPANEL ([Order], [Shop]) in its real
// sequence, which races with VirtFusion's webhook.
//
// The company is plain data ([World]), so that the same users and packages can
// be given to a simulated VirtFusion.
package skypanelsim
