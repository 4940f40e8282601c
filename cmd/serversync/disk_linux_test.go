package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"serversync/api"
	"serversync/events"
)

// smallDisk mounts a file system in memory, for the length of the test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755,size="+size); err != nil {
		t.Skipf("a small disk cannot be mounted here (%v): run as root to have this tested", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves no byte on a disk, until what it returns is called.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := 1 << 20; chunk >= 512; {
		if _, err := file.Write(make([]byte, chunk)); errors.Is(err, syscall.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
			chunk /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := errors.Join(file.Close(), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// tryDelivery posts a webhook about a server and returns status and Retry-After.
func tryDelivery(t *testing.T, base string, id int) (status int, retryAfter string) {
	t.Helper()
	return tryLongDelivery(t, base, id, 200)
}

// tryLongDelivery is tryDelivery of a server whose name has so many letters.
func tryLongDelivery(t *testing.T, base string, id, letters int) (status int, retryAfter string) {
	t.Helper()
	body := fmt.Sprintf(`{"event":"server.build","eventStatus":"success","data":{"server":{"id":%d,"ownerId":7,"uuid":"u-%d","name":%q}}}`, id, id, strings.Repeat("n", letters))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/webhooks/virtfusion", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte(testToken)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("a delivery got no answer: %v", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Header.Get("Retry-After")
}

// roomCheck is what /readyz says of the room for events.
func roomCheck(t *testing.T, base string) (ok bool, text string) {
	t.Helper()
	_, body := get(t, base+"/readyz?role=ingest")
	var answer struct {
		Data map[string]struct {
			OK    bool
			Error string
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Data["room"].OK, answer.Data["room"].Error
}

// The disk of all stores fills to its last byte: webhooks are refused, nobody
// ends, and all goes on when there is room.
func TestAFullDiskIsOutlived(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "700m")
	r := start(t, config{dataDir: filepath.Join(disk, "data")})
	r.ready(t)
	var answered int
	for range 300 {
		if status, _ := tryDelivery(t, r.base, answered+1); status != http.StatusAccepted {
			t.Fatalf("with room: %d", status)
		}
		answered++
	}
	for round := range 3 {
		empty := fill(t, disk)
		eventually(t, "webhooks are refused", func() bool {
			status, _ := tryDelivery(t, r.base, answered+1)
			if status == http.StatusAccepted {
				answered++
			}
			return status == http.StatusServiceUnavailable
		})
		for range 700 { // longer than the broker and PostgreSQL are left alone
			status, retryAfter := tryDelivery(t, r.base, answered+1)
			if status != http.StatusServiceUnavailable || retryAfter == "" {
				t.Fatalf("on a full disk: %d, Retry-After %q", status, retryAfter)
			}
		}
		if ok, text := roomCheck(t, r.base); ok || !strings.Contains(text, "make room") {
			t.Errorf("readyz on a full disk: %v, %q", ok, text)
		}
		empty()
		eventually(t, fmt.Sprintf("webhooks are taken again, round %d", round), func() bool {
			status, _ := tryDelivery(t, r.base, answered+1)
			if status == http.StatusAccepted {
				answered++
			}
			return status == http.StatusAccepted
		})
	}
	r.ready(t)
	eventually(t, "everything answered is in the books", func() bool {
		var known int
		if err := r.stores.db.NewRaw(`SELECT count(*) FROM serversync.servers`).Scan(t.Context(), &known); err != nil {
			t.Fatal(err)
		}
		return known == answered
	})
	if log := r.log.String(); !strings.Contains(log, "make room there") || !strings.Contains(log, "room on the disk again") {
		t.Error("the log says neither what to do nor that it is done")
	}
}

// The stream reaches its size limit: webhooks are refused, what was answered
// stays, and more is taken when the limit is raised.
func TestAFullStreamRefuses(t *testing.T) {
	t.Parallel()
	r := start(t, config{roles: []string{roleIngest}, streamMaxBytes: 1 << 20})
	r.ready(t)
	var answered int
	eventually(t, "the stream is full", func() bool {
		status, retryAfter := tryLongDelivery(t, r.base, answered+1, 10_000)
		if status == http.StatusAccepted {
			answered++
			return false
		}
		if status != http.StatusServiceUnavailable || retryAfter == "" {
			t.Fatalf("status %d, Retry-After %q", status, retryAfter)
		}
		return true
	})
	if ok, text := roomCheck(t, r.base); ok || !strings.Contains(text, "STREAM_MAX_BYTES") {
		t.Errorf("readyz of a full stream: %v, %q", ok, text)
	}
	if log := r.log.String(); !strings.Contains(log, "STREAM_MAX_BYTES") {
		t.Error("the log does not say what to do")
	}
	stored := func() int {
		stream, err := r.js.Stream(t.Context(), events.StreamName)
		if err != nil {
			t.Fatal(err)
		}
		return int(stream.CachedInfo().State.Msgs)
	}
	if n := stored(); n != answered {
		t.Errorf("%d events are stored, %d were answered", n, answered)
	}
	raise(t, r.js)
	if status, _ := tryLongDelivery(t, r.base, answered+1, 10_000); status != http.StatusAccepted {
		t.Errorf("with a larger stream: %d", status)
	}
	if ok, text := roomCheck(t, r.base); !ok {
		t.Errorf("readyz with a larger stream: %q", text)
	}
}

// raise makes the stream larger, as an operator does with STREAM_MAX_BYTES.
func raise(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	if _, err := events.EnsureStream(context.WithoutCancel(t.Context()), js, events.StreamOptions{MaxBytes: 4 << 20}); err != nil {
		t.Fatal(err)
	}
}

// failingDisk mounts an ext4 whose device is a sparse file on a small disk. When
// that one is full (below, see fill), writes to the device fail, though ext4 has
// room: as with a disk that dies.
func failingDisk(t *testing.T) (dir, below string) {
	t.Helper()
	below, dir = smallDisk(t, "96m"), t.TempDir()
	image := filepath.Join(below, "image")
	for _, command := range [][]string{
		{"truncate", "-s", "256M", image},
		{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image},
		{"mount", "-o", "loop,errors=continue,commit=600", image, dir},
	} {
		if output, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("a disk that fails cannot be had here (%s: %v: %s): run as root with loop devices to have this tested", command[0], err, output)
		}
	}
	t.Cleanup(func() {
		if output, err := exec.CommandContext(context.WithoutCancel(t.Context()), "umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v: %s", err, output)
		}
	})
	return dir, below
}

// A sync that fails answers its group 503 and ends the service with a clear word
// and exit code 1: nobody knows what is on the disk.
func TestAFailedSyncEndsTheService(t *testing.T) {
	t.Parallel()
	dir, below := failingDisk(t)
	log := &logBuffer{}
	ended := make(chan int, 1)
	go func() {
		ended <- run(t.Context(), []string{
			"serversync", "serve", "--roles=ingest", "--listen-addr=127.0.0.1:0", "--data-dir=" + filepath.Join(dir, "data"),
			"--webhook-tokens=" + testToken, "--log-format=json",
		}, log, log)
	}()
	var base string
	eventually(t, "the service listens", func() bool {
		_, rest, listens := strings.Cut(log.String(), `"address":"`)
		address, _, _ := strings.Cut(rest, `"`)
		base = "http://" + address
		return listens
	})
	eventually(t, "webhooks are taken", func() bool {
		status, _ := tryDelivery(t, base, 1)
		return status == http.StatusAccepted
	})
	empty := fill(t, below)
	for id := 2; ; id++ {
		status, retryAfter := tryLongDelivery(t, base, id, 500_000)
		if status == http.StatusAccepted {
			continue // on blocks that the device had already
		}
		if status != http.StatusServiceUnavailable || retryAfter == "" {
			t.Errorf("status %d, Retry-After %q", status, retryAfter)
		}
		break
	}
	code := <-ended
	empty()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	// The kernel may have closed the file system to writing before the sync was heard of.
	noticed := regexp.MustCompile(`its sync to disk failed|event store cannot write: .*read-only file system`)
	if last := lines[len(lines)-1]; code != exitFailed || !noticed.MatchString(last) || !strings.Contains(last, "start again") {
		t.Errorf("it ended with exit code %d and the last line %s", code, last)
	}
}

// A running service with embedded stores examines itself, its disks too.
func TestDoctorOfAServiceSeesItsDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "700m")
	r := start(t, config{dataDir: filepath.Join(disk, "data"), streamMaxAge: 720 * time.Hour})
	r.ready(t)
	look := func() map[string]finding {
		return askTheDoctor(t, "--url", r.base, "--data-dir", r.config.dataDir)
	}
	found := look()
	for _, check := range []string{"disk of nats", "disk of postgres", "broker durability", "stream", "dead letters", "roles", "database durability", "privileges", "schema"} {
		want(t, found, "service: "+check, api.SeverityOK, "")
	}
	want(t, found, "service: VirtFusion", api.SeverityError, "VIRTFUSION_API_URL")
	empty := fill(t, disk)
	defer empty()
	found = look()
	want(t, found, "service: disk of nats", api.SeverityError, "make room")
	want(t, found, "service: room", api.SeverityError, "nearly full")
}
