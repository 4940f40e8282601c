// Package skypanel does the arithmetic of SkyPANEL's billing job, for those who
// have to say what it will charge.
package skypanel

import "github.com/shopspring/decimal"

var hundred = decimal.NewFromInt(100)

// perHour is a monthly price in dollars as tokens (cents) an hour, unrounded.
func perHour(monthly decimal.Decimal, hours int64) decimal.Decimal {
	return monthly.Mul(hundred).DivRound(decimal.NewFromInt(hours), 16)
}

// HourlyTokens is what the job charges for an hour of a row with this monthly
// price, in dollars, and these hours in a month (> 0): whole tokens, each a
// cent, half of one rounded up.
func HourlyTokens(monthly decimal.Decimal, hours int64) int64 {
	return perHour(monthly, hours).Round(0).IntPart()
}

// FirstTokens is the same for the first charge that the job ever collects of a
// row: it rounds up.
func FirstTokens(monthly decimal.Decimal, hours int64) int64 {
	return perHour(monthly, hours).Ceil().IntPart()
}

// EffectiveMonthly is what the customer really pays a month, in dollars.
func EffectiveMonthly(monthly decimal.Decimal, hours int64) decimal.Decimal {
	return decimal.New(HourlyTokens(monthly, hours)*hours, -2)
}
