package virtfusion

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The kinds of failure, for [errors.Is]. Each error of the client that is not
// the caller's own context ending is an [*Error] that matches one of them.
var (
	// ErrUnauthorized: VirtFusion refused the token (401).
	ErrUnauthorized = errors.New("unauthorized")
	// ErrForbidden: the token is good, but not for this (403).
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound: VirtFusion itself, in its own JSON, says that there is no
	// such thing (404). A web server's 404 page is ErrMalformed.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: VirtFusion did not accept the request (422, or another 4xx).
	ErrInvalid = errors.New("invalid request")
	// ErrRateLimited: too many requests (429), still so after the retries.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnavailable: no answer, or a 5xx, still so after the retries.
	ErrUnavailable = errors.New("unavailable")
	// ErrMalformed: an answer that is not VirtFusion's API talking: HTML, a
	// redirect, broken JSON, a body without what was asked for.
	ErrMalformed = errors.New("malformed answer")
	// ErrOutcomeUnknown: a call that moves credit may or may not have been
	// carried out. It must not be repeated before someone has looked.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

// Kind classifies an [*Error].
type Kind int

// The kinds, each with its sentinel error.
const (
	KindUnauthorized   Kind = iota + 1 // ErrUnauthorized
	KindForbidden                      // ErrForbidden
	KindNotFound                       // ErrNotFound
	KindInvalid                        // ErrInvalid
	KindRateLimited                    // ErrRateLimited
	KindUnavailable                    // ErrUnavailable
	KindMalformed                      // ErrMalformed
	KindOutcomeUnknown                 // ErrOutcomeUnknown
)

// sentinel returns the error that stands for k.
func (k Kind) sentinel() error {
	switch k {
	case KindUnauthorized:
		return ErrUnauthorized
	case KindForbidden:
		return ErrForbidden
	case KindNotFound:
		return ErrNotFound
	case KindInvalid:
		return ErrInvalid
	case KindRateLimited:
		return ErrRateLimited
	case KindUnavailable:
		return ErrUnavailable
	case KindMalformed:
		return ErrMalformed
	case KindOutcomeUnknown:
		return ErrOutcomeUnknown
	default:
		return nil
	}
}

// String returns the kind in words.
func (k Kind) String() string {
	if err := k.sentinel(); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Error is a failed call to VirtFusion. Its text says what to do next, and
// never holds the token.
type Error struct {
	Kind Kind
	// Op is the call, such as "GET /servers/12".
	Op string
	// StatusCode is the answer's, or 0 when there was none.
	StatusCode int
	// Message is what went wrong, with VirtFusion's own words where it sent
	// any.
	Message string
	// Remedy is what to do about it.
	Remedy string
	// RetryAfter is how long VirtFusion asked us to wait; 0 when it did not.
	RetryAfter time.Duration
	// ObservedAt is when VirtFusion said so (see [Observation]); zero when
	// there was no answer. A 404 is evidence, and needs its date.
	ObservedAt time.Time
	// Err is the cause, when there is one.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("virtfusion: ")
	b.WriteString(e.Op)
	b.WriteString(": ")
	b.WriteString(e.Message)
	if e.StatusCode != 0 {
		fmt.Fprintf(&b, " (status %d)", e.StatusCode)
	}
	if e.Remedy != "" {
		b.WriteString(": ")
		b.WriteString(e.Remedy)
	}
	return b.String()
}

// Is makes errors.Is(err, ErrNotFound) and its siblings work.
func (e *Error) Is(target error) bool { return target == e.Kind.sentinel() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
