package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
	"serversync/db/dbtest"
	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

// TestKilledWhileItTakesCredit kills the real service with SIGKILL in the middle
// of credit calls, once before VirtFusion carries one out and once after.
func TestKilledWhileItTakesCredit(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "serversync")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	dsn := dbtest.NewDSN(t)
	database, err := db.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	w := &till{fleetWorld: &fleetWorld{TB: t, db: database, world: modelCompany(), panel: virtfusionsim.New(virtfusionsim.Config{Seed: 3})}}
	if err := skypanelsim.Seed(t.Context(), database, w.world); err != nil {
		t.Fatal(err)
	}
	w.panel.AddUser(virtfusionsim.User{ID: accountBeatriz, ExtRelationID: userBeatriz, Name: "Beatriz"})
	w.panel.AddPackage(virtfusionsim.Package{ID: packageLarge, Name: "Large"})
	w.panel.AddHypervisor(virtfusionsim.Hypervisor{ID: 1, Name: "host1", GroupID: 1})
	const servers = 8
	w.micros.Store(time.Now().UnixMicro())
	w.create(servers, accountBeatriz, packageLarge)
	web := httptest.NewServer(w.panel.Handler())
	t.Cleanup(web.Close)
	t.Cleanup(func() { w.panel.SetAPIFaults() })

	p := &killed{till: w, binary: binary, dir: t.TempDir(), dsn: dbtest.As(t, dsn, dbtest.ServiceRole), api: web.URL}
	for round, f := range []virtfusionsim.APIFault{
		{Kind: virtfusionsim.FaultHanging}, // it is killed, and nothing was done
		{Kind: virtfusionsim.FaultDoneThenHanging},
	} {
		hung := make(chan struct{}, 1)
		f.Op, f.Skip, f.First, f.Hung = virtfusionsim.OpCredit, 2, 1, func() { hung <- struct{}{} }
		w.panel.SetAPIFaults(f)
		p.start()
		select {
		case <-hung:
		case <-p.exited:
			t.Fatalf("the service ended by itself: %s", p.log())
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
		p.kill()
		w.panel.SetAPIFaults()
		w.agree()
		w.want("1", `SELECT count(*) FROM serversync.charges WHERE state = 'taking'`)
		w.want(strconv.Itoa(2*(round+1)), `SELECT count(*) FROM serversync.charges WHERE state = 'taken'`)
		w.exec(`UPDATE serversync.charges SET taking_at = taking_at - interval '3 minutes' WHERE state = 'taking'`) // as if time had gone by
	}
	p.start()
	w.until("2 unclear, 6 taken", `SELECT string_agg(n || ' ' || state, ', ' ORDER BY n) FROM (SELECT state, count(*) AS n FROM serversync.charges GROUP BY 1) AS s`)
	w.agree()
	w.wantTokens(4 * 7) // one call of the two that nobody knows of

	// A person looks.
	var page struct{ Data api.Page[api.FirstCharge] }
	p.ask(http.MethodGet, "/api/admin/charges?state=unclear", "", &page)
	if len(page.Data.Items) != 2 {
		t.Fatalf("%+v", page)
	}
	for _, c := range page.Data.Items {
		taken := false
		for _, r := range w.panel.Credits() {
			taken = taken || r.Reference1 == c.TransactionID && r.Reference2 == c.Reference
		}
		p.ask(http.MethodPost, fmt.Sprintf("/api/admin/charges/%d/resolve", c.ID), fmt.Sprintf(`{"taken": %t}`, taken), &struct{}{})
	}
	w.agree()
	w.want("failed 1, taken 7", `SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM serversync.charges GROUP BY 1) AS s`)
	w.wantTokens(4 * 7)
	p.kill()
}

// killed is the service, as a process of its own that is killed again and again.
type killed struct {
	*till

	binary, dir, dsn, api, addr string

	cmd    *exec.Cmd
	out    *syncedBuffer
	exited chan struct{}
}

// syncedBuffer is what a process says.
type syncedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (p *killed) log() string {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return p.out.buf.String()
}

func (p *killed) start() {
	p.Helper()
	free, err := (&net.ListenConfig{}).Listen(p.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	p.addr = free.Addr().String()
	_ = free.Close()
	// Not with the test's context: kill ends it, whatever happens.
	cmd := exec.CommandContext(context.WithoutCancel(p.Context()), p.binary, "serve")
	cmd.Dir = p.dir
	cmd.Env = []string{
		"HOME=" + p.dir, "PATH=" + os.Getenv("PATH"), "LISTEN_ADDR=" + p.addr, "DATA_DIR=" + filepath.Join(p.dir, "data"), "DATABASE_URL=" + p.dsn,
		"VIRTFUSION_API_URL=" + p.api, "VIRTFUSION_API_TOKEN=" + virtfusionsim.DefaultToken, "VIRTFUSION_RPS=1000", "WEBHOOK_TOKENS=t", "ADMIN_TOKEN=" + killedToken,
		"SETTLE_DELAY=0s", "SWEEP_INTERVAL=1s", "SWEEP_MAX_CHANGES=100%", "BILLING_INITIAL_CHARGE=deduct", "LOG_FORMAT=json",
	}
	p.out, p.exited = new(syncedBuffer), make(chan struct{})
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	p.cmd = cmd
	exited := p.exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // it was killed
	}()
	p.Cleanup(p.kill)
}

const killedToken = "a-token-of-the-kill-test"

func (p *killed) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// ask asks the service, and reads what it answers.
func (p *killed) ask(method, path, body string, into any) {
	p.Helper()
	request, err := http.NewRequestWithContext(p.Context(), method, "http://"+p.addr+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+killedToken)
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		p.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		p.Fatalf("%s %s: %d", method, path, answer.StatusCode)
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		p.Fatal(err)
	}
}
