package skypanelsim

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/time/rate"
)

// Defaults of [ShopConfig].
const (
	DefaultShopRate   = 0.1
	DefaultFetchDelay = 400 * time.Millisecond
)

// finishLimit bounds what an order may still take once Run's context has
// ended.
const finishLimit = 5 * time.Second

// ShopConfig describes how busy the shop is. Its zero value is a calm one.
type ShopConfig struct {
	// Seed fixes who orders what: the same seed gives the same sequence.
	Seed uint64
	// Rate is how many orders Run takes a second; 0: DefaultShopRate.
	Rate float64
	// FetchDelay is the pause between VirtFusion's creation of a server and
	// SkyPANEL's own billing row, which may vary by half; 0:
	// DefaultFetchDelay.
	FetchDelay time.Duration
	// PayUpfront charges each order's first hour, as SkyPANEL does
	// ([PayUpfront]): for a world in which its [Job] runs. An error of it is
	// OnOrder's.
	PayUpfront bool
	// Hour is how long that hour lasts; 0: an hour. See [JobConfig].
	Hour time.Duration
	// OnOrder, when set, gets every order that Run takes, with its error if it
	// failed. The shop goes on in either case.
	OnOrder func(Receipt, error)
}

// Shop is SkyPANEL's shop: customers order servers now and then. One goroutine
// may use it at a time.
//
// It charges nothing but, when told to, what an order pays in advance: the rest
// is the [Job]'s work.
type Shop struct {
	database *bun.DB
	create   CreateFunc
	config   ShopConfig
	buyers   []User
	sold     []Package
	random   *rand.Rand
}

// NewShop returns a shop for the world's customers, in whose database the world
// was seeded. It fails when there is nobody to buy or nothing to sell, or when
// a number of the configuration is negative.
func NewShop(database *bun.DB, world World, create CreateFunc, config ShopConfig) (*Shop, error) {
	config.Rate = cmp.Or(config.Rate, DefaultShopRate)
	config.FetchDelay = cmp.Or(config.FetchDelay, DefaultFetchDelay)
	buyers, sold := world.Buyers(), world.ForSale()
	switch {
	case config.Rate < 0 || config.FetchDelay < 0:
		return nil, fmt.Errorf("shop: %g orders a second, fetched after %s: neither may be negative", config.Rate, config.FetchDelay)
	case len(buyers) == 0 || len(sold) == 0:
		return nil, fmt.Errorf("shop: %d customers can order, %d packages are sold: give the world at least one of each", len(buyers), len(sold))
	}
	return &Shop{
		database: database, create: create, config: config, buyers: buyers, sold: sold,
		random: rand.New(rand.NewPCG(config.Seed, 0x540b)), //nolint:gosec // G404: a simulation must be repeatable, and guards nothing
	}, nil
}

// Run takes orders at the chosen rate until ctx ends, and then returns nil. An
// order in hand is finished first: SkyPANEL does not stop between VirtFusion's
// server and its own row.
func (s *Shop) Run(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Limit(s.config.Rate), 1)
	for {
		if err := pace.Wait(ctx); err != nil {
			if ctx.Err() == nil {
				<-ctx.Done() // the next turn would come after the deadline
			}
			return nil // the end of ctx is how Run ends
		}
		receipt, err := s.take(ctx)
		if s.config.OnOrder != nil {
			s.config.OnOrder(receipt, err)
		}
	}
}

// take is one order of a random customer. When ctx ends the pause is cut short
// and the order finished.
func (s *Shop) take(ctx context.Context) (Receipt, error) {
	customer := s.buyers[s.random.IntN(len(s.buyers))]
	plan := s.sold[s.random.IntN(len(s.sold))]
	delay := s.config.FetchDelay/2 + time.Duration(s.random.Int64N(int64(s.config.FetchDelay)+1))

	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), delay+finishLimit)
	defer cancel()
	receipt, err := Order(finish, s.database, customer, plan, s.create, func(context.Context) error {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	})
	if err == nil && s.config.PayUpfront {
		_, err = PayUpfrontFor(finish, s.database, receipt, s.config.Hour)
	}
	return receipt, err
}
