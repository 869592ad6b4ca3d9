package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8s "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/kubernetes"
	"github.com/groundplan/groundplan/activities/kubernetes/simulated"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

// agentsVariable names the socket of simulated nodes: the test binary is groundplan itself then, on these nodes.
const agentsVariable = "GROUNDPLAN_TEST_AGENTS"

func TestMain(m *testing.M) {
	if socket := os.Getenv(agentsVariable); socket != "" {
		a := newApp(os.Stdout, os.Stderr, os.Getenv)
		a.register = onSimulated(socket)
		os.Exit(a.main(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// onSimulated registers what groundplan does, on nodes that another process plays.
func onSimulated(socket string) func(worker.Config, sdkworker.Registry) error {
	return func(config worker.Config, to sdkworker.Registry) error {
		tolerations, err := kubernetes.ParseTolerations(config.KubeTolerations)
		if err != nil {
			return err
		}
		ground := kubernetes.New(kubernetes.Options{
			Home: config.Home, Registry: config.Registry, Tolerations: tolerations, Log: config.Log,
			Dial: simulated.Dialer(socket), Token: simulated.Token, Image: "groundplan",
		})
		workflows.Register(to)
		activities.Register(to, &activities.Activities{
			Home: config.Home, Grounds: map[string]activities.Ground{groundKubernetes: ground},
			Builder: artifacts.New(config.Home.Artifacts()), Versions: worker.Versions(),
		})
		return nil
	}
}

// What a run of 10,000 instances may take: see docs/performance.md.
const (
	mostEvents = 2_000
	mostMemory = 512 // MiB
)

// BenchmarkWhole carries runs of thousands of instances out with all of groundplan: `groundplan dev` with its worker and
// Temporal in one process, `groundplan run` and `groundplan cancel` in others. The API server, the scheduler and the pods are
// real, the nodes are played by kwok (`go run ./internal/cluster scale`) and their agents by this process. One run goes
// to its end; the second is cancelled while its instances run, the third while half of them are placed.
// It wants GROUNDPLAN_SCALE_KUBECONFIG, and takes GROUNDPLAN_SCALE_PODS (1000,3000,10000).
func BenchmarkWhole(b *testing.B) {
	kubeconfig := os.Getenv("GROUNDPLAN_SCALE_KUBECONFIG")
	if kubeconfig == "" {
		b.Skip("no cluster of fake nodes: `go tool task bench:cluster WHOLE=true` makes one")
	}
	pods := os.Getenv("GROUNDPLAN_SCALE_PODS")
	if pods == "" {
		pods = "1000"
	}
	for text := range strings.SplitSeq(pods, ",") {
		count, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			for range b.N {
				newWhole(b, kubeconfig, count).measure()
			}
		})
	}
}

// whole is groundplan as several processes, on a cluster of fake nodes.
type whole struct {
	*testing.B
	count  int
	home   runs.Home
	env    []string
	api    k8s.Interface
	nodes  *simulated.Nodes
	opened atomic.Int64 // instances that have begun to run
	dev    *exec.Cmd
	at     worker.Info
}

func newWhole(b *testing.B, kubeconfig string, count int) *whole {
	b.Helper()
	w := &whole{B: b, count: count, home: runs.Home(filepath.Join(b.TempDir(), "home"))}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	if w.api, err = k8s.NewForConfig(config); err != nil {
		b.Fatal(err)
	}
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	b.Cleanup(images.Close)
	w.env = append(os.Environ(), "GROUNDPLAN_HOME="+string(w.home), "KUBECONFIG="+kubeconfig, agentsVariable+"="+w.play(),
		"GROUNDPLAN_KUBE_TOLERATIONS=kwok.x-k8s.io/node=fake:NoSchedule", "GROUNDPLAN_REGISTRY="+images.Listener.Addr().String())
	w.start()
	return w
}

// play plays the nodes, whose instances measure what those of ping-pong do. It returns the socket.
func (w *whole) play() string {
	w.Helper()
	folder, err := os.MkdirTemp("", "agents") // a socket's path has to be short
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = os.RemoveAll(folder) })
	var results bytes.Buffer
	for _, metric := range []string{"tcp_rtt_seconds", "udp_rtt_seconds"} {
		for i := range 100 {
			fmt.Fprintf(&results, "{\"ts\":%d,\"type\":\"point\",\"name\":%q,\"measures\":{\"value\":%g}}\n", time.Now().UnixNano(), metric, 1e-4*float64(i+1))
		}
	}
	w.nodes = &simulated.Nodes{
		Fate: func(_ string, _ control.Instance, ask control.RunStage) simulated.Fate {
			w.opened.Add(1)
			if ask.Case == "hang" {
				return simulated.Fate{After: time.Hour}
			}
			return simulated.Fate{After: time.Second}
		},
		Outputs: func(node string, _ control.Instance) map[string][]byte {
			return map[string][]byte{"run.out": []byte("written on " + node + "\n"), "results.out": results.Bytes()}
		},
	}
	listener, err := net.Listen("unix", filepath.Join(folder, "agents.sock"))
	if err != nil {
		w.Fatal(err)
	}
	go func() { _ = w.nodes.Serve(listener) }() // until it is closed
	w.Cleanup(func() {
		_ = listener.Close()
		w.nodes.Close()
	})
	return listener.Addr().String()
}

