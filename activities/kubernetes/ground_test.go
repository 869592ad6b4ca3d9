package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/groundplan/groundplan/activities/kubernetes/simulated"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

func TestOneRun(t *testing.T) {
	b := newBench(t, 3, 5, 4)
	result := b.schedule()
	b.want(result, stage.Passed)
	if result.Placed != 9 || result.Kept != 0 {
		t.Errorf("placed %d and kept %d of 9", result.Placed, result.Kept)
	}
	before := b.uidsOf()
	if again := b.schedule(); again.Placed != 0 || again.Kept != 9 {
		t.Errorf("the second time placed %d and kept %d of 9", again.Placed, again.Kept)
	}
	if after := b.uidsOf(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("pods were made anew: %v, %v", before, after)
	}
	b.want(b.network(), stage.Passed)
	result = b.run(b.runInput(1))
	b.want(result, stage.Passed)
	if result.Outcomes["g"].Succeeded != 5 || result.Outcomes["h"].Succeeded != 4 {
		t.Errorf("outcomes: %+v", result.Outcomes)
	}
	if rows := b.lines("stages/main.jsonl"); rows != 9 {
		t.Errorf("%d rows of 9 instances right after the stage", rows)
	}
	b.want(b.run(b.runInput(1)), stage.Passed) // whoever asks about that attempt again
	for range 2 {
		if err := b.ground.Gather(t.Context(), b.in, b.report); err != nil {
			t.Fatal(err)
		}
	}
	if rows := b.lines("stages/main.jsonl"); rows != 9 {
		t.Errorf("%d rows of 9 instances after it was gathered twice", rows)
	}
	if events := b.lines("events.jsonl"); events != 3 {
		t.Errorf("%d events of 3 nodes", events)
	}
	for range 2 {
		b.release()
	}
	for _, name := range []string{"outputs/g/4/run.out", "outputs/h/0/run.out", "nodes/n0.log"} {
		if _, err := os.Stat(filepath.Join(string(b.folder), name)); err != nil {
			t.Error(err)
		}
	}
}

func (b *bench) lines(name string) int {
	data, err := os.ReadFile(filepath.Join(string(b.folder), name))
	if err != nil {
		b.Error(err)
	}
	return strings.Count(string(data), "\n")
}

// TestEveryNodeKnowsAll compares what the nodes were told: the same peers, every slot once, and one lead.
func TestEveryNodeKnowsAll(t *testing.T) {
	b := newBench(t, 3, 7)
	b.want(b.schedule(), stage.Passed)
	slots, leads := map[int]string{}, 0
	var first []control.Peer
	for _, name := range []string{"n0", "n1", "n2"} {
		ask, ok := b.nodes.Placement(name, "run-1")
		if !ok {
			t.Fatalf("%s was asked for nothing", name)
		}
		for _, pod := range ask.Node.Pods {
			if other, twice := slots[pod.Slot]; twice {
				t.Errorf("slot %d is on %s and %s", pod.Slot, other, name)
			}
			slots[pod.Slot] = name
		}
		if ask.Node.Lead {
			leads++
			if slots[0] != name {
				t.Errorf("%s leads and hasn't the first slot", name)
			}
		}
		if first == nil {
			first = ask.Node.Nodes
		}
		if fmt.Sprint(first) != fmt.Sprint(ask.Node.Nodes) {
			t.Errorf("%s sees %v, others %v", name, ask.Node.Nodes, first)
		}
		if ask.All[0].Program != "/plan/plan" {
			t.Errorf("the program is %q", ask.All[0].Program)
		}
	}
	if len(slots) != 7 || leads != 1 || len(first) != 3 {
		t.Errorf("%d slots, %d leads, %d peers", len(slots), leads, len(first))
	}
}

