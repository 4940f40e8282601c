package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"
)

// tokenSet holds the digests of the accepted webhook tokens. Several are
// accepted at once so that they can be rotated without losing a delivery.
type tokenSet [][sha256.Size]byte

var errEmptyToken = errors.New("a webhook token is empty: remove the stray comma from WEBHOOK_TOKENS")

func newTokenSet(tokens []string) (tokenSet, error) {
	set := make(tokenSet, 0, len(tokens))
	for _, t := range tokens {
		if t == "" {
			return nil, errEmptyToken
		}
		set = append(set, sha256.Sum256([]byte(t)))
	}
	return set, nil
}

// accepts reads "Bearer <base64(token)>", as VirtFusion sends it: the token is
// always base64-encoded on the wire, so a plain one is refused. The alphabet
// and the padding do not matter. How long it takes tells nothing about how
// much of a token was right, nor which one: digests of equal length are
// compared, all of them.
func (s tokenSet) accepts(authorization string) bool {
	scheme, credentials, _ := strings.Cut(strings.TrimSpace(authorization), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	credentials = strings.TrimRight(strings.TrimSpace(credentials), "=")
	credentials = strings.NewReplacer("-", "+", "_", "/").Replace(credentials)
	token, err := base64.RawStdEncoding.DecodeString(credentials)
	if err != nil {
		return false
	}
	digest := sha256.Sum256(token)
	match := 0
	for i := range s {
		match |= subtle.ConstantTimeCompare(digest[:], s[i][:])
	}
	return match == 1
}
