package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// forwarder is an API server that knows nothing but the agents' pods, their secret, and how to forward ports to them. It
// speaks SPDY only, as old ones do: whoever tries a WebSocket first has to fall back.
type forwarder struct {
	*testing.T
	server *httptest.Server

	mu    sync.Mutex
	pods  []corev1.Pod
	token string                    // empty: there is no secret
	serve map[string]func(net.Conn) // what listens behind a pod's port; without one nobody does
	conns map[httpstream.Connection]bool
	ports []string // that were asked for
	lists int
}

func newForwarder(t *testing.T, pods ...*corev1.Pod) *forwarder {
	f := &forwarder{T: t, token: "secret\n", serve: map[string]func(net.Conn){}, conns: map[httpstream.Connection]bool{}}
	for _, p := range pods {
		f.pods = append(f.pods, *p)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/secrets/{name}", f.secret)
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/pods", f.list)
	mux.HandleFunc("/api/v1/namespaces/{namespace}/pods/{pod}/portforward", f.forward)
	f.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		f.cut()
		f.server.Close()
	})
	return f
}

// reach is the way to the agents by this API server.
func (f *forwarder) reach() *reach {
	f.Helper()
	config := &rest.Config{Host: f.server.URL}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		f.Fatal(err)
	}
	r := newReach(&cluster{client: client, config: config, name: "the cluster", system: DefaultSystemNamespace}, Options{})
	f.Cleanup(r.close)
	return r
}

func write(w http.ResponseWriter, status int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(object) // whoever has gone doesn't listen
}

func (f *forwarder) secret(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.token {
	case "":
		write(w, http.StatusNotFound, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
	case "forbidden":
		write(w, http.StatusForbidden, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: 403})
	default:
		write(w, http.StatusOK, corev1.Secret{TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, Data: map[string][]byte{tokenKey: []byte(f.token)}})
	}
}

func (f *forwarder) list(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	write(w, http.StatusOK, corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: f.pods})
}

// forward is the API server's and the kubelet's part in a port-forward.
func (f *forwarder) forward(w http.ResponseWriter, r *http.Request) {
	pod := r.PathValue("pod")
	f.mu.Lock()
	there := slices.ContainsFunc(f.pods, func(p corev1.Pod) bool { return p.Name == pod })
	f.mu.Unlock()
	if !there {
		write(w, http.StatusNotFound, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404, Message: "pods " + pod + " not found"})
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), spdy.HeaderSpdy31) {
		w.WriteHeader(http.StatusBadRequest) // WebSockets: never heard of
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		f.Error(err)
		return
	}
	streams := make(chan httpstream.Stream, 16)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return
	}
	f.mu.Lock()
	f.conns[conn] = true
	f.mu.Unlock()
	failures := map[string]httpstream.Stream{} // by request
	for {
		select {
		case <-conn.CloseChan():
			return
		case s := <-streams:
			id := s.Headers().Get(corev1.PortForwardRequestIDHeader)
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				failures[id] = s
				continue
			}
			go f.connect(pod, s, failures[id])
		}
	}
}

// connect has a pair of streams served by what listens behind the pod's port.
func (f *forwarder) connect(pod string, data, failure httpstream.Stream) {
	f.mu.Lock()
	f.ports = append(f.ports, data.Headers().Get(corev1.PortHeader))
	serve := f.serve[pod]
	f.mu.Unlock()
	if serve == nil {
		_, _ = io.WriteString(failure, "error forwarding port: dial tcp4 127.0.0.1:4321: connect: connection refused")
		_ = failure.Close()
		_ = data.Close()
		return
	}
	here, there := net.Pipe()
	go serve(there)
	go func() {
		_, _ = io.Copy(here, data)
		_ = here.Close()
	}()
	_, _ = io.Copy(data, here)
	_ = data.Close()
	_ = failure.Close()
}

// cut breaks all connections, as an API server that is killed does.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		_ = conn.Close()
	}
	clear(f.conns)
}

// change changes what the API server knows.
func (f *forwarder) change(to func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to()
}

// answering answers each line with the name of whoever answers and the line.
func answering(name string) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			if _, err := fmt.Fprintf(conn, "%s: %s\n", name, lines.Text()); err != nil {
				return
			}
		}
	}
}