// TestOneGroupsImageIsMissing is a placement of which one group can't be pulled; mended, only its pods are made.
func TestOneGroupsImageIsMissing(t *testing.T) {
	b := newBench(t, 2, 3, 2)
	usual := b.kubelet
	b.kubelet = func(p *corev1.Pod, n int) {
		usual(p, n)
		if p.Labels[labelGroup] == "h" {
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: containerName, Image: "registry/h:1", State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: `rpc error: code = NotFound desc = failed to pull and unpack image "registry/h:1": failed to resolve reference "registry/h:1": registry/h:1: not found`},
			}}}}
		}
	}
	result := b.schedule()
	b.want(result, stage.Invalid, "2 of 5 instances could not be placed: h/0, h/1: the image registry/h:1 can't be pulled: not found")
	before := b.uidsOf()
	if len(before) != 3 {
		t.Errorf("of 5 pods are left: %v", before)
	}
	b.kubelet = usual
	result = b.schedule()
	b.want(result, stage.Passed)
	if result.Placed != 2 || result.Kept != 3 {
		t.Errorf("placed %d and kept %d", result.Placed, result.Kept)
	}
	after := b.uidsOf()
	for name, uid := range before {
		if after[name] != uid {
			t.Errorf("%s was made anew", name)
		}
	}
	b.release()
}

// TestRefusals are placements that can't be, each with a sentence and nothing left behind.
func TestRefusals(t *testing.T) {
	quota := func(b *bench) {
		_, err := b.client.CoreV1().ResourceQuotas(DefaultNamespace).Create(b.Context(), &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "small", Namespace: DefaultNamespace},
			Status:     corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{"pods": resource.MustParse("3")}, Used: corev1.ResourceList{"pods": resource.MustParse("1")}},
		}, metav1.CreateOptions{})
		if err != nil {
			b.Fatal(err)
		}
	}
	pods := schema.GroupResource{Resource: "pods"}
	for name, c := range map[string]struct {
		change func(b *bench)
		want   string
	}{
		"no permission":          {func(b *bench) { b.forbid["create pods"] = true }, "for want of the right to create pods: ask for the chart's role"},
		"a quota":                {quota, "the quota small of the namespace groundplan doesn't allow 4 instances more: pods: they need 4 and 2 of 3 are left: 2 too little: raise it"},
		"a selector for nothing": {func(b *bench) { b.ground.options.NodeSelector = map[string]string{"pool": "x"} }, "there is no node for instances on the cluster: of 2 nodes, 2 without pool=x"},
		"no room for pods":       {func(b *bench) { b.in.Groups[0].Instances = 300 }, "the cluster can't hold 300 instances more on its 2 nodes: there is room for 220 more pods: 80 too few"},
		"no memory":              {func(b *bench) { b.in.Groups[0].Memory = 64 << 30 }, "they ask for 256.1 GiB of memory and 32.0 GiB are free: 224.1 GiB too little"},
		"no cores":               {func(b *bench) { b.in.Groups[0].CPU = 5000 }, "they ask for 20 cores and 16 cores are free: 4 cores too few"},
		"no node large enough":   {func(b *bench) { b.in.Groups[0].Memory, b.in.Groups[0].Instances = 9<<30, 3; b.addPod("n0", "4Gi") }, "1 of group g find no node with"},
		"PodSecurity": {func(b *bench) {
			b.admit = func(p *corev1.Pod) error {
				return apierrors.NewForbidden(pods, p.Name, errors.New(`violates PodSecurity "restricted:latest": hostPath volumes`))
			}
		}, `group g: the namespace groundplan doesn't allow such pods: violates PodSecurity "restricted:latest": hostPath volumes`},
		"all nodes unready": {func(b *bench) { b.unready("n0"); b.unready("n1") }, "of 2 nodes, 2 not ready"},
		"another ground's artifact": {func(b *bench) {
			b.in.Artifacts = map[string]stage.Artifact{"plan": {Path: "/bin/sh"}}
		}, "was not made an image"},
		"nothing fits for long": {func(b *bench) {
			b.kubelet = func(p *corev1.Pod, _ int) {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/2 nodes are available: 2 Too many pods."}}
			}
		}, "4 of 4 instances could not be placed: g/0, g/1, and 2 more: no node takes it: 0/2 nodes are available: 2 Too many pods"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 2, 4)
			c.change(b)
			b.want(b.schedule(), stage.Invalid, c.want)
			if left := b.pods(); len(left) > 0 {
				t.Errorf("%d pods are left", len(left))
			}
			b.release()
		})
	}
}

