package ingest

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// MaxChanges is how many servers' billing a run may change before a person has
// to approve: a number, or a share of all servers. The zero value asks for
// every change.
type MaxChanges struct {
	number  int64
	percent float64 // 0: number counts
}

const (
	// leastShare is what a share never falls below: in a small fleet one server
	// is a large part.
	leastShare = 10
	// syncExempt is how many servers a user's own sync may change in any case.
	syncExempt = 10
)

// errMaxChanges says how the setting is written.
var errMaxChanges = errors.New("say a number of servers such as 50, or a share from 0% to 100% of all servers such as 20%; 100% never asks")

// ParseMaxChanges reads a number ("50") or a share ("20%").
func ParseMaxChanges(s string) (MaxChanges, error) {
	if share, ok := strings.CutSuffix(s, "%"); ok {
		percent, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return MaxChanges{}, errMaxChanges
		}
		if percent == 0 {
			return MaxChanges{}, nil
		}
		return MaxChanges{percent: percent}, nil
	}
	number, err := strconv.ParseInt(s, 10, 64)
	if err != nil || number < 0 {
		return MaxChanges{}, errMaxChanges
	}
	return MaxChanges{number: number}, nil
}

// Limit is the number for a fleet of so many servers; a share is never below 10
// servers, and all of them is no limit.
func (m MaxChanges) Limit(fleet int64) int64 {
	switch {
	case m.percent >= 100:
		return math.MaxInt64
	case m.percent > 0:
		return max(leastShare, int64(float64(fleet)*m.percent/100))
	default:
		return m.number
	}
}
