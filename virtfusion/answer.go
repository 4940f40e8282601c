package virtfusion

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// What to do about each kind of failure.
const (
	remedyToken = "VirtFusion refused the API token: create one in VirtFusion under System → API and set VIRTFUSION_API_TOKEN" //nolint:gosec // G101: advice, not a credential
	remedyScope = "the API token may not do this: give it the permission in VirtFusion under System → API, " +
		"and check that this machine's address is allowed there"
	remedyGone    = "check the id; if it was right, VirtFusion no longer has this"
	remedyBug     = "this is a fault in serversync or a change in VirtFusion's API: report it with this message"
	remedyRate    = "lower VIRTFUSION_RPS, or raise the limit in front of VirtFusion"
	remedyDown    = "check that VirtFusion is up and that VIRTFUSION_API_URL reaches it from here"
	remedyAddress = "check that VIRTFUSION_API_URL is the panel's own address, such as https://cp.example.com"
	remedyTLS     = "give VirtFusion a valid certificate for the host in VIRTFUSION_API_URL, or set VIRTFUSION_TLS_VERIFY=false"
	remedyUnknown = "look in VirtFusion at the user's credit before you repeat this"
)

// answer is what VirtFusion said to one request.
type answer struct {
	op         string
	status     int
	header     http.Header
	body       []byte
	observedAt time.Time
}

// object returns the JSON object, valid, that a 2xx answer must be.
func (a *answer) object() ([]byte, error) {
	switch {
	case !a.maybeJSON():
		return nil, a.malformed("VirtFusion's address answered with "+strconv.Quote(a.header.Get("Content-Type"))+" instead of JSON", nil)
	case !isObject(a.body):
		return nil, a.malformed("the answer is not a JSON object", nil)
	}
	if err := valid(a.body); err != nil {
		return nil, a.malformed("the answer cannot be read", err)
	}
	return a.body, nil
}

// accepts tells whether a 2xx answer can be VirtFusion's yes to a call that
// asks for nothing back: JSON of any kind, or nothing at all.
func (a *answer) accepts() bool {
	if len(bytes.TrimSpace(a.body)) == 0 {
		return true
	}
	return a.maybeJSON() && json.Valid(a.body)
}

// maybeJSON tells whether the answer claims to be JSON, or claims nothing.
func (a *answer) maybeJSON() bool {
	declared := a.header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(declared)
	return declared == "" || (err == nil && strings.HasSuffix(media, "json"))
}

// malformed is the error for an answer that does not say what it should.
func (a *answer) malformed(message string, cause error) *Error {
	return a.fail(KindMalformed, message, remedyAddress, cause)
}

func (a *answer) fail(kind Kind, message, remedy string, cause error) *Error {
	return &Error{
		Kind: kind, Op: a.op, StatusCode: a.status, Message: message, Remedy: remedy,
		RetryAfter: a.retryAfter(), ObservedAt: a.observedAt, Err: cause,
	}
}

