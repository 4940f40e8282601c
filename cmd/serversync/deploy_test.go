package main

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	yaml "github.com/oasdiff/yaml3"
	"github.com/urfave/cli/v3"
)

// deployment is what a file of deploy/ gives to the program.
type deployment struct {
	variables map[string]bool
	commands  [][]string // with their flags
}

func (d *deployment) add(variables ...string) {
	for _, v := range variables {
		d.variables[v] = true
	}
}

// TestDeploymentIsThePrograms: every variable, command and flag of deploy/ is
// one that the program has.
func TestDeploymentIsThePrograms(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"GOMEMLIMIT": true} // Go's own
	for _, s := range settings() {
		known[s.env] = true
	}
	for file, read := range map[string]func(*testing.T, string) deployment{
		"systemd/serversync.env": readEnvFile, "systemd/serversync.service": readUnit, "systemd/serversync.service.d/embedded.conf": readUnit,
		"Dockerfile": readDockerfile, "compose.yaml": readCompose,
		"kubernetes/config.yaml": readManifests, "kubernetes/secrets.example.yaml": readManifests, "kubernetes/migrate.yaml": readManifests,
		"kubernetes/ingest.yaml": readManifests, "kubernetes/reconcile.yaml": readManifests, "kubernetes/api.yaml": readManifests,
	} {
		d := read(t, filepath.Join("../../deploy", file))
		if len(d.variables)+len(d.commands) == 0 {
			t.Errorf("%s: nothing was read", file)
		}
		for _, v := range slices.Sorted(maps.Keys(d.variables)) {
			if !known[v] {
				t.Errorf("%s sets %s, which is no setting", file, v)
			}
		}
		for _, c := range d.commands {
			checkCommand(t, file, c)
		}
	}
}

func checkCommand(t *testing.T, file string, args []string) {
	t.Helper()
	command := root(io.Discard, io.Discard).Command(args[0])
	if command == nil {
		t.Errorf("%s runs %q, which is no command", file, args[0])
		return
	}
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !slices.ContainsFunc(command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }) {
			t.Errorf("%s runs %s with %s, which it does not know", file, args[0], arg)
		}
		if name == "roles" {
			for role := range strings.SplitSeq(value, ",") {
				if !slices.Contains(allRoles, role) {
					t.Errorf("%s runs the role %q", file, role)
				}
			}
		}
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func found() deployment { return deployment{variables: map[string]bool{}} }

func readEnvFile(t *testing.T, path string) deployment {
	t.Helper()
	d := found()
	for _, m := range regexp.MustCompile(`(?m)^([A-Z][A-Z0-9_]*)=`).FindAllStringSubmatch(readText(t, path), -1) {
		d.add(m[1])
	}
	return d
}

func readUnit(t *testing.T, path string) deployment {
	t.Helper()
	d, text := found(), readText(t, path)
	for _, m := range regexp.MustCompile(`(?m)^Environment=([A-Z0-9_]+)=`).FindAllStringSubmatch(text, -1) {
		d.add(m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/serversync (.*)$`).FindAllStringSubmatch(text, -1) {
		d.commands = append(d.commands, strings.Fields(m[1]))
	}
	return d
}

func readDockerfile(t *testing.T, path string) deployment {
	t.Helper()
	d, text := found(), readText(t, path)
	for _, m := range regexp.MustCompile(`(?m)^ENV (.*)$`).FindAllStringSubmatch(text, -1) {
		for word := range strings.FieldsSeq(m[1]) {
			name, _, _ := strings.Cut(word, "=")
			d.add(name)
		}
	}
	for _, m := range regexp.MustCompile(`CMD \["(?:/usr/local/bin/serversync", ")?(\w+)"\]`).FindAllStringSubmatch(text, -1) {
		d.commands = append(d.commands, []string{m[1]})
	}
	if len(d.commands) != 2 {
		t.Errorf("%s: %d commands, want what it runs and its health check", path, len(d.commands))
	}
	return d
}

func readCompose(t *testing.T, path string) deployment {
	t.Helper()
	var file struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]any
		}
	}
	if err := yaml.Unmarshal([]byte(readText(t, path)), &file); err != nil {
		t.Fatal(err)
	}
	d := found()
	for name, s := range file.Services {
		if strings.HasPrefix(name, "nats-") {
			continue // another program; its configuration is read by a test of cmd/cluster
		}
		d.add(slices.Collect(maps.Keys(s.Environment))...)
		d.commands = append(d.commands, s.Command)
	}
	return d
}

func readManifests(t *testing.T, path string) deployment {
	t.Helper()
	d := found()
	documents := yaml.NewDecoder(strings.NewReader(readText(t, path)))
	for {
		var o struct {
			Data       map[string]string
			StringData map[string]string `yaml:"stringData"`
			Spec       struct {
				Template struct {
					Spec struct {
						Containers []struct {
							Args []string
							Env  []struct{ Name string }
						}
					}
				}
			}
		}
		if err := documents.Decode(&o); err == io.EOF { //nolint:errorlint // the decoder returns it as it is
			return d
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		d.add(slices.Collect(maps.Keys(o.Data))...)
		d.add(slices.Collect(maps.Keys(o.StringData))...)
		for _, c := range o.Spec.Template.Spec.Containers {
			d.commands = append(d.commands, c.Args)
			for _, e := range c.Env {
				d.add(e.Name)
			}
		}
	}
}

// TestUnitFitsTheProgram: what the unit says of exit codes and of the end is as
// the program has it.
func TestUnitFitsTheProgram(t *testing.T) {
	t.Parallel()
	text := readText(t, "../../deploy/systemd/serversync.service")
	for _, line := range []string{"Restart=on-failure", "RestartPreventExitStatus=2", "TimeoutStopSec=30s", "MemoryMax=512M", "Environment=GOMEMLIMIT=460MiB"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
	if exitUsage != 2 || drainTimeout+stopTimeout >= unitStops {
		t.Error("the unit's numbers are not the program's any more")
	}
}

// unitStops is half of the unit's TimeoutStopSec.
const unitStops = 15e9

func TestReadyAsksTheService(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	var asked string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		w.WriteHeader(status)
	}))
	t.Cleanup(service.Close)
	ready := func(args ...string) int {
		return run(t.Context(), append([]string{"serversync", "ready"}, args...), io.Discard, io.Discard)
	}
	addr := strings.TrimPrefix(service.URL, "http://")
	if code := ready("--listen-addr", addr); code != exitDone || asked != "/readyz" {
		t.Errorf("ready: exit %d, asked %s", code, asked)
	}
	status = http.StatusServiceUnavailable
	if code := ready("--url", service.URL, "--role", "ingest"); code != exitFailed || asked != "/readyz?role=ingest" {
		t.Errorf("not ready: exit %d, asked %s", code, asked)
	}
	if code := ready("--url", "http://127.0.0.1:1"); code != exitFailed {
		t.Errorf("away: exit %d", code)
	}
}
