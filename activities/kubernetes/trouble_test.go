package kubernetes

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/groundplan/groundplan/internal/golden"
)

func waitingFor(reason, message string) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
		{Name: containerName, Image: "registry.example/peer:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}},
	}}
}

func endedWith(phase corev1.PodPhase, name, reason string, status int32, message string) corev1.PodStatus {
	s := corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: status, Reason: reason, Message: message}}}
	if name == containerName {
		return corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{s}}
	}
	return corev1.PodStatus{Phase: phase, InitContainerStatuses: []corev1.ContainerStatus{s}}
}

// TestTroubles compares what is said of pods that don't run, and how long it is hoped that they will, with
// testdata/troubles.golden.
func TestTroubles(t *testing.T) {
	unschedulable := corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available: 3 Insufficient memory. no new claims to deallocate, preemption: 0/3 nodes are available."},
	}}
	var got strings.Builder
	for _, c := range []struct {
		name   string
		status corev1.PodStatus
	}{
		{"on its way", waitingFor("ContainerCreating", "")},
		{"running", corev1.PodStatus{Phase: corev1.PodRunning}},
		{"fits nowhere", unschedulable},
		{"no such image", waitingFor("ErrImagePull", `failed to pull and unpack image "registry.example/peer:1": failed to resolve reference "registry.example/peer:1": registry.example/peer:1: not found`)},
		{"no such image, by gRPC", waitingFor("ErrImagePull", `rpc error: code = NotFound desc = failed to pull and unpack image "registry.example/peer:1": failed to resolve reference "registry.example/peer:1": registry.example/peer:1: not found`)},
		{"not allowed", waitingFor("ImagePullBackOff", `Back-off pulling image "registry.example/peer:1": ErrImagePull: failed to pull and unpack image "registry.example/peer:1": failed to resolve reference "registry.example/peer:1": pull access denied, repository does not exist or may require authorization`)},
		{"registry away", waitingFor("ErrImagePull", `rpc error: code = Unknown desc = failed to pull and unpack image "registry.example/peer:1": failed to do request: Head "https://registry.example/v2/peer/manifests/1": dial tcp 10.0.0.1:443: connect: connection refused`)},
		{"back-off without more", waitingFor("ImagePullBackOff", `Back-off pulling image "registry.example/peer:1"`)},
		{"a name that is none", waitingFor("InvalidImageName", `Failed to apply default image tag "Peer:": couldn't parse image name`)},
		{"configuration", waitingFor("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")},
		{"no such program", waitingFor("CreateContainerError", "exec: \"/groundplan/supervisor\": no such file.")},
		{"evicted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. "}},
		{"refused by the kubelet", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfpods", Message: "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110"}},
		{"out of memory", endedWith(corev1.PodFailed, containerName, "OOMKilled", 137, "")},
		{"ended", endedWith(corev1.PodFailed, containerName, "Error", 2, "")},
		{"ended well", endedWith(corev1.PodSucceeded, containerName, "Completed", 0, "")},
		{"no supervisor", endedWith(corev1.PodFailed, "supervisor", "StartError", 128, "exec: \"/supervisor\": stat /supervisor: no such file or directory")},
		{"lost without a word", corev1.PodStatus{Phase: corev1.PodFailed}},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: containerName, Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("80Mi")},
		}}}}, Status: c.status}
		trouble := troubleOf(p, trouble{}, time.Now())
		fmt.Fprintf(&got, "%s\n\t%s [%s, %v, ended %v]\n", c.name, trouble.Text, trouble.Reason, trouble.Patience, trouble.Ended)
	}
	golden.Compare(t, "testdata/troubles.golden", got.String())
}

// TestPullsThatFailAgain has an image fail to be pulled for a reason that may pass, twice.
func TestPullsThatFailAgain(t *testing.T) {
	start, away := time.Now(), `dial tcp 10.0.0.1:443: connect: connection refused`
	var last trouble
	for _, step := range []struct {
		at     time.Duration
		status corev1.PodStatus
		final  bool
	}{
		{0, waitingFor("ErrImagePull", away), false},
		{time.Second, waitingFor("ImagePullBackOff", `Back-off pulling image "x"`), false},
		{2 * time.Second, waitingFor("ImagePullBackOff", `Back-off pulling image "x"`), false},
		{10 * time.Second, waitingFor("ErrImagePull", away), true},
		{11 * time.Second, waitingFor("ContainerCreating", ""), false},
		{12 * time.Second, corev1.PodStatus{Phase: corev1.PodRunning}, false},
	} {
		now := start.Add(step.at)
		last = troubleOf(&corev1.Pod{Status: step.status}, last, now)
		if last.final(now) != step.final {
			t.Errorf("after %v: final is %v: %+v", step.at, last.final(now), last)
		}
		if step.at == 2*time.Second && !strings.Contains(last.Text, "connection refused") {
			t.Errorf("the back-off has taken the reason away: %s", last.Text)
		}
	}
	late := troubleOf(&corev1.Pod{Status: waitingFor("ErrImagePull", away)}, trouble{}, start)
	if late.final(start.Add(pullsFor-time.Second)) || !late.final(start.Add(pullsFor)) {
		t.Error("a pull that hangs is given up too soon, or never")
	}
}
