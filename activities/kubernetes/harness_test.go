package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/groundplan/groundplan/activities/kubernetes/simulated"
	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// bench is a ground on a cluster that isn't there: an API server in memory, kubelets that are one function, and simulated
// nodes.
type bench struct {
	*testing.T
	client *fake.Clientset
	nodes  *simulated.Nodes
	ground *Ground
	in     stage.Input
	folder runs.Folder

	mu       sync.Mutex
	attempts int
	made     int
	uids     int
	forbid   map[string]bool            // verb resource
	kubelet  func(p *corev1.Pod, n int) // gives a new pod its node and status; n counts pods
	admit    func(p *corev1.Pod) error
	progress []stage.Progress
}

// newBench has so many nodes, and groups g, h… of so many instances.
func newBench(t *testing.T, nodes int, counts ...int) *bench {
	b := &bench{T: t, client: fake.NewClientset(), nodes: &simulated.Nodes{}, forbid: map[string]bool{}}
	t.Cleanup(b.nodes.Close)
	for i := range nodes {
		b.addNode(fmt.Sprintf("n%d", i), "8", "16Gi", "110")
	}
	b.kubelet = func(p *corev1.Pod, n int) {
		p.Spec.NodeName = fmt.Sprintf("n%d", n%nodes)
		p.Status.Phase = corev1.PodRunning
	}
	b.client.PrependReactor("create", "selfsubjectaccessreviews", b.review)
	b.client.PrependReactor("create", "pods", b.create)
	b.client.PrependReactor("delete-collection", "pods", b.deleteCollection)
	home := runs.Home(t.TempDir())
	b.ground = New(Options{Home: home, Client: b.client, Dial: b.nodes.Dial, Token: simulated.Token, Image: "registry/groundplan@sha256:00"})
	b.ground.limits = limits{answers: 2 * time.Second, gone: 100 * time.Millisecond, looks: 50 * time.Millisecond, ready: 300 * time.Millisecond, asks: 20 * time.Millisecond, home: 5 * time.Second}
	b.in = stage.Input{Run: stage.Run{ID: "run-1", Ground: "kubernetes"}, Pipeline: "p", Seed: 7, Attempt: 1, Deadline: time.Now().Add(time.Minute),
		Artifacts: map[string]stage.Artifact{"plan": {Name: "plan", Image: "registry/plan@sha256:11", Command: []string{"/plan/plan"}}}}
	for i, count := range counts {
		b.in.Groups = append(b.in.Groups, pipelines.Group{Name: string(rune('g' + i)), Artifact: "plan", Instances: count, Testground: true})
	}
	b.folder = home.Run("run-1")
	return b
}

func (b *bench) addNode(name, cpu, memory, pods string) {
	b.Helper()
	free := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse(pods)}
	_, err := b.client.CoreV1().Nodes().Create(b.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
		Status:     corev1.NodeStatus{Allocatable: free, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
}

// unready makes a node one whose kubelet is gone.
func (b *bench) unready(name string) {
	b.Helper()
	n, err := b.client.CoreV1().Nodes().Get(b.Context(), name, metav1.GetOptions{})
	if err != nil {
		b.Fatal(err)
	}
	n.Status.Conditions[0] = corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Message: "Kubelet stopped posting node status.", LastTransitionTime: metav1.NewTime(time.Now().Add(-time.Minute))}
	if _, err := b.client.CoreV1().Nodes().Update(b.Context(), n, metav1.UpdateOptions{}); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) review(action clienttesting.Action) (bool, runtime.Object, error) {
	review := action.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
	a := review.Spec.ResourceAttributes
	b.mu.Lock()
	defer b.mu.Unlock()
	review.Status.Allowed = !b.forbid[a.Verb+" "+a.Resource]
	return true, review, nil
}

// create is the API server's admission, the scheduler and the kubelet.
func (b *bench) create(action clienttesting.Action) (bool, runtime.Object, error) {
	p := action.(clienttesting.CreateAction).GetObject().(*corev1.Pod).DeepCopy()
	dry := len(action.(clienttesting.CreateActionImpl).CreateOptions.DryRun) > 0
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.admit != nil {
		if err := b.admit(p); err != nil {
			return true, nil, err
		}
	}
	if dry {
		return true, p, nil
	}
	b.uids++
	p.UID = types.UID(fmt.Sprintf("uid-%d", b.uids))
	p.CreationTimestamp = metav1.Now()
	p.Status.Phase = corev1.PodPending
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	if err := b.client.Tracker().Create(pods, p.DeepCopy(), p.Namespace); err != nil {
		return true, nil, err
	}
	later, n := p.DeepCopy(), b.made
	b.made++
	b.kubelet(later, n)
	return true, p, b.client.Tracker().Update(pods, later, p.Namespace)
}

