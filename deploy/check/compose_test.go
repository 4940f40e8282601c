package check_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestComposeIsRead has Compose's own reader take the file: its schema, its
// variables, its references.
func TestComposeIsRead(t *testing.T) {
	t.Parallel()
	project := compose(t)
	replicas := map[string]int{"ingest": 2, "reconcile": 2, "api": 2, "migrate": 1, "nats-1": 1, "nats-2": 1, "nats-3": 1}
	if len(project.Services) != len(replicas) {
		t.Errorf("%d services, want %d", len(project.Services), len(replicas))
	}
	for name, s := range project.Services {
		if s.GetScale() != replicas[name] {
			t.Errorf("%s runs %d times, want %d", name, s.GetScale(), replicas[name])
		}
		if !s.ReadOnly || s.User == "" || strings.HasPrefix(s.User, "0") || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may do more than it needs", name)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is open to the world at %s", name, port.Published)
			}
		}
		broker := strings.HasPrefix(name, "nats-")
		if _, has := s.Environment["SERVER_NAME"]; has != broker {
			t.Errorf("%s: which server of the broker is it?", name)
		}
		if url := s.Environment["NATS_URL"]; url != nil && strings.Count(*url, "nats://") != 3 {
			t.Errorf("%s does not know all servers of the broker: %s", name, *url)
		}
		if _, has := s.Environment["DATABASE_URL"]; has == (broker || name == "ingest") {
			t.Errorf("%s: has the database %t", name, has)
		}
	}
	if !project.Networks["broker"].Internal {
		t.Error("the broker's network leads outside")
	}
}

// TestComposeWantsItsSecrets: without one it does not start.
func TestComposeWantsItsSecrets(t *testing.T) {
	t.Parallel()
	if _, err := load(t, nil); err == nil || !strings.Contains(err.Error(), "required variable") {
		t.Errorf("without any setting: %v", err)
	}
}

func compose(t *testing.T) *types.Project {
	t.Helper()
	content, err := os.ReadFile("../compose.env")
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			env = append(env, line)
		}
	}
	project, err := load(t, env)
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func load(t *testing.T, env []string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"}, cli.WithEnv(env), cli.WithInterpolation(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}
