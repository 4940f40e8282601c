package skypanelsim

import (
	"time"

	"github.com/shopspring/decimal"
)

// HourlyTokens is what SkyPANEL charges for an hour: whole tokens (cents), the
// nearest to the price, and half a token up. The monthly price is in dollars;
// hours must be positive.
//
// SkyPANEL reckons in JavaScript's floating point. For prices in whole cents
// the two differ only where the exact quotient is a whole token or lies midway
// between two, and then by one token.
func HourlyTokens(monthly decimal.Decimal, hours int64) int64 {
	return monthly.Shift(2).DivRound(decimal.NewFromInt(hours), 0).IntPart()
}

// FirstTokens is what SkyPANEL charges for the first hour: the tokens rounded
// up.
func FirstTokens(monthly decimal.Decimal, hours int64) int64 {
	tokens, rest := monthly.Shift(2).QuoRem(decimal.NewFromInt(hours), 0)
	if rest.IsPositive() {
		return tokens.IntPart() + 1
	}
	return tokens.IntPart()
}

// EffectiveMonthly is what a month of hours really costs, in dollars, beside
// the list price: 10.00 costs 7.30 and 11.00 costs 14.60 at 730 hours, and all
// below 3.65 nothing. The first hour's rounding is left out.
func EffectiveMonthly(monthly decimal.Decimal, hours int64) decimal.Decimal {
	return dollars(HourlyTokens(monthly, hours) * hours)
}

// Owed says which hours a row owes at a time: how many, and from when. SkyPANEL
// charges in advance: an hour is owed from its first moment on. A row is paid
// until its last_billed_at, or, where that is null, until an hour after the
// server's creation, which was paid with the order. Where both are null nothing
// is ever owed, and from is zero.
func Owed(lastBilled, serverCreated *time.Time, now time.Time) (from time.Time, hours int64) {
	return owed(lastBilled, serverCreated, now, time.Hour)
}

// owed is Owed where an hour may last less.
func owed(lastBilled, serverCreated *time.Time, now time.Time, hour time.Duration) (from time.Time, hours int64) {
	switch {
	case lastBilled != nil:
		from = *lastBilled
	case serverCreated != nil:
		from = serverCreated.Add(hour)
	default:
		return time.Time{}, 0
	}
	if now.Before(from) {
		return from, 0
	}
	return from, int64(now.Sub(from)/hour) + 1
}

// dollars are an amount of tokens, which are cents, in dollars.
func dollars(tokens int64) decimal.Decimal { return decimal.New(tokens, -2) }