func (b *bench) deleteCollection(action clienttesting.Action) (bool, runtime.Object, error) {
	held, err := b.client.Tracker().List(corev1.SchemeGroupVersion.WithResource("pods"), corev1.SchemeGroupVersion.WithKind("Pod"), action.GetNamespace())
	if err != nil {
		return true, nil, err
	}
	for _, p := range held.(*corev1.PodList).Items {
		_ = b.client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), p.Namespace, p.Name) // it may be gone
	}
	return true, nil, nil
}

// pods are the run's.
func (b *bench) pods() []corev1.Pod {
	list, err := b.client.CoreV1().Pods(DefaultNamespace).List(context.Background(), metav1.ListOptions{LabelSelector: ofRun("run-1")})
	if err != nil {
		b.Error(err)
		return nil
	}
	return list.Items
}

// uidsOf are the pods' UIDs by their names.
func (b *bench) uidsOf() map[string]string {
	all := map[string]string{}
	for _, p := range b.pods() {
		all[p.Name] = string(p.UID)
	}
	return all
}

func (b *bench) report(p stage.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress = append(b.progress, p)
}

// running waits until so many instances were seen to run at once.
func (b *bench) running(count int) {
	b.Helper()
	for range 1000 {
		b.mu.Lock()
		seen := slices.ContainsFunc(b.progress, func(p stage.Progress) bool { return p.Running == count })
		b.mu.Unlock()
		if seen {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatalf("%d instances never ran", count)
}

func (b *bench) stage(s pipelines.Stage, attempt int) stage.Input {
	in := b.in
	in.Stage, in.Attempt = s, attempt
	return in
}

// schedule is one attempt more to place everything.
func (b *bench) schedule() stage.Result {
	b.Helper()
	b.attempts++
	in := b.stage(pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: sidecars.Names(b.in)}}, b.attempts)
	result, err := b.ground.Schedule(b.Context(), in, b.report)
	if err != nil {
		b.Fatalf("scheduling: %v", err)
	}
	return result
}

func (b *bench) network() stage.Result {
	b.Helper()
	in := b.stage(pipelines.Stage{Name: "wan", Kind: pipelines.KindNetwork, Network: &pipelines.Network{Access: pipelines.AccessNone}}, 1)
	result, err := b.ground.Network(b.Context(), in, b.report)
	if err != nil {
		b.Fatalf("setting the network: %v", err)
	}
	return result
}

func (b *bench) runInput(attempt int) stage.Input {
	return b.stage(pipelines.Stage{Name: "main", Kind: pipelines.KindRun, Timeout: pipelines.Duration(time.Minute),
		Run: &pipelines.Run{Groups: sidecars.Names(b.in), Case: "ok", Success: 1}}, attempt)
}

func (b *bench) run(in stage.Input) stage.Result {
	b.Helper()
	result, err := b.ground.Run(b.Context(), in, b.report)
	if err != nil {
		b.Fatalf("running: %v", err)
	}
	return result
}

func (b *bench) release() {
	b.Helper()
	if err := b.ground.Release(b.Context(), b.in.Run); err != nil {
		b.Fatalf("releasing: %v", err)
	}
	if left := b.pods(); len(left) > 0 {
		b.Errorf("%d pods are left", len(left))
	}
	if left := b.nodes.Runs(); len(left) > 0 {
		b.Errorf("nodes still hold %v", left)
	}
}

// want compares a verdict, and what its reason holds.
func (b *bench) want(result stage.Result, verdict stage.Verdict, reason ...string) {
	b.Helper()
	if result.Verdict != verdict {
		b.Errorf("got %s, want %s: %s", result.Verdict, verdict, result.Reason)
	}
	for _, part := range reason {
		if !strings.Contains(result.Reason, part) {
			b.Errorf("the reason lacks %q: %s", part, result.Reason)
		}
	}
	if len(reason) == 0 && result.Reason != "" {
		b.Errorf("there is a reason: %s", result.Reason)
	}
}