// addPod puts somebody else's pod on a node.
func (b *bench) addPod(node, memory string) {
	b.Helper()
	err := b.client.Tracker().Create(corev1.SchemeGroupVersion.WithResource("pods"), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "default"},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}}}}}}, "default")
	if err != nil {
		b.Fatal(err)
	}
}

// TestFailuresOverNodes has instances fail on two nodes: the counts are over both, and so is failFast.
func TestFailuresOverNodes(t *testing.T) {
	b := newBench(t, 2, 6)
	b.nodes.Fate = func(_ string, i control.Instance, ask control.RunStage) simulated.Fate {
		if i.Index < 2 {
			return simulated.Fate{Outcome: control.OutcomeFailed, Reason: "reported failure: no", After: time.Duration(10+500*(1-i.Index)) * time.Millisecond}
		}
		if ask.FailFast {
			return simulated.Fate{After: time.Hour}
		}
		return simulated.Fate{}
	}
	b.want(b.schedule(), stage.Passed)
	b.want(b.run(b.runInput(1)), stage.Failed, "2 of 6 instances did not succeed (g/0, g/1); g/1: reported failure: no")
	enough := b.runInput(2)
	enough.Stage.Run.Success = 0.6
	if result := b.run(enough); result.Verdict != stage.Passed || len(result.Notes) != 1 {
		t.Errorf("%+v", result)
	}
	fast := b.runInput(3)
	fast.Stage.Run.FailFast, fast.Stage.Run.Success = true, 0.8 // one of six may
	result := b.run(fast)
	b.want(result, stage.Failed, "ended at the first failure (failFast) while 4 of 6 instances were running")
	b.want(b.run(fast), stage.Failed, "ended at the first failure (failFast)")
	b.release()
}

