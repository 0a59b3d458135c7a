package deploy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// A variant is what one kustomization makes, decoded without a field too many.
type variant struct {
	deployment appsv1.Deployment
	service    corev1.Service
	network    networkingv1.NetworkPolicy
	config     corev1.ConfigMap
	claim      corev1.PersistentVolumeClaim
	budget     policyv1.PodDisruptionBudget
}

func build(t *testing.T, name string) *variant {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "kubernetes/"+name)
	if err != nil {
		t.Fatal(err)
	}
	v := new(variant)
	for _, resource := range made.Resources() {
		text, err := resource.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		into, ok := map[string]any{
			"apps/v1 Deployment": &v.deployment, "v1 Service": &v.service, "v1 ConfigMap": &v.config,
			"networking.k8s.io/v1 NetworkPolicy": &v.network, "v1 PersistentVolumeClaim": &v.claim,
			"policy/v1 PodDisruptionBudget": &v.budget,
		}[resource.GetApiVersion()+" "+resource.GetKind()]
		if !ok {
			t.Fatalf("a %s is not known here:\n%s", resource.GetKind(), text)
		}
		if strict, err := json.UnmarshalStrict(text, into); err != nil || len(strict) > 0 {
			t.Fatalf("%v %v\n%s", err, strict, text)
		}
	}
	return v
}

func TestKubernetes(t *testing.T) {
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) {
			v := build(t, name)
			checkSelectors(t, v)
			checkRestricted(t, v)
			checkSidecar(t, v)
			checkVolumes(t, v)
			if v.config.Data["Caddyfile"] == "" {
				t.Error("the configuration is empty")
			}
		})
	}
}

// checkSelectors: each selects this deployment's pods, and nobody else's.
func checkSelectors(t *testing.T, v *variant) {
	t.Helper()
	pod := labels.Set(v.deployment.Spec.Template.Labels)
	for what, selector := range map[string]*metav1.LabelSelector{
		"deployment": v.deployment.Spec.Selector, "network policy": &v.network.Spec.PodSelector,
		"service": {MatchLabels: v.service.Spec.Selector},
	} {
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil || s.Empty() || !s.Matches(pod) {
			t.Errorf("the selector of the %s: %q does not select %q, or selects all: %v", what, s, pod, err)
		}
	}
	if v.budget.Name != "" {
		if s, err := metav1.LabelSelectorAsSelector(v.budget.Spec.Selector); err != nil || s.Empty() || !s.Matches(pod) {
			t.Errorf("the selector of the budget: %q: %v", s, err)
		}
	}
}

