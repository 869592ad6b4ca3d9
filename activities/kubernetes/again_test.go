package kubernetes

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// TestTriedAgain has a try of the placing die half way: what it placed counts for the attempt, and what an earlier attempt
// placed doesn't.
func TestTriedAgain(t *testing.T) {
	b := newBench(t, 2, 3, 2)
	place := func(ctx context.Context, attempt int, groups ...string) (stage.Result, error) {
		in := b.stage(pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: groups}}, attempt)
		return b.ground.Schedule(ctx, in, b.report)
	}
	if result, err := place(t.Context(), 1, "g"); err != nil || result.Placed != 3 || result.Kept != 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	usual, stops := b.kubelet, errors.New("the worker stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	b.kubelet = func(p *corev1.Pod, n int) {
		if usual(p, n); p.Labels[labelIndex] == "1" {
			p.Status.Phase = corev1.PodPending
			cancel(stops)
		}
	}
	began := time.Now()
	if _, err := place(ctx, 2, "g", "h"); !errors.Is(err, stops) {
		t.Fatalf("got %v", err)
	}
	died := time.Now()
	b.kubelet = usual
	for _, p := range b.pods() {
		if p.Status.Phase == corev1.PodPending {
			p.Status.Phase = corev1.PodRunning
			if _, err := b.client.CoreV1().Pods(p.Namespace).UpdateStatus(t.Context(), &p, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	result, err := place(t.Context(), 2, "g", "h")
	if err != nil || result.Placed != 2 || result.Kept != 3 {
		t.Errorf("%+v, %v", result, err)
	}
	if result.Started.Before(began) || result.Started.After(died) {
		t.Errorf("the attempt began at %v, and its first try between %v and %v", result.Started, began, died)
	}
	result, err = place(t.Context(), 3, "g", "h")
	if err != nil || result.Placed != 0 || result.Kept != 5 || result.Started.Before(died) {
		t.Errorf("%+v, %v", result, err)
	}
}

// served gives the bench's nodes agents, as the chart does, and takes away the direct way to them.
func (b *bench) served(ready bool, nodes ...string) {
	b.Helper()
	b.ground.options.Dial, b.ground.options.Image = nil, ""
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName}, Data: map[string][]byte{tokenKey: []byte("secret\n")}}
	if _, err := b.client.CoreV1().Secrets(DefaultSystemNamespace).Create(b.Context(), secret, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	for _, node := range nodes {
		p := agentPod("sidecar-"+node, node, ready)
		if err := b.client.Tracker().Create(corev1.SchemeGroupVersion.WithResource("pods"), p, DefaultSystemNamespace); err != nil {
			b.Fatal(err)
		}
	}
}

// agentPod is the pod of a node's agent.
func agentPod(name, node string, ready bool) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: DefaultSystemNamespace, Labels: map[string]string{labelName: "groundplan", labelComponent: componentSidecar}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{
			{Name: "other", Image: "registry/other"},
			{Name: "agent", Image: "registry/groundplan:v1", Ports: []corev1.ContainerPort{{Name: portName, ContainerPort: 4321}}},
		}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady", Message: "containers with unready status: [agent]"}}},
	}
	if ready {
		p.Status.Conditions[0] = corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	}
	return p
}

// checked is what a placement says before it makes anything.
func (b *bench) checked(during func()) string {
	b.Helper()
	in := b.stage(pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: sidecars.Names(b.in)}}, 1)
	s, err := b.ground.open(in.Run, in)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	p := &placing{session: s, report: b.report, since: time.Now(), wanted: seats(in.Run.ID, in.Groups)}
	if during != nil {
		time.AfterFunc(100*time.Millisecond, during)
	}
	why, err := p.check(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return why
}

