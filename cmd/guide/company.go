//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

// What the machine has before the page begins: SkyPANEL's database, as the page
// supposes it, and VirtFusion.
const (
	companyWord    = "company"
	companyProgram = "opt/company/guide"
	companySchema  = "opt/company/skypanel.sql"

	skypanelURL    = "postgres://skypanel:change-me@127.0.0.1:5432/skypanel" //nolint:gosec // G101: it opens a database that lives for minutes
	virtfusionAddr = "127.0.0.1:8090"
	webhookURL     = "http://127.0.0.1:8080/webhooks/virtfusion"
	companyReady   = "ready"
)

// office is the company at work, on the machine.
type office struct {
	database *bun.DB
	panel    *virtfusionsim.Panel
	token    string // of the webhook, once it is entered
	refused  error  // the last webhook's, if it was
}

// company fills SkyPANEL's database, runs VirtFusion, and does what it is told,
// line by line, until in ends: each line is answered by one, which begins with
// "error: " where it could not be done.
func company(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet(companyWord, flag.ContinueOnError)
	schema := flags.String("schema", "/"+companySchema, "SkyPANEL's tables")
	if err := flags.Parse(args); err != nil {
		return err
	}
	database, err := db.Open(skypanelURL)
	if err != nil {
		return err
	}
	defer func() { _ = database.Close() }()
	o := &office{database: database}
	if err := o.open(ctx, *schema); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", virtfusionAddr)
	if err != nil {
		return fmt.Errorf("listen for VirtFusion's API: %w", err)
	}
	api := &http.Server{Handler: o.panel.Handler(), ReadHeaderTimeout: 5 * time.Second}
	defer func() { _ = api.Close() }()
	go func() { _ = api.Serve(listener) }() // until Close
	fmt.Fprintln(out, companyReady)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer, err := o.do(ctx, strings.Fields(lines.Text()))
		if err != nil {
			answer = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Fprintln(out, answer)
	}
	return nil
}

// open makes SkyPANEL's tables, its customers and VirtFusion's servers: some that
// were ordered through SkyPANEL, more that were not.
func (o *office) open(ctx context.Context, schema string) error {
	tables, err := os.ReadFile(schema) //nolint:gosec // G304: brought with us
	if err != nil {
		return fmt.Errorf("read SkyPANEL's tables: %w", err)
	}
	if _, err := o.database.ExecContext(ctx, string(tables)); err != nil {
		return fmt.Errorf("make SkyPANEL's tables: %w", err)
	}
	world := skypanelsim.NewWorld()
	if err := skypanelsim.Seed(ctx, o.database, world); err != nil {
		return err
	}
	if err := skypanelsim.Connect(ctx, o.database, "http://"+virtfusionAddr, virtfusionsim.DefaultToken); err != nil {
		return err
	}
	o.panel = virtfusionsim.New(virtfusionsim.Config{Hook: o.post})
	for _, a := range world.Accounts {
		o.panel.AddUser(virtfusionsim.User{ID: a.ID, Name: a.Name, ExtRelationID: a.ExtRelationID})
	}
	for _, p := range world.Packages {
		o.panel.AddPackage(virtfusionsim.Package{ID: p.ID, Name: p.Name, MemoryMB: p.MemoryMB, StorageGB: p.StorageGB, TrafficGB: p.TrafficGB, CPUCores: p.CPUCores})
	}
	created := time.Now().AddDate(-1, 0, 0)
	for _, u := range world.Buyers()[:5] {
		receipt, err := skypanelsim.Order(ctx, o.database, u, world.ForSale()[0], o.order, nil)
		if err := errors.Join(err, receipt.InsertErr); err != nil {
			return err
		}
	}
	for i := range 12 {
		u := world.Buyers()[i%5]
		if _, err := o.panel.CreateServer(virtfusionsim.CreateArgs{
			ID: int64(1031 + i), OwnerID: u.VirtFusionID, PackageID: world.ForSale()[1+i%3].ID, Name: fmt.Sprintf("app-%d", i+1), Built: true, Created: created,
		}); err != nil {
			return err
		}
	}
	return nil
}

// order creates a server for SkyPANEL.
func (o *office) order(_ context.Context, ownerID, packageID int64) (skypanelsim.Server, error) {
	s, err := o.panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: ownerID, PackageID: packageID, Built: true})
	return skypanelsim.Server{ID: s.ID, UUID: s.UUID, Created: s.Created}, err
}