// checkRestricted asks what admits pods to a namespace.
func checkRestricted(t *testing.T, v *variant) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	template := v.deployment.Spec.Template
	for _, result := range evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec) {
		if !result.Allowed {
			t.Errorf("the profile restricted forbids it: %s (%s)", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	if *template.Spec.AutomountServiceAccountToken {
		t.Error("it gets a token of the cluster")
	}
}

// checkSidecar: it starts before the API and outlives it, and is the only thing
// that is reached.
func checkSidecar(t *testing.T, v *variant) {
	t.Helper()
	pod := v.deployment.Spec.Template.Spec
	warder := pod.InitContainers[0]
	if warder.Name != "warder" || warder.RestartPolicy == nil || *warder.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("%s is no native sidecar", warder.Name)
	}
	ports := map[string]int32{}
	for _, p := range warder.Ports {
		ports[p.Name] = p.ContainerPort
	}
	if !maps.Equal(ports, map[string]int32{"http": 8080, "status": 8082}) {
		t.Errorf("its ports: %v", ports)
	}
	checkProbe(t, warder.StartupProbe, "/healthz")
	checkProbe(t, warder.LivenessProbe, "/healthz")
	checkProbe(t, warder.ReadinessProbe, "/readyz")
	if limits := warder.Resources.Limits; limits.Memory().Value() != 64<<20 || limits.Cpu().MilliValue() != 250 {
		t.Errorf("its limits: %v", limits)
	}
	if !*warder.SecurityContext.ReadOnlyRootFilesystem {
		t.Error("its root can be written")
	}
	checkReached(t, v)
	checkGrace(t, v)
	if len(pod.Containers[0].Ports) > 0 {
		t.Error("the API behind has a port")
	}
}

// checkGrace: what is being answered when the pod ends has the time that the
// configuration gives it, after that in which requests go on coming.
func checkGrace(t *testing.T, v *variant) {
	t.Helper()
	found := gracePeriod.FindStringSubmatch(v.config.Data["Caddyfile"])
	if found == nil {
		t.Fatal("the configuration says nothing of a grace period")
	}
	grace, _ := strconv.Atoi(found[1])
	pod := v.deployment.Spec.Template.Spec
	if awaited := pod.Containers[0].Lifecycle.PreStop.Sleep.Seconds; *pod.TerminationGracePeriodSeconds <= awaited+int64(grace) {
		t.Errorf("the pod is killed after %d s, of which %d are awaited and %d are for answers", *pod.TerminationGracePeriodSeconds, awaited, grace)
	}
}

var gracePeriod = regexp.MustCompile(`\n\tgrace_period (\d+)s\n`)

func checkProbe(t *testing.T, probe *corev1.Probe, path string) {
	t.Helper()
	if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "status" {
		t.Errorf("the probe for %s: %+v", path, probe)
	}
}

// checkReached: the gate and nothing else, by its number. A sidecar's port of a
// name is found by services since Kubernetes 1.32, and not by every network.
func checkReached(t *testing.T, v *variant) {
	t.Helper()
	var reached []string
	for _, rule := range v.network.Spec.Ingress {
		for _, p := range rule.Ports {
			reached = append(reached, p.Port.String())
		}
		if len(rule.Ports) == 0 {
			reached = append(reached, "everything")
		}
	}
	if !slices.Equal(reached, []string{"8080"}) || !slices.Equal(v.network.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}) {
		t.Errorf("the network reaches %q", reached)
	}
	if len(v.service.Spec.Ports) != 1 || v.service.Spec.Ports[0].TargetPort.IntValue() != 8080 {
		t.Errorf("the service leads to %v", v.service.Spec.Ports)
	}
}

// checkVolumes: what is mounted is there, and what it is of is there, too.
func checkVolumes(t *testing.T, v *variant) {
	t.Helper()
	pod := v.deployment.Spec.Template.Spec
	sources := map[string]string{}
	for _, volume := range pod.Volumes {
		switch {
		case volume.Secret != nil:
			sources[volume.Name] = fmt.Sprintf("secret %s %o", volume.Secret.SecretName, *volume.Secret.DefaultMode)
		case volume.ConfigMap != nil && volume.ConfigMap.Name == v.config.Name:
			sources[volume.Name] = "config"
		case volume.PersistentVolumeClaim != nil && volume.PersistentVolumeClaim.ClaimName == v.claim.Name && volume.EmptyDir == nil:
			sources[volume.Name] = "claim"
		case volume.EmptyDir != nil:
			sources[volume.Name] = "empty"
		}
	}
	want := map[string]string{"secret": "secret warder 440", "config": "config", "data": "claim"}
	if v.claim.Name == "" {
		want["data"] = "empty"
	}
	if !maps.Equal(sources, want) {
		t.Errorf("its volumes: %v", sources)
	}
	for _, mount := range pod.InitContainers[0].VolumeMounts {
		if want[mount.Name] == "" || mount.ReadOnly != (mount.Name != "data") {
			t.Errorf("its mount %+v", mount)
		}
	}
}

// TestReplicas: a file belongs to one process, so its pod ends before the next
// begins; a database serves several.
func TestReplicas(t *testing.T) {
	for name, several := range map[string]bool{"sqlite": false, "postgres": true} {
		spec := build(t, name).deployment.Spec
		if got := *spec.Replicas > 1; got != several {
			t.Errorf("%s: %d replicas", name, *spec.Replicas)
		}
		if recreate := spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType; recreate == several {
			t.Errorf("%s: strategy %q", name, spec.Strategy.Type)
		}
	}
}
