package virtfusion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// maxBody bounds an answer; 200 full servers are about 1 MiB.
const maxBody = 64 << 20

// request is one call.
type request struct {
	method string
	path   string
	query  url.Values
	body   []byte
	// once: the call changes something, so it is sent at most once.
	once bool
}

// op names the call in errors and logs.
func (r *request) op() string { return r.method + " " + r.path }

// do makes a call and returns VirtFusion's 2xx answer, after as many attempts
// as the call allows.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	pace := &pace{BackOff: c.backOff(), longest: c.maxWait}
	retries := c.maxRetries
	if r.once {
		retries = 0
	}
	attempt := 0
	result, err := backoff.RetryNotifyWithTimerAndData(
		func() (*answer, error) {
			attempt++
			result, err := c.try(ctx, r, attempt)
			var failed *Error
			switch {
			case err == nil:
				return result, nil
			case errors.As(err, &failed) && failed.passing():
				pace.asked = failed.RetryAfter
				return nil, err
			default:
				return nil, backoff.Permanent(err)
			}
		},
		backoff.WithContext(backoff.WithMaxRetries(pace, retries), ctx),
		func(err error, wait time.Duration) {
			c.log.Warn().Str("op", r.op()).Int("attempt", attempt).Dur("wait", wait).Err(err).Msg("virtfusion call failed, will retry")
		},
		c.timer(),
	)
	if err == nil {
		return result, nil
	}
	if _, ours := errors.AsType[*Error](err); !ours {
		return nil, fmt.Errorf("virtfusion: %s: %w", r.op(), err)
	}
	return nil, err
}

// pace is a back-off that waits at least as long as VirtFusion asked for, and
// gives up when that is too long.
type pace struct {
	backoff.BackOff
	longest time.Duration
	asked   time.Duration
}

// NextBackOff implements [backoff.BackOff].
func (p *pace) NextBackOff() time.Duration {
	next := p.BackOff.NextBackOff()
	if next == backoff.Stop || p.asked > p.longest {
		return backoff.Stop
	}
	return max(min(next, p.longest), p.asked)
}

// try makes one attempt. Its error is an [*Error], or wraps ctx's.
func (c *Client) try(ctx context.Context, r request, attempt int) (*answer, error) {
	granted := c.metrics.waits(ctx, c.clock)
	err := c.budget.Wait(ctx)
	granted(err)
	if err != nil {
		return nil, fmt.Errorf("waiting for the request budget: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	before := c.clock()
	response, body, err := c.exchange(bounded, r) //nolint:bodyclose // exchange reads and closes it
	after := c.clock()
	if err != nil {
		err = c.unanswered(ctx, r, err)
		c.metrics.answered(after.Sub(before), err)
		return nil, err
	}
	result := &answer{
		op:         r.op(),
		status:     response.StatusCode,
		header:     response.Header,
		body:       body,
		observedAt: observedAt(before, after, response.Header.Get("Date")),
	}
	c.log.Debug().Str("op", r.op()).Int("attempt", attempt).Int("status", result.status).
		Int("bytes", len(body)).Dur("took", after.Sub(before)).Msg("virtfusion answered")
	err = c.judge(result, r.once)
	c.metrics.answered(after.Sub(before), err)
	c.metrics.clockOffset(result.observedAt.Sub(before))
	return result, err
}

// exchange sends the request and reads the whole answer.
func (c *Client) exchange(ctx context.Context, r request) (*http.Response, []byte, error) {
	address := c.base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	var content io.Reader = http.NoBody
	if r.body != nil {
		content = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, content)
	if err != nil {
		return nil, nil, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("Authorization", c.authorize)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("send request: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := readBody(response)
	if err != nil {
		return nil, nil, fmt.Errorf("read answer: %w", err)
	}
	return response, body, nil
}

// readBody reads an answer's body, and one byte beyond maxBody at most.
func readBody(response *http.Response) ([]byte, error) {
	const believed = 1 << 20 // a promise of more is kept before room is made for it
	var body bytes.Buffer
	body.Grow(int(min(max(0, response.ContentLength), believed)) + bytes.MinRead)
	_, err := body.ReadFrom(io.LimitReader(response.Body, maxBody+1))
	return body.Bytes(), err
}

// observedAt dates an answer: the time before the request, on VirtFusion's
// clock. The server wrote date, cut to the second, at some moment between
// before and after; the middle of both is the best guess at the offset between
// the clocks. An offset that resolution and transit could explain, and any
// under two seconds, is ignored.
func observedAt(before, after time.Time, date string) time.Time {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return before.UTC()
	}
	transit := after.Sub(before)
	offset := theirs.Add(time.Second / 2).Sub(before.Add(transit / 2))
	if offset.Abs() < 2*time.Second+transit/2 {
		return before.UTC()
	}
	return before.Add(offset).UTC()
}
