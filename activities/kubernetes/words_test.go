package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/groundplan/groundplan/activities/kubernetes/simulated"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

var podsResource = schema.GroupResource{Resource: "pods"}

// TestErrorsOfTheCluster tells what is refused for good from what may pass, and what makes a verdict from what is tried
// again.
func TestErrorsOfTheCluster(t *testing.T) {
	b := newBench(t, 1, 1)
	for name, c := range map[string]struct {
		err     error
		refused string // what refusal says
		passes  bool
		verdict string // the sentence of the verdict; empty: it remains an error
	}{
		"unauthorized":   {err: apierrors.NewUnauthorized("token expired"), refused: "renew the credentials", verdict: "doing it: the cluster refuses: it does not know this user (token expired): renew the credentials of the kubeconfig"},
		"forbidden":      {err: apierrors.NewForbidden(podsResource, "p", errors.New("no")), refused: "forbidden: no", verdict: `doing it: the cluster refuses: pods "p" is forbidden: no`},
		"invalid":        {err: apierrors.NewBadRequest("what is that?"), refused: "what is that?", verdict: "doing it: the cluster refuses: what is that?"},
		"busy":           {err: apierrors.NewTooManyRequests("later", 1), passes: true},
		"timeout":        {err: apierrors.NewServerTimeout(podsResource, "list", 1), passes: true},
		"internal":       {err: apierrors.NewInternalError(errors.New("etcd")), passes: true},
		"unavailable":    {err: apierrors.NewServiceUnavailable("starting"), passes: true},
		"refused":        {err: &url.Error{Op: "Get", URL: "https://x", Err: io.EOF}, passes: true},
		"slow":           {err: fmt.Errorf("listing: %w", context.DeadlineExceeded), passes: true},
		"cancelled":      {err: context.Canceled},
		"gone":           {err: apierrors.NewNotFound(podsResource, "p")},
		"anything":       {err: errors.New("disk on fire")},
		"cluster":        {err: &clusterFault{"there is no cluster"}, verdict: "there is no cluster"},
		"node":           {err: fmt.Errorf("asking: %w", &awayFault{"n1", true, "is no longer part of the cluster"}), verdict: "doing it: node n1 is no longer part of the cluster"},
		"sidecar":        {err: control.Refuse(409, "the run has been released\n"), verdict: "doing it: the run has been released"},
		"nothing at all": {},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refusal(c.err); !strings.Contains(got, c.refused) || (got == "") != (c.refused == "") {
				t.Errorf("it is refused: %q, want %q", got, c.refused)
			}
			if got := passing(c.err); got != c.passes {
				t.Errorf("it passes: %v", got)
			}
			if c.err == nil {
				return
			}
			result, err := b.ground.known(t.Context(), "doing it", c.err)
			if c.verdict == "" && !errors.Is(err, c.err) || c.verdict != "" && (err != nil || result.Verdict != stage.Invalid || result.Reason != c.verdict) {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
	stops := errors.New("the worker stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stops)
	if _, err := b.ground.known(ctx, "doing it", &clusterFault{"x"}); !errors.Is(err, stops) {
		t.Errorf("got %v", err)
	}
}

// TestPatiently asks again as long as that may help.
func TestPatiently(t *testing.T) {
	asked := 0
	answers := func(errs ...error) func() (int, error) {
		asked = 0
		return func() (int, error) {
			asked++
			return asked, errs[min(asked, len(errs))-1]
		}
	}
	busy := apierrors.NewTooManyRequests("later", 0)
	if n, err := patiently(t.Context(), answers(busy, busy, nil)); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	missing := apierrors.NewNotFound(podsResource, "p")
	if _, err := patiently(t.Context(), answers(busy, missing, nil)); !apierrors.IsNotFound(err) || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	late := errors.New("it is late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 150*time.Millisecond, late)
	defer cancel()
	if _, err := patiently(ctx, answers(busy)); !errors.Is(err, late) {
		t.Errorf("got %v", err)
	}
}

// TestRefusedPods puts what the API server says of a pod into words.
func TestRefusedPods(t *testing.T) {
	for says, want := range map[string]string{
		"exceeded quota: small, requested: pods=1": "a quota of the namespace groundplan doesn't allow it: small, requested: pods=1: raise it",
		"failed quota: q: must specify limits.cpu": "wants every instance to say what it asks for (failed quota: q: must specify limits.cpu)",
		`violates PodSecurity "restricted:latest"`: "the namespace groundplan doesn't allow such pods: violates PodSecurity",
		"the webhook is in a bad mood":             "the cluster refuses its pod: the webhook is in a bad mood",
	} {
		b := newBench(t, 1, 2)
		b.admit = func(p *corev1.Pod) error { return apierrors.NewForbidden(podsResource, p.Name, errors.New(says)) }
		b.want(b.schedule(), stage.Invalid, "group g: ", want)
		if left := b.pods(); len(left) > 0 {
			t.Errorf("%d pods were made", len(left))
		}
	}
}

func TestTolerations(t *testing.T) {
	taint := corev1.Taint{Key: "pool", Value: "tests", Effect: corev1.TaintEffectNoSchedule}
	for text, want := range map[string]bool{
		"pool=tests:NoSchedule": true, "pool=tests": true, "pool": true, "pool:NoSchedule": true,
		"pool=other": false, "pool=tests:NoExecute": false, "other": false, "other=tests:NoSchedule": false,
	} {
		all, err := ParseTolerations(text)
		if err != nil {
			t.Fatal(err)
		}
		n := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "soft", Effect: corev1.TaintEffectPreferNoSchedule}, taint}}}
		if got := repelling(n, all); (got == "") != want {
			t.Errorf("%s: repelled by %q", text, got)
		}
	}
}