// TestSidecarAway cuts a node off for a while, in the middle of a stage.
func TestSidecarAway(t *testing.T) {
	b := newBench(t, 2, 4)
	b.nodes.Fate = func(string, control.Instance, control.RunStage) simulated.Fate {
		return simulated.Fate{After: 500 * time.Millisecond}
	}
	b.want(b.schedule(), stage.Passed)
	done := make(chan stage.Result, 1)
	go func() {
		result, err := b.ground.Run(b.Context(), b.runInput(1), b.report)
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	b.running(4)
	b.nodes.Away("n1", true)
	time.Sleep(400 * time.Millisecond)
	b.nodes.Away("n1", false)
	b.want(<-done, stage.Passed)
}

// TestNodeIsLost has a node die: the stage says which instances were lost, and the next attempt places only those.
func TestNodeIsLost(t *testing.T) {
	b := newBench(t, 3, 6)
	b.nodes.Fate = func(_ string, _ control.Instance, ask control.RunStage) simulated.Fate {
		if ask.Case == "long" {
			return simulated.Fate{After: time.Hour}
		}
		return simulated.Fate{}
	}
	b.want(b.schedule(), stage.Passed)
	b.want(b.network(), stage.Passed)
	onLost := map[string]bool{}
	for _, p := range b.pods() {
		onLost[p.Name] = p.Spec.NodeName == "n1"
	}
	before := b.uidsOf()
	in := b.runInput(1)
	in.Stage.Run.Case = "long"
	done := make(chan stage.Result, 1)
	go func() {
		result, err := b.ground.Run(b.Context(), in, b.report)
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	b.running(6)
	b.nodes.Away("n1", true)
	b.unready("n1")
	select {
	case result := <-done:
		b.want(result, stage.Invalid, "node n1 has not been ready for 1m", "Kubelet stopped posting node status", "2 instances were lost (g/")
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
	usual := b.kubelet
	b.kubelet = func(p *corev1.Pod, n int) { usual(p, n); p.Spec.NodeName = "n2" }
	var asked atomic.Int64
	b.nodes.Network = func(string, control.Network) control.NetworkReply { asked.Add(1); return control.NetworkReply{} }
	b.want(b.run(b.runInput(2)), stage.Passed)
	if asked.Load() == 0 {
		t.Error("the new placement was not given the network")
	}
	for name, uid := range b.uidsOf() {
		if anew := before[name] != uid; anew != onLost[name] {
			t.Errorf("%s was made anew: %v; its node was lost: %v", name, anew, onLost[name])
		}
	}
	b.nodes.Forget("n1")
	b.release()
}

// TestCancel ends what a stage runs on every node, within the time that is asked for.
func TestCancel(t *testing.T) {
	b := newBench(t, 3, 9)
	b.nodes.Fate = func(string, control.Instance, control.RunStage) simulated.Fate {
		return simulated.Fate{After: time.Hour}
	}
	b.want(b.schedule(), stage.Passed)
	ctx, cancel := context.WithCancelCause(t.Context())
	in, left := b.runInput(1), errors.New("somebody cancelled it")
	done := make(chan error, 1)
	go func() {
		_, err := b.ground.Run(ctx, in, b.report)
		done <- err
	}()
	b.running(9)
	cancel(left)
	if err := <-done; !errors.Is(err, left) {
		t.Errorf("got %v", err)
	}
	if err := b.ground.HaltStage(t.Context(), in); err != nil {
		t.Error(err)
	}
	b.want(b.run(in), stage.Cancelled, "somebody halted the stage")
	b.release()
}

// TestNetworkOverNodes has what nodes say of a network come together.
func TestNetworkOverNodes(t *testing.T) {
	b := newBench(t, 3, 3)
	b.want(b.schedule(), stage.Passed)
	proof := control.NetworkReply{Summary: "3 links are as asked", Pairs: 3, Proof: &control.Proof{}}
	b.nodes.Network = func(node string, _ control.Network) control.NetworkReply {
		if ask, _ := b.nodes.Placement(node, "run-1"); ask.Node.Lead {
			return proof
		}
		return control.NetworkReply{}
	}
	result := b.network()
	b.want(result, stage.Passed)
	if !slices.Equal(result.Notes, []string{"3 links are as asked"}) {
		t.Errorf("notes: %q", result.Notes)
	}
	proof.Faults, proof.Proof.Pairs = 1, []control.Pair{{From: "g/0", To: "g/1", Fault: "latency 62ms instead of 50ms"}}
	b.want(b.network(), stage.Invalid, "1 of 3 links that were probed is not as asked: g/0 → g/1: latency 62ms instead of 50ms")
	b.nodes.Network = func(node string, _ control.Network) control.NetworkReply {
		if node == "n2" {
			return control.NetworkReply{Refused: "there is no nftables"}
		}
		return proof
	}
	b.want(b.network(), stage.Invalid, "the data network can't be set: node n2: there is no nftables")
}

func TestNoCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	b := newBench(t, 1, 1)
	b.ground.options.Client = nil
	b.want(b.schedule(), stage.Invalid, "there is no cluster to run on")
	in := b.in
	in.Stage = pipelines.Stage{Name: "gather", Kind: pipelines.KindCollect, Collect: &pipelines.Collect{}}
	if err := errors.Join(b.ground.Gather(t.Context(), in, b.report), b.ground.Halt(t.Context(), in.Run), b.ground.Release(t.Context(), in.Run)); err != nil {
		t.Error(err)
	}
}