// says is what the agent of a node answers to a line.
func says(ctx context.Context, r *reach, node, line string) (string, error) {
	conn, err := r.dial(ctx, node)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// TestReach goes the way to agents through a port-forward, and finds it again whatever happens to it.
func TestReach(t *testing.T) {
	f := newForwarder(t, agentPod("old", "n0", true), agentPod("silent", "n1", true))
	f.serve["old"] = answering("old")
	r := f.reach()
	if err := r.ready(t.Context()); err != nil || r.token != "secret" {
		t.Fatalf("the token is %q, %v", r.token, err)
	}
	say := func(want string) {
		t.Helper()
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				line := fmt.Sprint("line ", i)
				if got, err := says(t.Context(), r, "n0", line); err != nil || got != want+": "+line {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
		all.Wait()
	}
	say("old")
	if len(f.conns) != 1 || slices.ContainsFunc(f.ports, func(port string) bool { return port != "4321" }) {
		t.Errorf("%d connections to the ports %v: one to the port named %s is wanted", len(f.conns), f.ports, portName)
	}
	f.cut()
	time.Sleep(50 * time.Millisecond) // until this side has heard of it
	say("old")

	// Its pod is replaced by one of another name.
	f.change(func() {
		f.pods[0] = *agentPod("new", "n0", true)
		delete(f.serve, "old")
		f.serve["new"] = answering("new")
	})
	f.cut()
	time.Sleep(time.Second) // a look is at most a second old
	say("new")

	if got, err := says(t.Context(), r, "n1", "x"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens there: %q, %v", got, err)
	}
	before := f.lists
	if got, err := says(t.Context(), r, "n2", "x"); err == nil || !strings.Contains(err.Error(), "no sidecar of groundplan runs on node n2") {
		t.Errorf("there is no such node: %q, %v", got, err)
	}
	f.change(func() { f.pods = append(f.pods, *agentPod("late", "n2", true)); f.serve["late"] = answering("late") })
	time.Sleep(time.Second)
	if got, err := says(t.Context(), r, "n2", "x"); err != nil || got != "late: x" || f.lists == before {
		t.Errorf("it has come by now: %q, %v, after %d looks more", got, err, f.lists-before)
	}
}

// TestReachGivesUp ends what hangs with its context, and what was dialled directly goes no other way.
func TestReachGivesUp(t *testing.T) {
	f := newForwarder(t, agentPod("a", "n0", true))
	f.serve["a"] = func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) } // never answers
	r := f.reach()
	if err := r.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := r.dial(t.Context(), "n0")
	if err != nil {
		t.Fatal(err)
	}
	if conn.LocalAddr().String() != "here" || conn.RemoteAddr().String() != "a" || conn.RemoteAddr().Network() != "port-forward" ||
		errors.Join(conn.SetDeadline(time.Now()), conn.SetReadDeadline(time.Now()), conn.SetWriteDeadline(time.Now())) != nil {
		t.Errorf("%v to %v", conn.LocalAddr(), conn.RemoteAddr())
	}
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	if err := errors.Join(conn.Close(), conn.Close()); err != nil {
		t.Error(err)
	}
	select {
	case err := <-read:
		if err == nil {
			t.Error("something was read of a closed connection")
		}
	case <-time.After(10 * time.Second):
		t.Error("closing a connection leaves whoever reads")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.dial(ended, "n0"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	direct := newReach(&cluster{}, Options{Dial: func(_ context.Context, node string) (net.Conn, error) { return nil, errors.New("dialled " + node) }})
	if err := errors.Join(direct.ready(t.Context()), direct.relist(t.Context())); err != nil || direct.serving() != nil {
		t.Errorf("%v, %v", err, direct.serving())
	}
	if _, err := direct.dial(t.Context(), "n7"); err == nil || err.Error() != "dialled n7" {
		t.Errorf("got %v", err)
	}
}

// TestReachWithoutChart says what to do where the agents aren't, or can't be asked.
func TestReachWithoutChart(t *testing.T) {
	for token, want := range map[string]string{
		"":          "groundplan's sidecars are not installed on the cluster: there is no secret groundplan-sidecar in the namespace groundplan-system; install the chart",
		"forbidden": "you may not read the secret groundplan-sidecar in the namespace groundplan-system, without which no sidecar answers",
	} {
		f := newForwarder(t)
		f.token = token
		err := f.reach().ready(t.Context())
		var fault *clusterFault
		if !errors.As(err, &fault) || !strings.Contains(fault.reason, want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestAgents finds the agents among pods: one for each node, the ready one where there are two.
func TestAgents(t *testing.T) {
	leaving := agentPod("leaving", "n3", true)
	leaving.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	crashing := agentPod("crashing", "n2", false)
	crashing.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s"}}}}
	plain := agentPod("plain", "n4", true)
	plain.Spec.Containers = []corev1.Container{{Name: "agent", Image: "registry/plain"}}
	f := newForwarder(t, agentPod("a", "n0", true), agentPod("b", "n0", false), agentPod("c", "n1", false), agentPod("d", "n1", true),
		crashing, leaving, plain, agentPod("pending", "", false))
	r := f.reach()
	if err := r.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	serving := r.serving()
	for node, want := range map[string]agent{
		"n0": {pod: "a", ready: true, port: 4321, image: "registry/groundplan:v1"},
		"n1": {pod: "d", ready: true, port: 4321, image: "registry/groundplan:v1"},
		"n4": {pod: "plain", ready: true, port: r.agents["n4"].port, image: "registry/plain"},
	} {
		if serving[node] != want {
			t.Errorf("%s: %+v, want %+v", node, serving[node], want)
		}
	}
	if len(serving) != 3 {
		t.Errorf("%v", serving)
	}
	if got := r.coming(); !slices.Equal(got, []string{"crashing on n2 (CrashLoopBackOff)"}) {
		t.Errorf("not ready are %q", got)
	}
	looks := f.lists
	if err := errors.Join(r.ready(t.Context()), r.relist(t.Context())); err != nil || f.lists != looks {
		t.Errorf("%v, after %d looks more at once", err, f.lists-looks)
	}
}