// TestRoom counts what nodes have left against what is asked for.
func TestRoom(t *testing.T) {
	group := func(name string, count int, milli int64, memory pipelines.Size) pipelines.Group {
		return pipelines.Group{Name: name, Instances: count, CPU: milli, Memory: memory}
	}
	const mib = 1 << 20
	for name, c := range map[string]struct {
		rooms  []room
		groups []pipelines.Group
		want   []string
	}{
		"enough":     {[]room{{"a", 1000, 512 * mib, 10}}, []pipelines.Group{group("g", 10, 100, 16*mib)}, nil},
		"pods":       {[]room{{"a", 9000, 9000 * mib, 4}, {"b", 9000, 9000 * mib, -2}}, []pipelines.Group{group("g", 6, 100, 16*mib)}, []string{"the cluster can't hold 6 instances more on its 2 nodes: there is room for 4 more pods: 2 too few"}},
		"processors": {[]room{{"a", 1000, 9000 * mib, 40}}, []pipelines.Group{group("g", 3, 500, 16*mib)}, []string{"they ask for 1.5 cores and 1 core are free: 0.5 cores too few"}},
		"memory":     {[]room{{"a", 9000, 100 * mib, 40}}, []pipelines.Group{group("g", 2, 100, 64*mib)}, []string{"of memory and", "too little"}},
		"fragments": {[]room{{"a", 9000, 90 * mib, 40}, {"b", 9000, 90 * mib, 40}}, []pipelines.Group{group("large", 1, 100, 100*mib), group("small", 1, 100, 16*mib)},
			[]string{"1 of group large find no node with 0.1 cores and"}},
		"addresses": {[]room{{"a", 1 << 40, 1 << 60, 1 << 40}}, []pipelines.Group{group("g", 66_000, 0, 0)}, []string{"the data subnet has 65000 addresses for 66000 instances: 1000 too few"}},
	} {
		t.Run(name, func(t *testing.T) {
			total := 0
			for _, g := range c.groups {
				total += g.Instances
			}
			f := &site{rooms: c.rooms, all: len(c.rooms)}
			got := f.short(seats("run", c.groups), total)
			for _, part := range c.want {
				if !strings.Contains(got, part) {
					t.Errorf("%q lacks %q", got, part)
				}
			}
			if len(c.want) == 0 && got != "" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestNotInTime has pods be on their way when the stage's time is over: each says how far it has come.
func TestNotInTime(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *corev1.Pod)
		event  string
		want   string
	}{
		"no node":    {func(p *corev1.Pod) { p.Spec.NodeName = "" }, "", "no node was found for it"},
		"its events": {func(*corev1.Pod) {}, "the volume is not there", "on node n0: FailedMount: the volume is not there"},
		"nothing":    {func(*corev1.Pod) {}, "", "its pod has not come to run in the stage's time"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 1, 1)
			b.in.Deadline = time.Now().Add(700 * time.Millisecond)
			b.kubelet = func(p *corev1.Pod, _ int) { p.Spec.NodeName = "n0"; c.change(p) }
			if c.event != "" {
				_, err := b.client.CoreV1().Events(DefaultNamespace).Create(t.Context(), &corev1.Event{
					ObjectMeta: metav1.ObjectMeta{Name: "e"}, Reason: "FailedMount", Message: c.event, InvolvedObject: corev1.ObjectReference{Name: podName("run-1", "g", 0)},
				}, metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
			}
			b.want(b.schedule(), stage.Invalid, "1 of 1 instance could not be placed: g/0: its pod has not come to run in the stage's time", c.want)
			if left := b.pods(); len(left) > 0 {
				t.Errorf("%d pods go on trying", len(left))
			}
			b.release()
		})
	}
}

// TestHalt ends what runs, keeps the places, and is content where nothing was placed.
func TestHalt(t *testing.T) {
	b := newBench(t, 2, 4)
	if err := errors.Join(b.ground.Halt(t.Context(), b.in.Run), b.ground.HaltStage(t.Context(), b.runInput(1))); err != nil {
		t.Error(err)
	}
	b.nodes.Fate = foreverFate
	b.want(b.schedule(), stage.Passed)
	before := b.uidsOf()
	done := make(chan stage.Result, 1)
	go func() {
		result, err := b.ground.Run(b.Context(), b.runInput(1), b.report)
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	b.running(4)
	if err := b.ground.Halt(t.Context(), b.in.Run); err != nil {
		t.Error(err)
	}
	b.want(<-done, stage.Cancelled, "somebody halted the stage")
	if after := b.uidsOf(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("places were not kept: %v, then %v", before, after)
	}
	b.release()
}

// TestExamine looks at a cluster as a run would.
func TestExamine(t *testing.T) {
	b := newBench(t, 2, 1)
	text, err := b.ground.Examine(t.Context())
	if err != nil || !strings.Contains(text, "2 nodes with room for 220 more pods, and a sidecar on each") {
		t.Errorf("%q, %v", text, err)
	}
	b.nodes.Away("n0", true)
	if _, err := b.ground.Examine(t.Context()); err == nil || !strings.Contains(err.Error(), "the sidecar on node n0 can't be reached") {
		t.Errorf("got %v", err)
	}
	b.ground.options.NodeSelector = map[string]string{"pool": "none"}
	if _, err := b.ground.Examine(t.Context()); err == nil || !strings.Contains(err.Error(), "2 without pool=none") {
		t.Errorf("got %v", err)
	}
	b.forbid["create pods"] = true
	if _, err := b.ground.Examine(t.Context()); err == nil || !strings.Contains(err.Error(), "for want of the right to create pods") {
		t.Errorf("got %v", err)
	}
}

// foreverFate is an instance that only ends when it is ended.
func foreverFate(string, control.Instance, control.RunStage) simulated.Fate {
	return simulated.Fate{After: time.Hour}
}
