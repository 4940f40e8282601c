package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/labstack/echo/v4"
)

// maxBody is how large a request's body may be.
const maxBody = 1 << 20

// readBody reads a request's body, a JSON object, into fields: where the value
// of each goes, by its name. What is missing or null stays as it was, but that
// null is refused where true or false is wanted: who names dryRun means to look
// first. No body at all is an empty object. Fields of other names are refused.
func readBody(c echo.Context, fields map[string]any) error {
	raw, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, maxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than 1 MiB")
	}
	if err != nil {
		return badRequest("incomplete_body", "the body ended early")
	}
	if len(raw) == 0 {
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return badRequest("invalid_json", "the body must be one JSON object")
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		target, known := fields[name]
		if !known {
			return badRequest("unknown_field", fmt.Sprintf("the body has a field %q that nothing is known of; there are %s", name, strings.Join(slices.Sorted(maps.Keys(fields)), ", ")))
		}
		_, flag := target.(*bool)
		if err := json.Unmarshal(object[name], target); err != nil || flag && string(object[name]) == "null" {
			return badRequest("bad_"+snake(name), fmt.Sprintf("%s has a value of another type than it takes", name))
		}
	}
	return nil
}

// requireJSON refuses a body that does not say it is JSON: a form on a foreign
// page can send anything else unasked.
func requireJSON(c echo.Context) error {
	if c.Request().ContentLength == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || kind != echo.MIMEApplicationJSON {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "the Content-Type must be application/json")
	}
	return nil
}

// readOptions checks what a request that changes something says besides its
// path: the query's parameters must be known, and no body may hold options that
// nobody would look at. A dry run that is misspelt must not run.
func readOptions(c echo.Context, known ...string) error {
	if _, err := readParams(c, known); err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(c.Request().Body, maxBody))
	if err != nil {
		return badRequest("incomplete_body", "the body ended early")
	}
	switch body := strings.Join(strings.Fields(string(raw)), ""); body {
	case "", "{}", "null":
		return nil
	default:
		return badRequest("unexpected_body", "this takes no body: its options go into the query, as "+known[0]+"=true")
	}
}

// alsoDryRun reports whether a request whose options are in its body is a dry
// run: by its body, or by the query, where other requests have it.
func alsoDryRun(c echo.Context, dryRun bool) (bool, error) {
	if _, err := readParams(c, []string{"dryRun"}); err != nil {
		return false, err
	}
	asked, err := dryRunParam(c)
	return dryRun || asked, err
}

// snake is a field's name as the codes of refusals have it: dryRun, dry_run.
func snake(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