// post delivers a webhook, once one is entered.
func (o *office) post(d virtfusionsim.Delivery) {
	if o.token == "" {
		return
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, webhookURL, bytes.NewReader(d.Body))
	if err != nil {
		o.refused = err
		return
	}
	request.Header = d.Header.Clone()
	request.Header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte(o.token)))
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		o.refused = err
		return
	}
	_ = answer.Body.Close() // nothing in it for us
	if answer.StatusCode != http.StatusAccepted {
		o.refused = fmt.Errorf("the webhook was answered %s", answer.Status)
	}
}

// do does what somebody at the company does, and says what came of it.
func (o *office) do(ctx context.Context, words []string) (string, error) {
	switch what := strings.Join(words[:min(2, len(words))], " "); {
	case what == "VirtFusion webhook" && len(words) == 3:
		settings, err := os.ReadFile(words[2])
		if err != nil {
			return "", fmt.Errorf("look up the token: %w", err)
		}
		for line := range strings.Lines(string(settings)) {
			if token, found := strings.CutPrefix(strings.TrimSpace(line), "WEBHOOK_TOKENS="); found {
				o.token = strings.Trim(token, `"'`)
			}
		}
		if o.token == "" {
			return "", fmt.Errorf("%s has no WEBHOOK_TOKENS", words[2])
		}
		return "webhook entered", nil
	case what == "VirtFusion create":
		world := skypanelsim.NewWorld()
		s, err := o.panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: world.Buyers()[0].VirtFusionID, PackageID: world.ForSale()[2].ID, Name: "web-1", ByHand: true})
		if err == nil {
			_, err = o.panel.Build(s.ID)
		}
		return fmt.Sprintf("server %d created", s.ID), errors.Join(err, o.refused)
	case what == "check":
		return o.check(ctx)
	}
	return "", fmt.Errorf("nobody at the company can %q", strings.Join(words, " "))
}

// check holds SkyPANEL's rows against VirtFusion's servers: each is billed once,
// to its owner, and nothing is charged before today.
func (o *office) check(ctx context.Context) (string, error) {
	servers := o.panel.Servers()
	var wrong []string
	for i := range servers {
		var rows, fine int
		err := o.database.NewRaw(`SELECT count(*), count(*) FILTER (WHERE b.billing_enabled AND u.virtfusion_id = ?
				AND (b.reference_1 IS NULL OR b.last_billed_at > now() AT TIME ZONE 'UTC' - interval '1 hour'))
			FROM virtfusion_hourly_billing b JOIN users u ON u.id = b.user_id WHERE b.virtfusion_server_id = ?`,
			servers[i].OwnerID, servers[i].ID).Scan(ctx, &rows, &fine)
		if err != nil {
			return "", fmt.Errorf("read SkyPANEL's rows: %w", err)
		}
		if rows != 1 || fine != 1 {
			wrong = append(wrong, fmt.Sprintf("server %d has %d rows, %d of them right", servers[i].ID, rows, fine))
		}
	}
	if len(wrong) > 0 {
		return "", errors.New(strings.Join(wrong, "; "))
	}
	return fmt.Sprintf("%d servers, each billed once", len(servers)), nil
}

// theCompany is the company as seen from outside the machine.
type theCompany struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	answer *bufio.Scanner
}

// startCompany makes SkyPANEL's database, and starts the company on the machine.
func startCompany(ctx context.Context, m *machine) (*theCompany, error) {
	for _, statement := range []string{
		"ALTER ROLE postgres PASSWORD 'change-me'", "CREATE ROLE skypanel LOGIN PASSWORD 'change-me'", "CREATE DATABASE skypanel OWNER skypanel",
	} {
		if out, err := m.command(ctx, "runuser", "-u", "postgres", "--", "psql", "-c", statement).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make SkyPANEL's database: %w\n%s", err, out)
		}
	}
	c := &theCompany{cmd: m.command(ctx, "/"+companyProgram, companyWord)}
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the company: %w", err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the company: %w", err)
	}
	c.in, c.answer = in, bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the company: %w", err)
	}
	if !c.answer.Scan() || c.answer.Text() != companyReady {
		return c, errors.New("the company did not start: see above")
	}
	return c, nil
}

// ask has the company do something.
func (c *theCompany) ask(_ context.Context, what string) (string, error) {
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if !c.answer.Scan() {
		return "", fmt.Errorf("%s: the company is gone", what)
	}
	if why, failed := strings.CutPrefix(c.answer.Text(), "error: "); failed {
		return "", fmt.Errorf("%s: %s", what, why)
	}
	return c.answer.Text(), nil
}

// check holds SkyPANEL's books against VirtFusion.
func (c *theCompany) check(ctx context.Context) (string, error) { return c.ask(ctx, "check") }

// close ends it.
func (c *theCompany) close() error {
	_ = c.in.Close() // its end
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("the company: %w", err)
	}
	return nil
}