// retryAfter reads Retry-After, seconds or a date; 0 when there is none. A date
// is compared with the answer's own, so that our clock does not matter.
func (a *answer) retryAfter() time.Duration {
	written := strings.TrimSpace(a.header.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(written, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	until, err := http.ParseTime(written)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		now = a.observedAt
	}
	return max(0, until.Sub(now))
}

// judge returns nil for a 2xx answer and the error for every other. once says
// that the call changes something: then an answer that does not clearly refuse
// it leaves its outcome unknown.
func (c *Client) judge(a *answer, once bool) error {
	switch {
	case len(a.body) > maxBody && !once:
		return a.malformed(fmt.Sprintf("the answer is larger than %d MiB", maxBody>>20), nil)
	case a.status >= 200 && a.status < 300:
		if once && !a.accepts() {
			return a.fail(KindOutcomeUnknown, "something other than VirtFusion's API answered", remedyUnknown, nil)
		}
		return nil
	}
	said := c.message(a)
	switch status := a.status; {
	case status == http.StatusUnauthorized:
		return a.fail(KindUnauthorized, said, remedyToken, nil)
	case status == http.StatusForbidden:
		return a.fail(KindForbidden, said, remedyScope, nil)
	case status == http.StatusNotFound && isObject(a.body) && a.maybeJSON():
		return a.fail(KindNotFound, said, remedyGone, nil)
	case status == http.StatusNotFound:
		return a.malformed("a web server's page, not VirtFusion's API, says that there is nothing", nil)
	case status == http.StatusTooManyRequests:
		return a.fail(KindRateLimited, said, remedyRate, nil)
	case once && (status >= 500 || status == http.StatusRequestTimeout):
		return a.fail(KindOutcomeUnknown, said, remedyUnknown, nil)
	case status >= 500 || status == http.StatusRequestTimeout:
		return a.fail(KindUnavailable, said, remedyDown, nil)
	case status >= 400:
		return a.fail(KindInvalid, said, remedyBug, nil)
	default:
		return a.malformed("the answer is a redirect or another that the API never gives"+c.destination(a), nil)
	}
}

// destination says where a redirect leads, without its query.
func (c *Client) destination(a *answer) string {
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil || to.Host == "" {
		return ""
	}
	return ", to " + c.clean(to.Scheme+"://"+to.Host)
}

// message returns VirtFusion's own words, or the status in words.
func (c *Client) message(a *answer) string {
	var wire struct {
		Message text `json:"message"`
	}
	if isObject(a.body) && len(a.body) <= 1<<20 {
		_ = decodeLeniently(a.body, &wire)
	}
	said := c.clean(wire.Message.value)
	if said == "" && a.status == http.StatusUnauthorized && len(a.body) < 4096 && !bytes.ContainsAny(a.body, "<{") {
		said = c.clean(string(a.body)) // may be plain text
	}
	if said == "" {
		return strings.ToLower(http.StatusText(a.status))
	}
	return "VirtFusion says " + strconv.Quote(said)
}

// clean makes foreign words fit for a log line: without the token, without
// control characters, and short.
func (c *Client) clean(words string) string {
	words = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, c.redact.Replace(words))
	words = strings.TrimSpace(strings.ToValidUTF8(words, ""))
	if runes := []rune(words); len(runes) > 300 {
		words = string(runes[:300]) + "…"
	}
	return words
}

// invalid is the error for arguments that no request can be made of.
func invalid(path, message string) *Error {
	return &Error{Kind: KindInvalid, Op: path, Message: message}
}

// unanswered is the error for a request that got no whole answer.
func (c *Client) unanswered(ctx context.Context, r request, err error) error {
	failed := &Error{Kind: KindUnavailable, Op: r.op(), Remedy: remedyDown, Err: err}
	var (
		certificate *tls.CertificateVerificationError
		network     *net.OpError
	)
	untrusted := errors.As(err, &certificate)
	unsent := untrusted || (errors.As(err, &network) && network.Op == "dial")
	switch {
	case r.once && !unsent:
		failed.Kind, failed.Remedy = KindOutcomeUnknown, remedyUnknown
	case ctx.Err() != nil:
		return fmt.Errorf("no answer: %w", ctx.Err())
	case untrusted:
		failed.Remedy = remedyTLS
	}
	if where, ok := errors.AsType[*url.Error](err); ok {
		failed.Err = where.Err
	}
	failed.Message = "no answer: " + c.clean(failed.Err.Error())
	return failed
}

// passing tells whether the failure may pass by itself.
func (e *Error) passing() bool {
	var certificate *tls.CertificateVerificationError
	switch e.Kind {
	case KindRateLimited:
		return true
	case KindUnavailable:
		return !errors.As(e.Err, &certificate)
	case KindUnauthorized, KindForbidden, KindNotFound, KindInvalid, KindMalformed, KindOutcomeUnknown:
		return false
	default:
		return false
	}
}
