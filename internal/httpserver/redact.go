package httpserver

import (
	"context"
	"errors"
	"net"
	"regexp"
	"syscall"
)

// secretsInText finds the passwords of URLs (scheme://user:password@host) and
// of PostgreSQL's keyword strings (password=…).
var secretsInText = regexp.MustCompile(`(://[^:/@\s]*:)[^@\s]+(@)|(?i:(password|passwd|token|secret)\s*[=:]\s*)('[^']*'|"[^"]*"|[^\s&]+)`)

// redact takes credentials out of an error's text before it is logged.
func redact(text string) string {
	return secretsInText.ReplaceAllStringFunc(text, func(m string) string {
		parts := secretsInText.FindStringSubmatch(m)
		if parts[2] != "" {
			return parts[1] + "***" + parts[2]
		}
		return parts[3] + "=***"
	})
}

// PublicError is a check's error that anybody may read, at /readyz: it names no hosts,
// users or passwords, and says what to do.
type PublicError struct{ Err error }

// Error is the error's text.
func (p PublicError) Error() string { return p.Err.Error() }

// Unwrap returns the error.
func (p PublicError) Unwrap() error { return p.Err }

// publicReason says why a dependency is not usable in words of our own: an
// error's text may name hosts, users and passwords, and anybody may read
// /readyz.
func publicReason(err error) string {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its host name cannot be resolved"
	}
	if public, ok := errors.AsType[PublicError](err); ok {
		return public.Error()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	default:
		return "not usable; the log says why"
	}
}
