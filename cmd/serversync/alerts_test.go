package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	yaml "github.com/oasdiff/yaml3"

	"serversync/db"
)

const (
	alertsFile    = "../../deploy/prometheus/alerts.yaml"
	alertTests    = "../../deploy/prometheus/alerts_test.yaml"
	dashboardFile = "../../deploy/grafana/serversync.json"
	runbooks      = "../../docs/runbooks"
)

// alertRule is a rule of alerts.yaml.
type alertRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alertRule `yaml:"rules"`
		} `yaml:"groups"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	var rules []alertRule
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) == 0 {
		t.Fatal("there is no rule")
	}
	return rules
}

// panelQuery is a query of the dashboard, with how its series are called.
type panelQuery struct{ panel, expr, legend string }

func panelQueries(t *testing.T) []panelQuery {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	type source struct {
		UID string `json:"uid"`
	}
	var dashboard struct {
		Panels []struct {
			ID          int
			Type        string
			Title       string
			Description string
			Datasource  source
			Targets     []struct {
				Expr         string
				LegendFormat string
				Datasource   source
			}
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if v := dashboard.Templating.List; len(v) != 1 || v[0].Name != "datasource" || v[0].Type != "datasource" {
		t.Errorf("the dashboard has the variables %v, want one datasource", v)
	}
	var queries []panelQuery
	ids := make(map[int]bool)
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		for _, named := range regexp.MustCompile(`Serversync[A-Za-z]+`).FindAllString(p.Description, -1) {
			if _, err := os.Stat(filepath.Join(runbooks, named+".md")); err != nil {
				t.Errorf("the panel %q names the runbook %s: %v", p.Title, named, err)
			}
		}
		for _, target := range p.Targets {
			if p.Datasource.UID != "${datasource}" || target.Datasource.UID != "${datasource}" {
				t.Errorf("the panel %q asks another source than the variable's", p.Title)
			}
			queries = append(queries, panelQuery{p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"), target.LegendFormat})
		}
	}
	return queries
}

// metricsOf is what a service of all roles exports: labels by name, and the
// values that labels have.
type metricsOf struct {
	labels map[string][]string
	values map[string]map[string][]string
}

func exportedByAll(t *testing.T) metricsOf {
	t.Helper()
	r := start(t, config{})
	r.ready(t)
	eventually(t, "a sweep has ended", func() bool { // before the first scrape, whose answers are kept for a while
		last, err := db.LastSweep(t.Context(), r.stores.db, time.Now())
		return err == nil && last != nil && last.State != db.RunRunning
	})
	m := metricsOf{labels: exported(t, r.registry), values: make(map[string]map[string][]string)}
	m.labels["up"] = nil // Prometheus' own
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		values := make(map[string][]string)
		for _, series := range f.GetMetric() {
			for _, l := range series.GetLabel() {
				values[l.GetName()] = append(values[l.GetName()], l.GetValue())
			}
		}
		m.values[f.GetName()] = values
	}
	return m
}

// check reports metrics, labels and values of a query that the service does not
// have.
func (m metricsOf) check(t *testing.T, where, query string) (labels []string) {
	t.Helper()
	e, err := metricsql.Parse(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return nil
	}
	known := map[string]bool{"job": true, "instance": true}
	var used []string
	metricsql.VisitAll(e, func(e metricsql.Expr) {
		switch e := e.(type) {
		case *metricsql.MetricExpr:
			for _, filters := range e.LabelFilterss {
				m.checkSelector(t, where, filters, known)
			}
		case *metricsql.AggrFuncExpr:
			used = append(used, e.Modifier.Args...)
		case *metricsql.BinaryOpExpr:
			used = append(used, e.GroupModifier.Args...)
			used = append(used, e.JoinModifier.Args...)
		}
	})
	for _, label := range used {
		if !known[label] {
			t.Errorf("%s: no metric in %s has the label %s", where, query, label)
		}
	}
	return slices.Collect(maps.Keys(known))
}

// checkSelector checks one selector, and adds the labels of its metric to known.
func (m metricsOf) checkSelector(t *testing.T, where string, filters []metricsql.LabelFilter, known map[string]bool) {
	t.Helper()
	if len(filters) == 0 || filters[0].Label != "__name__" || filters[0].IsRegexp || filters[0].IsNegative {
		if len(filters) > 0 {
			t.Errorf("%s: a selector names no metric", where)
		}
		return
	}
	name, bucket := filters[0].Value, false
	if _, exact := m.labels[name]; !exact {
		name, bucket = strings.CutSuffix(name, "_bucket")
	}
	labels, ok := m.labels[name]
	if !ok {
		t.Errorf("%s: there is no metric %s", where, filters[0].Value)
		return
	}
	for _, label := range labels {
		known[label] = true
	}
	if bucket {
		known["le"] = true
	}
	for _, f := range filters[1:] {
		if f.Label == "job" || f.Label == "instance" {
			continue
		}
		if !slices.Contains(labels, f.Label) {
			t.Errorf("%s: %s has no label %s", where, name, f.Label)
			continue
		}
		have := m.values[name][f.Label]
		if len(have) == 0 || f.Label == "status" || f.Label == "route" {
			continue // nothing has happened yet
		}
		for value := range strings.SplitSeq(f.Value, "|") {
			if !slices.Contains(have, value) {
				t.Errorf("%s: %s never has %s=%q, only %v", where, name, f.Label, value, have)
			}
		}
	}
}

// TestAlertsAndDashboardAskForWhatThereIs parses each query and compares it with
// what a running service exports.
func TestAlertsAndDashboardAskForWhatThereIs(t *testing.T) {
	t.Parallel()
	m := exportedByAll(t)
	template := regexp.MustCompile(`\$labels\.([a-z_]+)`)
	for _, rule := range alertRules(t) {
		known := m.check(t, rule.Alert, rule.Expr)
		for _, text := range rule.Annotations {
			for _, label := range template.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(known, label[1]) {
					t.Errorf("%s tells of the label %s, which it does not have", rule.Alert, label[1])
				}
			}
		}
	}
	legend := regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	for _, q := range panelQueries(t) {
		known := m.check(t, "panel "+q.panel, q.expr)
		for _, label := range legend.FindAllStringSubmatch(q.legend, -1) {
			if !slices.Contains(known, label[1]) {
				t.Errorf("the panel %q calls its series by the label %s, which they do not have", q.panel, label[1])
			}
		}
	}
}

// TestEachAlertHasARunbook holds rules and runbooks against each other, both
// ways.
func TestEachAlertHasARunbook(t *testing.T) {
	t.Parallel()
	tests, err := os.ReadFile(alertTests)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	unclaimed := make(map[string]bool)
	for _, f := range files {
		unclaimed[filepath.Base(f)] = true
	}
	for _, rule := range alertRules(t) {
		name := rule.Alert + ".md"
		if rule.Annotations["runbook_url"] != "docs/runbooks/"+name || !unclaimed[name] {
			t.Errorf("%s has the runbook %q, want docs/runbooks/%s, and that there is one", rule.Alert, rule.Annotations["runbook_url"], name)
		}
		delete(unclaimed, name)
		if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s has the severity %q", rule.Alert, severity)
		}
		if rule.Annotations["summary"] == "" || !strings.Contains(rule.Annotations["description"], "$") && !strings.Contains(rule.Alert, "Unobserved") && rule.Alert != "ServersyncNoWebhooks" {
			t.Errorf("%s does not say what it saw: %v", rule.Alert, rule.Annotations)
		}
		for _, what := range []string{" rings\n", " stays quiet\n"} {
			if !strings.Contains(string(tests), "name: "+rule.Alert+what) {
				t.Errorf("alerts_test.yaml does not try when %s%s", rule.Alert, strings.TrimSuffix(what, "\n"))
			}
		}
		checkRunbook(t, name)
	}
	for name := range unclaimed {
		t.Errorf("docs/runbooks/%s is no alert's", name)
	}
}

// checkRunbook wants every section, and links that lead somewhere.
func checkRunbook(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(runbooks, name))
	if err != nil {
		t.Error(err)
		return
	}
	for _, section := range []string{"What it means", "What harm comes of it", "How to see the cause", "What to do", "When it heals by itself"} {
		_, after, ok := strings.Cut(string(text), "\n## "+section+"\n\n")
		if !ok || len(after) < 20 {
			t.Errorf("%s lacks the section %q", name, section)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join(runbooks, link[1])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPromtoolAgrees has Prometheus' own tool check the rules and run their unit
// tests.
func TestPromtoolAgrees(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: on Debian, apt-get install --no-install-recommends prometheus")
	}
	for _, args := range [][]string{{"check", "rules", alertsFile}, {"test", "rules", alertTests}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
