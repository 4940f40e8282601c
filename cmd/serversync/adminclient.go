package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
)

const (
	// answerTimeout is longer than the service takes for any answer.
	answerTimeout = 90 * time.Second
	maxAnswer     = 64 << 20
)

// adminSettings are what a command needs to reach a running service.
func adminSettings() []setting { return pick(settings(), "LISTEN_ADDR", "DATA_DIR", "ADMIN_TOKEN") }

// adminFlags are the flags of a command that acts through a running service.
func adminFlags(all []setting, more ...cli.Flag) []cli.Flag {
	return append(append(flags(all), urlFlag()), more...)
}

func urlFlag() cli.Flag {
	return &cli.StringFlag{Name: "url", Usage: "the running service (default: from LISTEN_ADDR)", Sources: cli.EnvVars("SERVERSYNC_URL")}
}

// adminClient calls the admin API of a running service.
type adminClient struct {
	base  string
	token string // empty: none is known, see tokenErr
	// tokenErr is why no token is known; told only to whom one would have helped.
	tokenErr error
	http     *http.Client
}

// newAdminClient finds out where the service is and what it knows us by.
func newAdminClient(cmd *cli.Command, all []setting) (*adminClient, error) {
	c, err := readConfig(cmd, all)
	if err != nil {
		return nil, err
	}
	base := strings.TrimRight(cmp.Or(cmd.String("url"), urlOf(c.listenAddr)), "/")
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &usageError{errors.New("SERVERSYNC_URL: say a URL such as http://127.0.0.1:8080")}
	}
	a := &adminClient{base: base, token: c.adminToken, http: &http.Client{
		Timeout: answerTimeout,
		// The token is for the service alone, not for whom it might point to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if a.token == "" {
		a.token, a.tokenErr = readAdminToken(c.dataDir)
	}
	return a, nil
}

// apiError is a refusal of the service.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string { return printable(e.message) }

// noServiceError says that no service of ours answers: nobody does, or somebody
// else, a proxy whose service is away for one.
type noServiceError struct{ err error }

func (e *noServiceError) Error() string { return e.err.Error() }
func (e *noServiceError) Unwrap() error { return e.err }

// call sends a request and reads the answer's data.
func (a *adminClient) call(ctx context.Context, method, path string, query url.Values, data any) error {
	return a.send(ctx, &request{method: method, path: path, query: query}, data)
}

// send is call with a body.
func (a *adminClient) send(ctx context.Context, r *request, data any) error {
	response, err := a.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := a.read(response)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, data); err != nil {
		return fmt.Errorf("read the answer of the service at %s (is it of another version than %s?): %w", a.base, thisBuild().Version, err)
	}
	return nil
}

// fetch reads a file of the service's, whole.
func (a *adminClient) fetch(ctx context.Context, path string, query url.Values) ([]byte, error) {
	response, err := a.do(ctx, &request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		_, err := a.read(response)
		return nil, cmp.Or(err, error(&noServiceError{fmt.Errorf("what answers at %s sends no file: set SERVERSYNC_URL to where the service runs", a.base)}))
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the file of the service at %s ended early: try again: %w", a.base, err)
	case len(content) > maxAnswer:
		return nil, fmt.Errorf("the file of the service at %s is larger than 64 MiB: fetch GET %s by other means", a.base, path)
	}
	return content, nil
}

// do sends a request.
func (a *adminClient) do(ctx context.Context, r *request) (*http.Response, error) {
	content := io.Reader(http.NoBody)
	if r.body != nil {
		encoded, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("ask the service at %s: %w", a.base, err)
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, r.method, a.base+r.path+"?"+r.query.Encode(), content)
	if err != nil {
		return nil, fmt.Errorf("ask the service at %s: %w", a.base, err)
	}
	if r.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return nil, &noServiceError{fmt.Errorf("no service answers at %s (%w): start it with serversync serve, or set SERVERSYNC_URL to where it runs", a.base, errors.Unwrap(err))}
	}
	return response, nil
}

// read reads an answer's data, or why there is none.
func (a *adminClient) read(response *http.Response) (json.RawMessage, error) {
	var body struct {
		Success bool            `json:"success"`
		Data    json.RawMessage `json:"data"`
		Error   struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&body)
	if err != nil || !body.Success && body.Error.Code == "" {
		return nil, &noServiceError{fmt.Errorf("what answers at %s is not serversync, or an older version of it: set SERVERSYNC_URL to where the service runs", a.base)}
	}
	if !body.Success {
		return nil, a.refusal(&apiError{status: response.StatusCode, code: body.Error.Code, message: body.Error.Message})
	}
	return body.Data, nil
}

// refusal says what to do about a refusal.
func (a *adminClient) refusal(e *apiError) error {
	switch {
	case e.code == "not_found":
		return fmt.Errorf("the service at %s does not have this yet, or does not run the role api", a.base)
	case e.status != http.StatusUnauthorized:
		return e
	case a.token != "":
		return fmt.Errorf("the service at %s does not accept our admin token: set ADMIN_TOKEN to its own, or DATA_DIR to the directory where it keeps one", a.base)
	case errors.Is(a.tokenErr, fs.ErrNotExist):
		return fmt.Errorf("no admin token is known for the service at %s: set ADMIN_TOKEN to its own, or DATA_DIR to the directory where it keeps one (%w)", a.base, a.tokenErr)
	default:
		return a.tokenErr
	}
}
