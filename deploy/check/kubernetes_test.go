package check_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// object is one of Kubernetes, read into its own type.
type object interface {
	metav1.Object
}

// kinds are those that there may be, by apiVersion and kind.
var kinds = map[metav1.TypeMeta]func() object{
	{APIVersion: "v1", Kind: "Namespace"}:                                  func() object { return new(corev1.Namespace) },
	{APIVersion: "v1", Kind: "ServiceAccount"}:                             func() object { return new(corev1.ServiceAccount) },
	{APIVersion: "v1", Kind: "ConfigMap"}:                                  func() object { return new(corev1.ConfigMap) },
	{APIVersion: "v1", Kind: "Secret"}:                                     func() object { return new(corev1.Secret) },
	{APIVersion: "v1", Kind: "Service"}:                                    func() object { return new(corev1.Service) },
	{APIVersion: "apps/v1", Kind: "Deployment"}:                            func() object { return new(appsv1.Deployment) },
	{APIVersion: "batch/v1", Kind: "Job"}:                                  func() object { return new(batchv1.Job) },
	{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:                 func() object { return new(policyv1.PodDisruptionBudget) },
	{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}:            func() object { return new(networkingv1.NetworkPolicy) },
	{APIVersion: "kustomize.config.k8s.io/v1beta1", Kind: "Kustomization"}: nil, // not the API server's
}

const dir = "../kubernetes"

// read decodes all manifests strictly: an unknown or doubled field is a fault.
func read(t *testing.T) []object {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the manifests: %v, %v", files, err)
	}
	var all []object
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			var meta metav1.TypeMeta
			if err := yaml.Unmarshal(document, &meta); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			kind, known := kinds[meta]
			if !known {
				t.Fatalf("%s: %+v is not among the kinds of this test", file, meta)
			}
			if kind == nil {
				continue
			}
			o := kind()
			if err := yaml.UnmarshalStrict(document, o); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			all = append(all, o)
		}
	}
	return all
}

// TestKustomizationNamesTheFiles: all but itself and the example.
func TestKustomizationNamesTheFiles(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(dir + "/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var k struct{ Resources []string }
	if err := yaml.Unmarshal(content, &k); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(dir + "/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	files = slices.DeleteFunc(files, func(f string) bool { return f == "kustomization.yaml" || f == "secrets.example.yaml" })
	slices.Sort(k.Resources)
	if !slices.Equal(files, k.Resources) {
		t.Errorf("kustomization.yaml names %v, want %v", k.Resources, files)
	}
}

func TestManifestsFitTogether(t *testing.T) {
	t.Parallel()
	config, pods := map[string]bool{}, map[string]corev1.PodTemplateSpec{}
	var services []*corev1.Service
	var budgets []*policyv1.PodDisruptionBudget
	var policies []*networkingv1.NetworkPolicy
	for _, o := range read(t) {
		if _, ok := o.(*corev1.Namespace); !ok && o.GetNamespace() != "serversync" {
			t.Errorf("%T %s is in the namespace %q", o, o.GetName(), o.GetNamespace())
		}
		switch o := o.(type) {
		case *corev1.ConfigMap:
			config["config "+o.Name] = true
		case *corev1.Secret:
			config["secret "+o.Name] = true
		case *corev1.Service:
			services = append(services, o)
		case *policyv1.PodDisruptionBudget:
			budgets = append(budgets, o)
		case *networkingv1.NetworkPolicy:
			policies = append(policies, o)
		case *appsv1.Deployment:
			pods[o.Name] = o.Spec.Template
			checkDeployment(t, o)
		case *batchv1.Job:
			pods[o.Name] = o.Spec.Template
		}
	}
	if len(pods) != 4 || len(services) != 2 || len(budgets) != 3 || len(policies) < 4 {
		t.Errorf("%d kinds of pod, %d services, %d budgets, %d policies", len(pods), len(services), len(budgets), len(policies))
	}
	for name, pod := range pods {
		checkPod(t, name, &pod.Spec, config)
	}
	for _, s := range services {
		pod, ok := pods[s.Name]
		if !ok || !subset(s.Spec.Selector, pod.Labels) || s.Spec.Ports[0].TargetPort.StrVal != pod.Spec.Containers[0].Ports[0].Name {
			t.Errorf("service %s leads to no pod: %v", s.Name, s.Spec.Selector)
		}
	}
	for _, b := range budgets {
		if pod, ok := pods[b.Name]; !ok || !subset(b.Spec.Selector.MatchLabels, pod.Labels) || b.Spec.MinAvailable.IntValue() != 1 {
			t.Errorf("budget %s covers no pod", b.Name)
		}
	}
	for _, p := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			t.Fatalf("policy %s: %v", p.Name, err)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(pods)), func(pod corev1.PodTemplateSpec) bool { return selector.Matches(labels.Set(pod.Labels)) }) {
			t.Errorf("policy %s covers no pod", p.Name)
		}
	}
}

func checkDeployment(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	if d.Spec.Replicas == nil || *d.Spec.Replicas < 2 {
		t.Errorf("%s: fewer than two replicas", d.Name)
	}
	if !subset(d.Spec.Selector.MatchLabels, d.Spec.Template.Labels) {
		t.Errorf("%s: its selector does not match its pods", d.Name)
	}
	if r := d.Spec.Strategy.RollingUpdate; r == nil || r.MaxUnavailable.IntValue() != 0 {
		t.Errorf("%s: a rollout takes a replica away before the new one is ready", d.Name)
	}
	c := d.Spec.Template.Spec.Containers[0]
	if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet == nil || c.LivenessProbe.HTTPGet.Path != "/healthz" {
		t.Errorf("%s: its liveness must not depend on its stores: /healthz", d.Name)
	}
	if c.ReadinessProbe == nil || c.ReadinessProbe.HTTPGet == nil || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("%s: no readiness probe on /readyz", d.Name)
	}
	if len(d.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
		t.Errorf("%s: its replicas may share a node", d.Name)
	}
	const drain, sleep = 10, 5 // seconds: docs/architecture.md, preStop
	if s := d.Spec.Template.Spec.TerminationGracePeriodSeconds; s == nil || *s <= drain+sleep {
		t.Errorf("%s: it is killed before it has finished", d.Name)
	}
}

// checkPod: nothing that could be less than it is.
func checkPod(t *testing.T, name string, p *corev1.PodSpec, config map[string]bool) {
	t.Helper()
	if s := p.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: the restricted security context is incomplete", name)
	}
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
		t.Errorf("%s: it is given a token of Kubernetes", name)
	}
	if len(p.Containers) != 1 {
		t.Fatalf("%s: %d containers", name, len(p.Containers))
	}
	c := p.Containers[0]
	if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%s: the container may do more than it needs", name)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
		t.Errorf("%s: no resources are asked for", name)
	}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil && !config["config "+from.ConfigMapRef.Name] || from.SecretRef != nil && !config["secret "+from.SecretRef.Name] {
			t.Errorf("%s: it refers to what is not there: %+v", name, from)
		}
	}
}

func subset(small, large map[string]string) bool {
	for k, v := range small {
		if large[k] != v {
			return false
		}
	}
	return len(small) > 0
}
