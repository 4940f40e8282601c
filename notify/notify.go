// Package notify tells administrators what they should look at: in SkyPANEL, by a
// signed webhook, and by e-mail. What is told, and by which channel it went out, is
// in PostgreSQL, so that it is told once, whoever finds it and however often the
// process ends; see docs/notifications.md.
package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"golang.org/x/sync/errgroup"

	"serversync/db"
)

const (
	// lookEvery is how often it is seen whether there is something to tell or to
	// send.
	lookEvery = 30 * time.Second
	// tellEvery is the least time between two messages of a channel: what is found
	// meanwhile is told together.
	tellEvery = 3 * time.Minute
	// sendTimeout bounds one attempt, lease how long nobody else tries a message
	// whose sender is not heard of any more.
	sendTimeout = 15 * time.Second
	lease       = 2 * time.Minute
	// The pauses after attempts that failed double between these.
	firstPause, longestPause = time.Minute, time.Hour
	// maxLines bounds what a message for people lists.
	maxLines = 20
)

// channel is a way to administrators.
type channel interface {
	name() string
	// send sends a message, or fails; after a failure it is tried again with the
	// same id.
	send(ctx context.Context, m *db.NoticeMessage) error
}

// Config is what a [Notifier] is made of.
type Config struct {
	DB *bun.DB
	// SkyPANEL: administrators are told in SkyPANEL's notifications.
	SkyPANEL bool
	// Webhook and Email are nil where nobody wants them.
	Webhook *Webhook
	Email   *Email
	// More finds notices that are not in PostgreSQL: dead letters. Nil: there are
	// none.
	More func(ctx context.Context) ([]db.Notice, error)
	Now  func() time.Time
	Log  zerolog.Logger
}

// Notifier finds what administrators are to be told of, and tells it.
type Notifier struct {
	db       *bun.DB
	channels []channel
	more     func(ctx context.Context) ([]db.Notice, error)
	now      func() time.Time
	log      zerolog.Logger
}

// New returns a notifier; [Notifier.Run] makes it work.
func New(c Config) *Notifier {
	n := &Notifier{db: c.DB, more: c.More, now: c.Now, log: c.Log}
	if c.SkyPANEL {
		n.channels = append(n.channels, &panel{db: c.DB, now: c.Now})
	}
	if c.Webhook != nil {
		c.Webhook.now = c.Now
		n.channels = append(n.channels, c.Webhook)
	}
	if c.Email != nil {
		n.channels = append(n.channels, c.Email)
	}
	return n
}

// Run finds and tells until ctx ends. Without a channel it finds alone: reports
// count what was found. Several may run side by side. A channel that is down holds up no other.
func (n *Notifier) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { n.each(ctx, "look for what administrators are to be told of", n.collect); return nil })
	for _, c := range n.channels {
		g.Go(func() error {
			n.each(ctx, "tell administrators by "+c.name(), func(ctx context.Context) error { return n.tell(ctx, c) })
			return nil
		})
	}
	return g.Wait()
}

func (n *Notifier) each(ctx context.Context, what string, do func(context.Context) error) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn().Err(err).Dur("retry_in", lookEvery).Msg("cannot " + what + "; trying again")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// collect writes down what is new. What is not in PostgreSQL may be out of reach:
// the rest is told all the same.
func (n *Notifier) collect(ctx context.Context) error {
	var more []db.Notice
	var errMore error
	if n.more != nil {
		more, errMore = n.more(ctx)
	}
	_, err := db.CollectNotices(ctx, n.db, n.now())
	return errors.Join(err, db.AddNotices(ctx, n.db, more), errMore)
}

// tell sends what a channel has to send by now.
func (n *Notifier) tell(ctx context.Context, c channel) error {
	if _, err := db.FormMessage(ctx, n.db, c.name(), n.now(), tellEvery); err != nil {
		return err
	}
	for {
		m, err := db.ClaimMessage(ctx, n.db, c.name(), n.now(), lease)
		if errors.Is(err, db.ErrNoMessage) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := n.send(ctx, c, &m); err != nil {
			return err
		}
	}
}

// send makes one attempt, and records what became of it. Should the process end
// between the two, the message is sent again, under the same id.
func (n *Notifier) send(ctx context.Context, c channel, m *db.NoticeMessage) error {
	attempt, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := c.send(attempt, m); err != nil {
		pause := pauseAfter(m.Attempts)
		n.log.Warn().Err(err).Str("channel", c.name()).Str("message", m.ID).Int("attempt", m.Attempts).Dur("retry_in", pause).
			Msg("administrators could not be told; trying again")
		return db.FailedMessage(context.WithoutCancel(ctx), n.db, m.ID, err.Error(), n.now().Add(pause))
	}
	_, err := db.DeliveredMessage(context.WithoutCancel(ctx), n.db, m.ID, n.now())
	return err
}

// pauseAfter is how long to wait after so many attempts.
func pauseAfter(attempts int) time.Duration {
	pause := firstPause
	for range attempts - 1 {
		if pause *= 2; pause >= longestPause {
			return longestPause
		}
	}
	return pause
}

// subject is what a message is about, on one line.
func subject(m *db.NoticeMessage) string {
	title := clean(m.Notices[0].Title)
	if more := len(m.Notices) - 1; more > 0 {
		return fmt.Sprintf("%s, and %d more", title, more)
	}
	return title
}

// words are a message for people, a paragraph for each notice.
func words(m *db.NoticeMessage) string {
	var b strings.Builder
	for i := range m.Notices {
		if i == maxLines {
			fmt.Fprintf(&b, "And %d more: see the control room.\n", len(m.Notices)-i)
			break
		}
		notice := &m.Notices[i]
		fmt.Fprintf(&b, "[%s] %s\n", notice.Severity, clean(notice.Title))
		if text := clean(notice.Message); text != "" {
			b.WriteString(text + "\n")
		}
		if notice.RunID != "" {
			b.WriteString("Run " + clean(notice.RunID) + "\n")
		}
		b.WriteString("\n")
	}
	return strings.TrimSpace(b.String())
}

// clean takes out what could break a line or deceive a reader: names of servers,
// which customers choose, may be in it.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return strings.Join(strings.Fields(text), " ")
}

// panel tells SkyPANEL's administrators in SkyPANEL.
type panel struct {
	db  *bun.DB
	now func() time.Time
}

func (*panel) name() string { return "skypanel" }

func (p *panel) send(ctx context.Context, m *db.NoticeMessage) error {
	return db.NotifyAdmins(ctx, p.db, m.ID, "serversync: "+subject(m), words(m), p.now())
}
