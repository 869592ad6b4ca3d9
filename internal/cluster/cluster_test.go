//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/cluster/builds"
	"github.com/groundplan/groundplan/internal/cluster/registry"
	"github.com/groundplan/groundplan/internal/cluster/running"
)

// TestRunningCluster asks of the cluster that the environment names whatever the rest of the project expects of one.
func TestRunningCluster(t *testing.T) {
	v := visit(t, running.Find(t))
	v.apply(t)
	nodes := []string{"node-1", "node-2", "node-3"}
	for _, node := range nodes {
		v.kubectl(t, "wait", "--for=condition=Ready", "--timeout=90s", "pod/web-"+node, "pod/agent-"+node)
	}
	t.Run("pods of all nodes reach each other", func(t *testing.T) {
		for _, from := range nodes {
			for _, to := range nodes {
				ip := v.kubectl(t, "get", "pod", "web-"+to, "-o", "jsonpath={.status.podIP}")
				if got := v.probe(t, "web-"+from, "get", "http://"+ip+":8080"); !strings.HasPrefix(got, "web-"+to+" serves") {
					t.Errorf("from %s to %s: %q", from, to, got)
				}
			}
		}
	})
	t.Run("pods reach the API server by its Service", func(t *testing.T) {
		ip := strings.TrimSpace(v.kubectl(t, "get", "service", "--namespace=default", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"))
		if got := v.probe(t, "web-node-2", "get", "https://"+ip+"/version"); !strings.Contains(got, "gitVersion") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("agents reach Redis", func(t *testing.T) {
		_, at, _ := strings.Cut(v.cluster.Redis, "@")
		at, _, _ = strings.Cut(at, "/")
		for _, node := range nodes {
			v.probe(t, "agent-"+node, "dial", at)
		}
	})
	t.Run("no way leads outside", func(t *testing.T) {
		if output, err := v.command(t, "exec", "agent-node-1", "--", "/probe", "dial", "192.0.2.1:80").CombinedOutput(); err == nil || !strings.Contains(string(output), "unreachable") {
			t.Errorf("%v: %s", err, output)
		}
	})
	t.Run("port-forward reaches what listens on a node's loopback", v.testPortForward)
	t.Run("an agent's mounts are seen on its node only", v.testPropagation)
	t.Run("logs", func(t *testing.T) {
		v.kubectl(t, "logs", "web-node-3")
	})
}

// visitor is a test that is at home in a namespace of its own.
type visitor struct {
	cluster   running.Cluster
	namespace string
	image     string
}

func visit(t *testing.T, c running.Cluster) *visitor {
	program := filepath.Join(t.TempDir(), "probe")
	if err := builds.Program(t.Context(), ".", "./probe", program); err != nil {
		t.Fatal(err)
	}
	image, err := registry.Program(program)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{cluster: c, namespace: fmt.Sprintf("cluster-test-%d", os.Getpid())}
	if v.image, err = registry.Push(t.Context(), image, c.Registry+"/cluster/probe:test"); err != nil {
		t.Fatal(err)
	}
	v.kubectl(t, "create", "namespace", v.namespace)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "kubectl", "--kubeconfig", c.Kubeconfig, "delete", "namespace", v.namespace)
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("clearing up: %v: %s", err, output)
		}
	})
	return v
}

// pods are a pod as strict as instances' are and one as free as agents' are, on a node.
const pods = `
apiVersion: v1
kind: Pod
metadata: {name: web-%[1]s}
spec:
  nodeSelector: {kubernetes.io/hostname: %[1]s}
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - {name: web, image: %[2]s, args: [serve, ":8080"], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-%[1]s}
spec:
  nodeSelector: {kubernetes.io/hostname: %[1]s}
  terminationGracePeriodSeconds: 1
  hostNetwork: true
  hostPID: true
  containers:
  - name: agent
    image: %[2]s
    args: [serve, "127.0.0.1:18080"]
    securityContext: {privileged: true, runAsUser: 0}
    volumeMounts:
    - {name: state, mountPath: /var/lib/groundplan, mountPropagation: Bidirectional}
    - {name: kubelet, mountPath: /var/lib/kubelet, mountPropagation: HostToContainer}
  volumes:
  - {name: state, hostPath: {path: /var/lib/groundplan, type: DirectoryOrCreate}}
  - {name: kubelet, hostPath: {path: /var/lib/kubelet}}
---
`

func (v *visitor) apply(t *testing.T) {
	t.Helper()
	var all strings.Builder
	for _, node := range []string{"node-1", "node-2", "node-3"} {
		fmt.Fprintf(&all, pods, node, v.image)
	}
	cmd := v.command(t, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(all.String())
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}

func (v *visitor) command(t *testing.T, arguments ...string) *exec.Cmd {
	return exec.CommandContext(t.Context(), "kubectl", append([]string{"--kubeconfig", v.cluster.Kubeconfig, "--namespace", v.namespace}, arguments...)...)
}

func (v *visitor) kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := v.command(t, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(arguments, " "), err, output)
	}
	return string(output)
}

func (v *visitor) probe(t *testing.T, pod string, arguments ...string) string {
	t.Helper()
	return v.kubectl(t, append([]string{"exec", pod, "--", "/probe"}, arguments...)...)
}

func (v *visitor) testPortForward(t *testing.T) {
	cmd := v.command(t, "port-forward", "pod/agent-node-2", ":18080")
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var port int
	if _, err := fmt.Fscanf(output, "Forwarding from 127.0.0.1:%d", &port); err != nil {
		t.Fatalf("kubectl names no port: %v", err)
	}
	answer, err := http.Get("http://" + net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || !strings.HasPrefix(string(text), "node-2 serves 127.0.0.1") {
		t.Errorf("got %q, %v; the pod should have the host name of its node", text, err)
	}
}

func (v *visitor) testPropagation(t *testing.T) {
	folder := "/var/lib/groundplan/" + v.namespace
	v.probe(t, "agent-node-1", "mount", folder)
	defer v.probe(t, "agent-node-1", "unmount", folder)
	restarted := strings.NewReplacer("agent-", "again-", "18080", "18081", "Bidirectional", "HostToContainer")
	for node, want := range map[string]bool{"node-1": true, "node-2": false} {
		cmd := v.command(t, "apply", "-f", "-")
		cmd.Stdin = strings.NewReader(restarted.Replace(fmt.Sprintf(pods, node, v.image)))
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		v.kubectl(t, "wait", "--for=condition=Ready", "--timeout=90s", "pod/again-"+node)
		got := v.probe(t, "again-"+node, "list", "/var/lib/groundplan")
		if strings.Contains(got, v.namespace) != want {
			t.Errorf("%s: the folder mounted on node-1 is seen: %v; there is %q", node, !want, got)
		}
		if want && !strings.Contains(v.probe(t, "again-"+node, "list", folder), "mounted") {
			t.Errorf("another pod of %s doesn't see what an agent mounted there", node)
		}
	}
}
