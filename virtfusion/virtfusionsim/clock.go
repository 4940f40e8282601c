package virtfusionsim

import (
	"net/http"
	"time"
)

// now is the panel's time: its clock, and how wrong that is.
func (p *Panel) now() time.Time {
	return p.config.Clock().UTC().Add(time.Duration(p.skew.Load()))
}

// SetSkew sets how far the panel's clock is ahead, or, when negative, behind.
// What has been dated stays so: a clock that is set back dates a later change
// before an earlier one.
func (p *Panel) SetSkew(skew time.Duration) { p.skew.Store(int64(skew)) }

// dated gives every answer the panel's own Date.
func (p *Panel) dated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", p.now().Format(http.TimeFormat))
		next.ServeHTTP(w, r)
	})
}
