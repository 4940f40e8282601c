// Package check holds the files of deploy/ that others read, Kubernetes and
// Compose, against those others' own types and schemas. It is a module of its
// own, so that the product does not depend on them.
//
// That each variable, command and flag in them is the program's, a test of
// cmd/serversync sees; that the broker takes its configuration, one of
// cmd/cluster.
package check
