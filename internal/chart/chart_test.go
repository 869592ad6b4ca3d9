package chart

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/groundplan/groundplan/internal/cluster/running"
	"github.com/groundplan/groundplan/internal/golden"
)

const chart = "../../charts/groundplan"

// helm runs Helm and returns what it says on stdout, and on stderr.
func helm(t *testing.T, args ...string) (string, string, error) {
	t.Helper()
	program, err := filepath.Abs("../../bin/helm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) {
		t.Skip("there is no bin/helm: `go tool task chart:lint` builds it")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	home := t.TempDir() // nothing of the user's: no plugins, no repositories, no cluster
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + filepath.Join(home, "none")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// random is a password that the chart has made up.
var random = regexp.MustCompile(`\b[A-Za-z0-9]{40}\b`)

// render is what the chart becomes with flags, in which what was made up has a fixed form.
func render(t *testing.T, namespace string, flags ...string) string {
	t.Helper()
	text, said, err := helm(t, append([]string{"template", "groundplan", chart, "--namespace", namespace}, flags...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return random.ReplaceAllString(text, "made-up")
}

// valueFiles are all that the chart is tried with, by name; empty: its defaults.
func valueFiles(t *testing.T) map[string][]string {
	files, err := filepath.Glob(chart + "/testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of values: %v", err)
	}
	flags := map[string][]string{"default": nil}
	for _, file := range files {
		flags[strings.TrimSuffix(filepath.Base(file), ".yaml")] = []string{"--values", file}
	}
	return flags
}

func TestLint(t *testing.T) {
	for name, flags := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if said, more, err := helm(t, append([]string{"lint", "--strict", chart}, flags...)...); err != nil {
				t.Errorf("%v\n%s%s", err, said, more)
			}
		})
	}
}

func TestRendered(t *testing.T) {
	for name, flags := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := render(t, "groundplan-system", flags...)
			golden.Compare(t, "testdata/"+name+".golden", text)
			for _, object := range decode(t, text) {
				switch o := object.(type) {
				case *appsv1.Deployment:
					restricted(t, o.Name, o.Spec.Template.Spec)
				case *corev1.Pod:
					o.Spec.HostNetwork = false // the test's: it asks the agent on the node's loopback
					restricted(t, o.Name, o.Spec)
				}
			}
		})
	}
}

// decode reads objects as the API server does, and fails for a field that it doesn't know.
func decode(t *testing.T, text string) []runtime.Object {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for _, document := range strings.Split(text, "\n---\n") {
		if !strings.Contains(document, "apiVersion:") {
			continue
		}
		object, _, err := decoder.Decode([]byte(document), nil, nil)
		if err != nil {
			t.Errorf("%v in\n%s", err, document)
			continue
		}
		objects = append(objects, object)
	}
	return objects
}

// restricted makes sure that PodSecurity's restricted profile has nothing against a pod: only agents may do more.
func restricted(t *testing.T, name string, pod corev1.PodSpec) {
	t.Helper()
	if pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.SecurityContext == nil || pod.SecurityContext.RunAsNonRoot == nil || !*pod.SecurityContext.RunAsNonRoot ||
		pod.SecurityContext.SeccompProfile == nil {
		t.Errorf("pod %s is not restricted", name)
	}
	for _, volume := range pod.Volumes {
		if volume.HostPath != nil {
			t.Errorf("pod %s takes the node's %s", name, volume.HostPath.Path)
		}
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if s := c.SecurityContext; s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || len(s.Capabilities.Drop) != 1 || s.Privileged != nil {
			t.Errorf("container %s of %s is not restricted", c.Name, name)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		set, says string
	}{
		{"redis.enabled=false", "say where Redis is: set redis.url or redis.existingSecret.name"},
		{"redis.url=localhost:6379", "/redis/url"},
		{"worker.enabled=true", "say which Temporal the worker serves"},
		{"worker.enabled=true,worker.temporal=t:7233,worker.replicas=2,worker.persistence.enabled=true", "worker.persistence is for one replica"},
		{"sidecar.token=short", "/sidecar/token"},
		{"sidecar.port=70000", "/sidecar/port"},
		{"sidecar.state=relative", "/sidecar/state"},
		{"sidecar.maxUnavailable=all", "/sidecar/maxUnavailable"},
		{"instances.namespace=Not_A_Label", "/instances/namespace"},
		{"runners[0].kind=Everybody,runners[0].name=x", "/runners/0/kind"},
		{"runners[0].kind=ServiceAccount,runners[0].name=x", "needs its namespace"},
		{"sidecars.port=1", "sidecars"},
		{"image.digest=latest", "/image/digest"},
	} {
		t.Run(test.set, func(t *testing.T) {
			t.Parallel()
			_, said, err := helm(t, "template", "groundplan", chart, "--set", test.set)
			if err == nil || !strings.Contains(said, test.says) {
				t.Errorf("%v: %s, want %q", err, said, test.says)
			}
		})
	}
}

// TestValuesAndSchema makes sure that whatever the schema knows has a default with its words in values.yaml.
func TestValuesAndSchema(t *testing.T) {
	var values map[string]any
	var described schema
	read(t, "values.yaml", func(data []byte) error { return yaml.Unmarshal(data, &values) })
	read(t, "values.schema.json", func(data []byte) error { return json.Unmarshal(data, &described) })
	described.check(t, "", values)
}

func read(t *testing.T, name string, parse func([]byte) error) {
	data, err := os.ReadFile(filepath.Join(chart, name))
	if err == nil {
		err = parse(data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// schema is what of a JSON Schema the test looks at.
type schema struct {
	Description string             `json:"description"`
	Properties  map[string]*schema `json:"properties"`
	Closed      *bool              `json:"additionalProperties"`
}

func (s *schema) check(t *testing.T, at string, values map[string]any) {
	for name, property := range s.Properties {
		if property.Description == "" && property.Properties == nil {
			t.Errorf("%s.%s has no description", at, name)
		}
		value, there := values[name]
		if !there && name != "global" && !strings.HasSuffix(at, ".resources") {
			t.Errorf("%s.%s has no default", at, name)
		}
		if below, ok := value.(map[string]any); ok && property.Properties != nil {
			if property.Closed == nil || *property.Closed {
				t.Errorf("%s.%s takes keys that nobody reads", at, name)
			}
			property.check(t, at+"."+name, below)
		}
	}
}

// TestClusterTakesChart has a real API server check what is rendered, where one is at hand; nothing is kept.
func TestClusterTakesChart(t *testing.T) {
	kubeconfig := running.Find(t).Kubeconfig
	for name, flags := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := render(t, "default", append(flags, "--set", "instances.namespace=default")...)
			cmd := exec.CommandContext(t.Context(), "kubectl", "--kubeconfig", kubeconfig, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
			cmd.Stdin = strings.NewReader(text)
			if said, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(said), "Warning") {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}
