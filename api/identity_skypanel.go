package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"serversync/db"
)

const (
	// identityFor is how long an identity that was found is not looked up
	// again: this long, at most, a key that was switched off, a user who was
	// deactivated or a session that was ended still opens something.
	identityFor = 5 * time.Second
	// touchEvery is how often it is written down that a key is used.
	touchEvery = time.Minute

	keyPrefix     = "skyvps360_live"
	sessionCookie = "connect.sid"
)

// errLapsed means that a credential is one of SkyPANEL's, and does not hold (any
// more): nobody guessed.
var errLapsed = errors.New("the credential does not hold any more")

// keyShape is an API key of SkyPANEL's: prefix, dot, user id, 32 hex digits.
var keyShape = regexp.MustCompile(`^` + keyPrefix + `\.(([1-9][0-9]{0,9})_[0-9a-f]{32})$`)

// byKey finds whose API key this is. [db.ErrNobody]: nobody's; [errLapsed]: it
// was switched off, or has expired, or its user is not active. Only who was
// found is remembered: wrong keys are bounded by address.
func (a *authenticator) byKey(ctx context.Context, secret string, now time.Time) (identity, error) {
	parts := keyShape.FindStringSubmatch(secret)
	if parts == nil {
		return identity{}, db.ErrNobody
	}
	userID, err := strconv.ParseInt(parts[2], 10, 32)
	if err != nil { // SkyPANEL's ids have 32 bits
		return identity{}, db.ErrNobody
	}
	digest := sha256.Sum256([]byte(keyPrefix + parts[1]))
	if who, ok := a.known.get(digest, now); ok {
		return who, nil
	}
	key, err := db.ReadAPIKey(ctx, a.db, userID, hex.EncodeToString(digest[:]), now)
	if err != nil {
		return identity{}, err
	}
	if !key.Valid {
		return identity{}, errLapsed
	}
	a.touch(ctx, &key, now)
	who := identity{
		kind: kindKey, role: role(key.Role), userID: key.UserID, scopes: key.Scopes,
		name: fmt.Sprintf("user %d (api key %d)", key.UserID, key.ID),
	}
	a.known.put(digest, who, now)
	return who, nil
}

// touch writes down that a key is used. That it cannot be written is no reason
// to refuse anybody.
func (a *authenticator) touch(ctx context.Context, key *db.APIKey, now time.Time) {
	since := now.Add(-touchEvery)
	if key.LastUsed != nil && key.LastUsed.After(since) {
		return
	}
	if err := db.TouchAPIKey(ctx, a.db, key.ID, now, since); err != nil && ctx.Err() == nil {
		a.log.Warn().Err(err).Msg("the time of an API key's last use is not written down: our role needs UPDATE on public.api_keys")
	}
}

// byCookie finds who is signed in to SkyPANEL by its session cookie.
// [errLapsed]: there is no cookie, or it is none of SkyPANEL's, or nobody is
// signed in by it. Without a secret there are no cookies.
func (a *authenticator) byCookie(r *http.Request, now time.Time) (identity, error) {
	cookies := r.CookiesNamed(sessionCookie)
	if len(cookies) == 0 || len(a.sessionSecret) == 0 {
		return identity{}, errLapsed
	}
	sid, ok := a.unsign(cookies[0].Value) // the first counts, as for Express
	if !ok {
		return identity{}, errLapsed
	}
	digest := sha256.Sum256([]byte(sessionCookie + "\x00" + sid))
	if who, ok := a.known.get(digest, now); ok {
		return who, nil
	}
	user, err := db.ReadSession(r.Context(), a.db, sid, now)
	if errors.Is(err, db.ErrNobody) {
		return identity{}, errLapsed
	}
	if err != nil {
		return identity{}, err
	}
	who := identity{kind: kindSession, role: role(user.Role), userID: user.ID, name: fmt.Sprintf("user %d (session)", user.ID)}
	a.known.put(digest, who, now)
	return who, nil
}

// unsign reads the session id out of a cookie as express-session writes it:
// URL-encoded "s:<sid>.<signature>". Whoever does not know the secret cannot
// make one; how much of a signature is right does not show in the time that
// it takes.
func (a *authenticator) unsign(cookie string) (sid string, ok bool) {
	value, err := url.PathUnescape(cookie)
	if err != nil {
		return "", false
	}
	value, signed := strings.CutPrefix(value, "s:")
	dot := strings.LastIndexByte(value, '.')
	if !signed || dot < 1 || strings.ContainsRune(value, 0) {
		return "", false
	}
	mac := hmac.New(sha256.New, a.sessionSecret)
	mac.Write([]byte(value[:dot]))
	want := base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
	return value[:dot], hmac.Equal([]byte(value[dot+1:]), []byte(want))
}