// command is one of groundplan's.
func (w *whole) command(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	cmd, stdout, stderr = exec.Command("/proc/self/exe", args...), new(bytes.Buffer), new(bytes.Buffer)
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, stdout, stderr
	return cmd, stdout, stderr
}

// start starts the services and the worker, and waits until they are up.
func (w *whole) start() {
	w.Helper()
	dev, _, said := w.command("dev", "--output", "json")
	dev.Stdout = nil
	answer, err := dev.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := dev.Start(); err != nil {
		w.Fatal(err)
	}
	w.dev = dev
	w.Cleanup(func() {
		_ = dev.Process.Signal(syscall.SIGTERM)
		if err := dev.Wait(); err != nil {
			w.Errorf("dev ended with %v\n%s", err, said)
		}
	})
	if err := json.NewDecoder(answer).Decode(&w.at); err != nil || w.at.Temporal == "" {
		w.Fatalf("dev is not ready: %v\n%s", err, said)
	}
}

func (w *whole) measure() {
	w.Helper()
	idle := w.memory("VmRSS")
	run := fmt.Sprintf("whole-%d-%d", w.count, time.Now().Unix())
	placed := w.passes(run + "-a")
	events := w.events(run + "-a")
	w.ReportMetric(float64(events), "events")
	running := w.cancelled(run+"-b", func() bool { return w.opened.Load() >= int64(2*w.count) })
	since := time.Now()
	placing := w.cancelled(run+"-c", func() bool { return time.Since(since) > placed/2 })
	w.ReportMetric(running.Seconds(), "s-to-cancel-running")
	w.ReportMetric(placing.Seconds(), "s-to-cancel-placing")
	peak := w.memory("VmHWM")
	w.ReportMetric(idle, "idle-MiB")
	w.ReportMetric(peak, "peak-MiB")
	if events >= mostEvents || peak > mostMemory {
		w.Errorf("a history of %d events and %.0f MiB of worker and Temporal: they may be %d and %d", events, peak, mostEvents-1, mostMemory)
	}
}