// TestSidecarsComeLater has nodes and their agents not be ready when a run wants them: it waits for a while, says for what,
// and says why when it has waited in vain.
func TestSidecarsComeLater(t *testing.T) {
	for name, c := range map[string]struct {
		serving []string // nodes with agents, not ready at first
		unready bool     // the nodes themselves aren't ready at first
		comes   bool
		want    string // empty: all is well
		waits   string
	}{
		"agents come to be ready": {serving: []string{"n0", "n1"}, comes: true, waits: "sidecar-n0 on n0 (containers with unready status: [agent])"},
		"nodes come to be ready":  {serving: []string{"n0", "n1"}, unready: true, comes: true, waits: "no sidecar of groundplan is ready"},
		"agents never do": {serving: []string{"n0", "n1"}, waits: "look at its pods",
			want: "no sidecar of groundplan is ready on the cluster: sidecar-n0 on n0 (containers with unready status: [agent]), sidecar-n1 on n1 (containers with unready status: [agent]): look at its pods (kubectl -n groundplan-system get pods -l app.kubernetes.io/component=sidecar) (waited 0s for it)"},
		"there are none": {want: "no sidecar of groundplan is ready on the cluster: look at its pods"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 2, 3)
			b.served(false, c.serving...)
			if c.comes {
				b.ground.limits.ready = time.Minute
			}
			if c.unready {
				b.unready("n0")
				b.unready("n1")
			}
			why := b.checked(func() {
				if !c.comes {
					return
				}
				for _, node := range c.serving {
					b.ready(node)
					p := agentPod("sidecar-"+node, node, true)
					if err := b.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), p, DefaultSystemNamespace); err != nil {
						t.Error(err)
					}
				}
			})
			if c.want == "" && why != "" || !strings.HasPrefix(why, c.want) {
				t.Errorf("got %q, want %q", why, c.want)
			}
			said := false
			for _, p := range b.progress {
				said = said || strings.HasPrefix(p.Note, "waiting up to") && strings.Contains(p.Note, c.waits)
			}
			if said != (c.waits != "") {
				t.Errorf("it said %v while it waited, want %q", b.progress, c.waits)
			}
		})
	}
}

// ready makes a node ready again.
func (b *bench) ready(name string) {
	n, err := b.client.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
	if err == nil {
		n.Status.Conditions[0] = corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue}
		_, err = b.client.CoreV1().Nodes().Update(context.Background(), n, metav1.UpdateOptions{})
	}
	if err != nil {
		b.Error(err)
	}
}

// TestLimitsOfProcessors has pods burst, but where a quota of the namespace counts what limits them.
func TestLimitsOfProcessors(t *testing.T) {
	for name, c := range map[string]struct {
		quota corev1.ResourceList
		limit string
		want  string
	}{
		"no quota":       {nil, "0", ""},
		"of requests":    {corev1.ResourceList{"requests.cpu": resource.MustParse("4")}, "0", ""},
		"of limits":      {corev1.ResourceList{"limits.cpu": resource.MustParse("4")}, "500m", ""},
		"of less limits": {corev1.ResourceList{"limits.cpu": resource.MustParse("1")}, "500m", "limits.cpu: they need 1500m and 1 of 1 are left"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 1, 3)
			b.in.Groups[0].CPU, b.in.Groups[0].Memory = 500, 64<<20
			if c.quota != nil {
				_, err := b.client.CoreV1().ResourceQuotas(DefaultNamespace).Create(t.Context(), &corev1.ResourceQuota{
					ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: c.quota}, Status: corev1.ResourceQuotaStatus{Hard: c.quota},
				}, metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
			}
			result := b.schedule()
			if c.want != "" {
				b.want(result, stage.Invalid, c.want)
				return
			}
			b.want(result, stage.Passed)
			for _, p := range b.pods() {
				r := p.Spec.Containers[0].Resources
				if r.Limits.Cpu().String() != c.limit || r.Requests.Cpu().String() != "500m" || r.Limits.Memory().Cmp(*r.Requests.Memory()) != 0 {
					t.Errorf("%s: %+v", p.Name, r)
				}
			}
		})
	}
}
