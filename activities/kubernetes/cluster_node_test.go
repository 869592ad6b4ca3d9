package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/groundplan/groundplan/activities/images"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/cluster/running"
	"github.com/groundplan/groundplan/pipelines"
)

// TestClusterNodeIsLost kills a real node in the middle of a stage: its kubelet, its containerd and every process of its
// pods. The attempt says what was lost; the next one places that on the other nodes, and touches nothing else.
func TestClusterNodeIsLost(t *testing.T) {
	where := running.Find(t)
	if where.Program == "" {
		t.Skip("only a node of the development cluster can be killed")
	}
	c := newCluster(t)
	c.in.Artifacts["plan"] = c.program("waits")
	c.in.Groups = []pipelines.Group{{Name: "g", Artifact: "plan", Instances: 6, Outcome: pipelines.OutcomeExit}}
	c.in.Deadline = time.Now().Add(8 * time.Minute)
	defer c.release()
	if result := c.schedule(); result.Verdict != stage.Passed {
		t.Fatal("there is nothing to lose")
	}
	before, on := c.uids(), c.nodes()
	victim := on[slices.Sorted(maps.Keys(on))[0]]
	lost := 0
	for _, node := range on {
		if node == victim {
			lost++
		}
	}
	t.Logf("%d of %d instances are on %s", lost, len(on), victim)

	went := make(chan bool, 1)
	done := make(chan stage.Result, 1)
	go func() {
		result, err := New(c.options).Run(t.Context(), c.stage("long", 1), func(p stage.Progress) {
			if p.Running == 6 {
				select {
				case went <- true:
				default:
				}
			}
		})
		if err != nil {
			t.Errorf("running: %v", err)
		}
		done <- result
	}()
	select {
	case <-went:
	case result := <-done:
		t.Fatalf("it never ran: %+v", result)
	}
	t.Cleanup(func() { c.start(where, victim) })
	c.control(where, "kill", "node", victim)
	killed := time.Now()
	select {
	case result := <-done:
		t.Logf("%v after the kill: %s: %s", time.Since(killed).Round(time.Second), result.Verdict, result.Reason)
		if want := fmt.Sprintf("%d instance", lost); result.Verdict != stage.Invalid || !strings.Contains(result.Reason, "node "+victim) || !strings.Contains(result.Reason, want) {
			t.Errorf("%s: %s; want node %s and %q in it", result.Verdict, result.Reason, victim, want)
		}
	case <-time.After(4 * time.Minute):
		t.Fatal("nobody noticed in four minutes")
	}
	again := time.Now()
	result, err := New(c.options).Run(t.Context(), c.stage("short", 2), func(stage.Progress) {})
	if err != nil || result.Verdict != stage.Passed || result.Outcomes["g"].Succeeded != 6 {
		t.Fatalf("the next attempt: %+v, %v", result, err)
	}
	t.Logf("the next attempt passed in %v", time.Since(again).Round(time.Second))
	for name, uid := range c.uids() {
		if anew := before[name] != uid; anew != (on[name] == victim) {
			t.Errorf("%s, which was on %s, was made anew: %v", name, on[name], anew)
		}
	}
	for name, node := range c.nodes() {
		if node == victim {
			t.Errorf("%s was placed on %s, which is dead", name, victim)
		}
	}
}

// program builds a program of testdata and makes it an image.
func (c *realCluster) program(name string) stage.Artifact {
	c.Helper()
	path := filepath.Join(c.TempDir(), name)
	build := exec.CommandContext(c.Context(), "go", "build", "-o", path, "./testdata/"+name)
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		c.Fatalf("building %s: %v\n%s", name, err, out)
	}
	artifact, why, err := images.Pack(c.Context(), stage.Artifact{Name: name, Path: path}, images.Options{Registry: c.options.Registry})
	if err != nil || why != "" {
		c.Fatalf("packing %s: %s %v", name, why, err)
	}
	return artifact
}

// stage is an attempt of a run stage with all groups.
func (c *realCluster) stage(testCase string, attempt int) stage.Input {
	in := c.in
	in.Attempt, in.Deadline = attempt, time.Now().Add(5*time.Minute)
	in.Stage = pipelines.Stage{Name: "main", Kind: pipelines.KindRun, Timeout: pipelines.Duration(5 * time.Minute),
		Run: &pipelines.Run{Groups: []string{"g"}, Case: testCase, Success: 1}}
	return in
}

// nodes are those of the run's pods, by the pods' names.
func (c *realCluster) nodes() map[string]string {
	c.Helper()
	list, err := c.client.CoreV1().Pods(c.namespace).List(c.Context(), metav1.ListOptions{LabelSelector: ofRun(c.in.Run.ID)})
	if err != nil {
		c.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range list.Items {
		all[p.Name] = p.Spec.NodeName
	}
	return all
}

// control has the program that made the cluster do something to it.
func (c *realCluster) control(where running.Cluster, args ...string) {
	c.Helper()
	out, err := exec.Command(where.Program, append([]string{"--name", where.Name}, args...)...).CombinedOutput()
	if err != nil {
		c.Errorf("%v: %v\n%s", args, err, out)
	}
}

// start starts a node again, and waits until it serves as it did: other tests follow.
func (c *realCluster) start(where running.Cluster, node string) {
	c.Helper()
	c.control(where, "start", "node", node)
	since := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var why error
	for ; ctx.Err() == nil; time.Sleep(time.Second) {
		if why = c.serves(ctx, node, since); why == nil {
			c.Logf("%s serves again after %v", node, time.Since(since).Round(time.Second))
			return
		}
	}
	c.Errorf("%s does not serve again: %v", node, why)
}

// serves says why a node can't be placed on, by what was found out since.
func (c *realCluster) serves(ctx context.Context, node string, since time.Time) error {
	n, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if ready := readiness(n); ready == nil || ready.Status != corev1.ConditionTrue || ready.LastHeartbeatTime.Time.Before(since) || len(n.Spec.Taints) > 0 {
		return errors.New("the node is not ready")
	}
	agents, err := c.client.CoreV1().Pods(DefaultSystemNamespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.Set{labelName: "groundplan", labelComponent: componentSidecar}.String(), FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		return err
	}
	for i := range agents.Items {
		for _, s := range agents.Items[i].Status.ContainerStatuses {
			if agentOf(&agents.Items[i]).ready && s.State.Running != nil && s.State.Running.StartedAt.Time.After(since.Add(-time.Second)) {
				return nil
			}
		}
	}
	return errors.New("its agent is not ready")
}
