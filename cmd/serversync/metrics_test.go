package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// exported are the metrics of a registry, by name, each with its labels in order.
func exported(t *testing.T, registry *prometheus.Registry) map[string][]string {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descs)
		close(descs)
	}()
	form := regexp.MustCompile(`^Desc\{fqName: "([a-z_]+)", help: .*, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	found := make(map[string][]string)
	for d := range descs {
		m := form.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("%s reads otherwise than this test believes", d)
		}
		var labels []string
		for constant := range strings.SplitSeq(m[2], ",") {
			if name, _, ok := strings.Cut(constant, "="); ok {
				labels = append(labels, name)
			}
		}
		if m[3] != "" {
			labels = append(labels, strings.Split(m[3], ",")...)
		}
		slices.Sort(labels)
		found[m[1]] = labels
	}
	return found
}

// documentedMetric is a row of docs/metrics.md.
type documentedMetric struct {
	kind   string
	labels []string
	roles  []string
}

// documentedMetrics reads docs/metrics.md.
func documentedMetrics(t *testing.T) map[string]documentedMetric {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(serversync_[a-z_]+)` \\| (counter|gauge|histogram) \\| (.*?) \\| (.*?) \\| .+ \\|$").FindAllStringSubmatch(string(text), -1)
	found := make(map[string]documentedMetric, len(rows))
	for _, row := range rows {
		m := documentedMetric{kind: row[2]}
		for _, label := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[3], -1) {
			m.labels = append(m.labels, label[1])
		}
		slices.Sort(m.labels)
		m.roles = allRoles
		if row[4] != "all" {
			m.roles = strings.Split(row[4], ", ")
		}
		if _, twice := found[row[1]]; twice {
			t.Errorf("docs/metrics.md has %s twice", row[1])
		}
		found[row[1]] = m
	}
	if mentioned := regexp.MustCompile("(?m)^\\| `serversync_").FindAllString(string(text), -1); len(mentioned) != len(rows) {
		t.Errorf("docs/metrics.md has %d rows of metrics, of which %d have the form | `name` | type | labels | roles | meaning |", len(mentioned), len(rows))
	}
	return found
}

// ours are the names that begin with serversync_.
func ours(all map[string][]string) []string {
	names := slices.Collect(maps.Keys(all))
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "serversync_") })
	slices.Sort(names)
	return names
}

// TestMetricsAreDocumented compares docs/metrics.md with what a process of each
// role can export, both ways: names, labels, roles and, where there are values,
// types.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	documented := documentedMetrics(t)
	for _, role := range allRoles {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			r := start(t, config{roles: []string{role}})
			var want []string
			for name, m := range documented {
				if slices.Contains(m.roles, role) {
					want = append(want, name)
				}
			}
			slices.Sort(want)
			eventually(t, "its parts are up", func() bool { return r.partsAreUp(role) })
			got := exported(t, r.registry)
			if lacks := missing(want, ours(got)); len(lacks) > 0 {
				t.Errorf("docs/metrics.md says that a process of the role %s exports these, and it does not: %v", role, lacks)
			}
			if more := missing(ours(got), want); len(more) > 0 {
				t.Errorf("a process of the role %s exports these, which docs/metrics.md does not have for it: %v", role, more)
			}
			for name, m := range documented {
				if labels, ok := got[name]; ok && !slices.Equal(labels, m.labels) {
					t.Errorf("%s has the labels %v, docs/metrics.md says %v", name, labels, m.labels)
				}
			}
			checkTypes(t, r, documented)
		})
	}
}

// partsAreUp reports that everything that counts in a process of this role has
// been made; some of it waits for the stores.
func (r *running) partsAreUp(role string) bool {
	switch role {
	case roleReconcile:
		return r.books.reconciler.Load() != nil
	case roleAPI:
		return r.syncs.runs.Load() != nil
	case roleSweep:
		return strings.Contains(r.log.String(), "leads the sweeps")
	default:
		return true
	}
}

func missing(want, got []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(name string) bool { return slices.Contains(got, name) })
}

func checkTypes(t *testing.T, r *running, documented map[string]documentedMetric) {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if m, ok := documented[f.GetName()]; ok && m.kind != strings.ToLower(f.GetType().String()) {
			t.Errorf("%s is a %s, docs/metrics.md says %s", f.GetName(), strings.ToLower(f.GetType().String()), m.kind)
		}
	}
}
