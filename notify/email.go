package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"net/url"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"

	"serversync/db"
)

// The ports of SMTP_URL where it names none: submission, and with TLS from the
// first byte.
const portSTARTTLS, portTLS = 587, 465

// Email tells by SMTP.
type Email struct {
	host     string
	options  []mail.Option
	from, to *netmail.Address
	others   []*netmail.Address // who else gets it
}

// NewEmail checks where messages go. Server is smtp://user:password@host:587, which
// demands STARTTLS (?tls=none: none at all, for a relay on this machine), or
// smtps://…:465. To is one address or several, with commas; from is empty for the
// first of these.
func NewEmail(server, from, to string) (*Email, error) {
	all, err := netmail.ParseAddressList(to)
	if err != nil {
		return nil, errors.New("NOTIFY_EMAIL_TO must be one e-mail address, or several with commas")
	}
	e := &Email{from: all[0], to: all[0], others: all[1:]}
	if from != "" {
		if e.from, err = netmail.ParseAddress(from); err != nil {
			return nil, errors.New("NOTIFY_EMAIL_FROM must be an e-mail address")
		}
	}
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Path != "" && u.Path != "/" {
		return nil, errors.New("SMTP_URL must be smtp://user:password@host:587 or smtps://user:password@host:465; a password's special characters as %40")
	}
	e.host = u.Hostname()
	port, _ := strconv.Atoi(u.Port()) // else 0
	e.options = []mail.Option{mail.WithTimeout(sendTimeout)}
	switch tls := u.Query().Get("tls"); {
	case u.Scheme == "smtps":
		e.options = append(e.options, mail.WithSSL(), mail.WithPort(cmp.Or(port, portTLS)))
	case tls == "none":
		e.options = append(e.options, mail.WithTLSPolicy(mail.NoTLS), mail.WithPort(cmp.Or(port, portSTARTTLS)))
	case tls == "":
		e.options = append(e.options, mail.WithTLSPolicy(mail.TLSMandatory), mail.WithPort(cmp.Or(port, portSTARTTLS)))
	default:
		return nil, errors.New("SMTP_URL knows ?tls=none, or nothing there")
	}
	if password, ok := u.User.Password(); ok {
		auth := mail.SMTPAuthAutoDiscover
		if u.Query().Get("tls") == "none" {
			auth = mail.SMTPAuthPlainNoEnc
		}
		e.options = append(e.options, mail.WithSMTPAuth(auth), mail.WithUsername(u.User.Username()), mail.WithPassword(password))
	}
	return e, nil
}

func (*Email) name() string { return "email" }

func (e *Email) send(ctx context.Context, m *db.NoticeMessage) error {
	message := mail.NewMsg()
	message.FromMailAddress(e.from)
	message.ToMailAddress(append([]*netmail.Address{e.to}, e.others...)...)
	_, domain, _ := strings.Cut(e.from.Address, "@")
	message.SetMessageIDWithValue(m.ID + "@" + domain) // a copy can be told as such
	message.SetDateWithValue(m.MadeAt)
	message.Subject("serversync: " + subject(m))
	message.SetBodyString(mail.TypeTextPlain, words(m)+"\n")
	client, err := mail.NewClient(e.host, e.options...)
	if err != nil {
		return fmt.Errorf("use SMTP_URL: %w", err)
	}
	if err := client.DialAndSendWithContext(ctx, message); err != nil {
		return fmt.Errorf("send an e-mail through %s: %w", e.host, err)
	}
	return nil
}
