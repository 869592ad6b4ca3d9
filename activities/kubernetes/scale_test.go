package kubernetes

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/groundplan/groundplan/activities/kubernetes/simulated"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// fakeTaint keeps off nodes that kwok plays what doesn't know them.
const fakeTaint = "kwok.x-k8s.io/node=fake:NoSchedule"

// BenchmarkGate places pods on nodes that kwok plays (`go run ./internal/cluster scale`), with simulated agents, and sets
// that against a raw Indexed Job of as many pods on the same control plane. It wants GROUNDPLAN_SCALE_KUBECONFIG, and
// takes GROUNDPLAN_SCALE_PODS (1000,3000,10000).
//
//	GROUNDPLAN_SCALE_KUBECONFIG=… go test -run - -bench Gate -benchtime 1x -timeout 1h ./activities/kubernetes
func BenchmarkGate(b *testing.B) {
	path := os.Getenv("GROUNDPLAN_SCALE_KUBECONFIG")
	if path == "" {
		b.Skip("no cluster of fake nodes: set GROUNDPLAN_SCALE_KUBECONFIG")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		b.Fatal(err)
	}
	config.QPS, config.Burst, config.ContentType, config.AcceptContentTypes = 2*DefaultQPS, 4*DefaultQPS, protobuf, protobuf+",application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	pods := os.Getenv("GROUNDPLAN_SCALE_PODS")
	for text := range strings.SplitSeq(first(pods, "1000"), ",") {
		count, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			for range b.N {
				job := jobOf(b, client, count)
				ours, released := groundOf(b, client, count)
				b.ReportMetric(float64(count)/job.Seconds(), "job-pods/s")
				b.ReportMetric(float64(count)/ours.Seconds(), "gate-pods/s")
				b.ReportMetric(job.Seconds()/ours.Seconds(), "of-a-job")
				b.ReportMetric(released.Seconds(), "s-to-release")
				b.ReportMetric(peakMemory(b), "peak-MiB")
			}
		})
	}
}

// jobOf is how long a raw Indexed Job takes until all of its pods run.
func jobOf(b *testing.B, client kubernetes.Interface, count int) time.Duration {
	b.Helper()
	ctx, run := b.Context(), fmt.Sprintf("raw-%d", time.Now().UnixNano())
	m := mold{run: stage.Run{ID: run}, namespace: "default", supervisor: "groundplan", images: map[string]string{"g": "plan"}}
	m.tolerations, _ = ParseTolerations(fakeTaint)
	like := m.pod(seat{group: &pipelines.Group{Name: "g"}})
	like.Spec.Hostname = ""
	n, mode := int32(count), batchv1.IndexedCompletion
	v := see(ctx, client, "default", run)
	defer v.close()
	if err := v.settle(ctx); err != nil {
		b.Fatal(err)
	}
	since := time.Now()
	_, err := client.BatchV1().Jobs("default").Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: run}, Spec: batchv1.JobSpec{
		Parallelism: &n, Completions: &n, CompletionMode: &mode,
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: like.Labels}, Spec: like.Spec},
	}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	waitFor := func(done func(running, there int) bool) {
		for {
			running, there := 0, 0
			for _, p := range v.all() {
				there++
				if p.Running {
					running++
				}
			}
			if done(running, there) {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	waitFor(func(running, _ int) bool { return running >= count })
	took := time.Since(since)
	background := metav1.DeletePropagationBackground
	if err := client.BatchV1().Jobs("default").Delete(ctx, run, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		b.Fatal(err)
	}
	waitFor(func(_, there int) bool { return there == 0 })
	return took
}

// groundOf is how long the ground takes until as many instances are at the gate, and until all are gone again.
func groundOf(b *testing.B, client kubernetes.Interface, count int) (gate, released time.Duration) {
	b.Helper()
	nodes := &simulated.Nodes{}
	defer nodes.Close()
	tolerations, err := ParseTolerations(fakeTaint)
	if err != nil {
		b.Fatal(err)
	}
	ground := New(Options{Home: runs.Home(b.TempDir()), Client: client, Dial: nodes.Dial, Token: simulated.Token, Image: "groundplan", Tolerations: tolerations})
	in := stage.Input{Run: stage.Run{ID: fmt.Sprintf("scale-%d", time.Now().UnixNano()), Ground: "kubernetes"}, Pipeline: "p", Attempt: 1, Deadline: time.Now().Add(15 * time.Minute),
		Groups:    []pipelines.Group{{Name: "g", Artifact: "plan", Instances: count}},
		Artifacts: map[string]stage.Artifact{"plan": {Name: "plan", Image: "plan", Command: []string{"/plan"}}},
		Stage:     pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: []string{"g"}}}}
	quiet := func(stage.Progress) {}
	since := time.Now()
	result, err := ground.Schedule(b.Context(), in, quiet)
	gate = time.Since(since)
	if err != nil || result.Verdict != stage.Passed {
		b.Fatalf("placing: %v, %s", err, result.Reason)
	}
	b.Logf("%d instances at the gate after %v", count, gate.Round(time.Millisecond))
	in.Stage = pipelines.Stage{Name: "main", Kind: pipelines.KindRun, Run: &pipelines.Run{Groups: []string{"g"}, Case: "ok", Success: 1}}
	since = time.Now()
	if result, err = ground.Run(b.Context(), in, quiet); err != nil || result.Verdict != stage.Passed {
		b.Errorf("running: %v, %s", err, result.Reason)
	}
	b.Logf("run in %v", time.Since(since).Round(time.Millisecond))
	since = time.Now()
	if err := ground.Gather(b.Context(), in, quiet); err != nil {
		b.Error(err)
	}
	b.Logf("gathered in %v", time.Since(since).Round(time.Millisecond))
	since = time.Now()
	if err := ground.Release(context.WithoutCancel(b.Context()), in.Run); err != nil {
		b.Fatal(err)
	}
	return gate, time.Since(since)
}

// peakMemory is the largest resident set of this process so far, in MiB.
func peakMemory(b *testing.B) float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("no /proc here")
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return kib / 1024
		}
	}
	return 0
}