// passes has a run go to its end, and returns how long it took to the gate.
func (w *whole) passes(run string) time.Duration {
	w.Helper()
	cmd, stdout, stderr := w.command(w.arguments(run, "ping-pong")...)
	since := time.Now()
	err := cmd.Run()
	took := time.Since(since)
	var record runs.Record
	if err := errors.Join(err, json.Unmarshal(stdout.Bytes(), &record)); err != nil || record.Verdict != stage.Passed {
		w.Fatalf("the run did not pass: %v: %s\n%s", err, record.Reason, stderr)
	}
	var gate time.Duration
	for _, s := range record.Stages {
		w.Logf("%s: %v in %v", run, s.Stage, s.Ended.Sub(s.Started).Round(time.Millisecond))
		switch s.Stage {
		case "place":
			gate = s.Ended.Sub(s.Started)
		case "gather":
			w.ReportMetric(s.Ended.Sub(s.Started).Seconds(), "s-to-collect")
		}
	}
	w.ReportMetric(gate.Seconds(), "s-to-gate")
	w.ReportMetric(float64(w.count)/gate.Seconds(), "gate-pods/s")
	w.ReportMetric(took.Seconds(), "s-in-all")
	w.nothingLeft(run)
	return gate
}

func (w *whole) arguments(run, testCase string) []string {
	return []string{"run", "testdata/scale/pipeline.yaml", "--on", groundKubernetes, "--run-id", run, "--output", "json",
		"--set", "instances=" + strconv.Itoa(w.count), "--set", "case=" + testCase}
}

// cancelled has a run be cancelled once it has come so far, and returns how long that took. Nothing of it is left then.
func (w *whole) cancelled(run string, soFar func() bool) time.Duration {
	w.Helper()
	cmd, _, stderr := w.command(w.arguments(run, "hang")...)
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !soFar() {
		select {
		case err := <-ended:
			w.Fatalf("the run ended before it was cancelled: %v\n%s", err, stderr)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel, _, said := w.command("cancel", run)
	since := time.Now()
	if err := cancel.Run(); err != nil {
		w.Fatalf("cancelling: %v\n%s", err, said)
	}
	took := time.Since(since)
	if err := <-ended; cmd.ProcessState.ExitCode() != exitCancelled {
		w.Errorf("the cancelled run ended with %v\n%s", err, stderr)
	}
	w.nothingLeft(run)
	return took
}

// nothingLeft looks for what a run that is over may have left on the cluster.
func (w *whole) nothingLeft(run string) {
	w.Helper()
	of := metav1.ListOptions{LabelSelector: "groundplan.dev/run=" + run}
	pods, err := w.api.CoreV1().Pods(kubernetes.DefaultNamespace).List(w.Context(), of)
	if err != nil {
		w.Fatal(err)
	}
	owners, err := w.api.CoreV1().ConfigMaps(kubernetes.DefaultNamespace).List(w.Context(), of)
	if err != nil {
		w.Fatal(err)
	}
	if held := w.nodes.Runs(); len(pods.Items)+len(owners.Items)+len(held) > 0 {
		w.Errorf("%s has left %d pods, %d owners, and nodes hold %v", run, len(pods.Items), len(owners.Items), held)
	}
}

// events is the length of a run's history.
func (w *whole) events(run string) int64 {
	w.Helper()
	token, err := os.ReadFile(filepath.Join(string(w.home), "token"))
	if err != nil {
		w.Fatal(err)
	}
	c, err := client.Dial(client.Options{
		HostPort: w.at.Temporal, Namespace: w.at.Namespace, Credentials: client.NewAPIKeyStaticCredentials(string(token)),
		ConnectionOptions: client.ConnectionOptions{TLSDisabled: true},
	})
	if err != nil {
		w.Fatal(err)
	}
	defer c.Close()
	description, err := c.DescribeWorkflowExecution(w.Context(), run, "")
	if err != nil {
		w.Fatal(err)
	}
	return description.GetWorkflowExecutionInfo().GetHistoryLength()
}

// memory is what the process with the worker and Temporal holds, in MiB: VmRSS now, VmHWM at most so far.
func (w *whole) memory(which string) float64 {
	w.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.dev.Process.Pid))
	if err != nil {
		w.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == which+":" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return kib / 1024
		}
	}
	w.Fatalf("no %s in the status of a process", which)
	return 0
}
