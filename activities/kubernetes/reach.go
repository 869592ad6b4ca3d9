package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

const (
	// secretName is the chart's secret with the agents' token, under tokenKey.
	secretName = "groundplan-sidecar"
	tokenKey   = "token"
	// portName is the name of the agent's port in its pod; without one of that name it is the usual one.
	portName = "agent"
	// linksWithin is how long one attempt at reaching an agent may take.
	linksWithin = 10 * time.Second
)

// agent is the pod that serves a node.
type agent struct {
	pod   string
	ready bool
	why   string // it is not ready
	port  int
	image string // of groundplan
}

// reach connects to the agents of nodes. An agent listens on its node's loopback only: the way there is the API server's
// port-forward to its pod, one connection per node with a pair of streams for each connection inside.
type reach struct {
	cluster *cluster
	direct  func(ctx context.Context, node string) (net.Conn, error)
	token   string

	mu      sync.Mutex
	listed  time.Time
	agents  map[string]agent // by node; nil where direct
	links   map[string]*link // by node
	loading sync.Mutex
}

func newReach(c *cluster, o Options) *reach {
	return &reach{cluster: c, direct: o.Dial, token: o.Token, links: make(map[string]*link)}
}

// ready finds out where the agents are and what they want to be told. It does so once.
func (r *reach) ready(ctx context.Context) error {
	if r.direct != nil || !r.since().IsZero() {
		return nil
	}
	secret, err := patiently(ctx, func() (*corev1.Secret, error) {
		return r.cluster.client.CoreV1().Secrets(r.cluster.system).Get(ctx, secretName, metav1.GetOptions{})
	})
	switch {
	case apierrors.IsNotFound(err):
		return &clusterFault{r.missing()}
	case apierrors.IsForbidden(err):
		return &clusterFault{fmt.Sprintf("on %s you may not read the secret %s in the namespace %s, without which no sidecar answers: %s", r.cluster.name, secretName, r.cluster.system, askForRole)}
	case err != nil:
		return fmt.Errorf("reading the sidecars' token: %w", err)
	}
	r.token = strings.TrimSpace(string(secret.Data[tokenKey]))
	return r.list(ctx)
}

// missing says that the chart isn't there.
func (r *reach) missing() string {
	return fmt.Sprintf("groundplan's sidecars are not installed on %s: there is no secret %s in the namespace %s; install the chart (helm install groundplan charts/groundplan -n %s --create-namespace), or name its namespace by --kube-system-namespace",
		r.cluster.name, secretName, r.cluster.system, r.cluster.system)
}

func (r *reach) since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.listed
}

// list looks for the agents' pods.
func (r *reach) list(ctx context.Context) error {
	selector := labels.Set{labelName: "groundplan", labelComponent: componentSidecar}.String()
	pods, err := patiently(ctx, func() (*corev1.PodList, error) {
		return r.cluster.client.CoreV1().Pods(r.cluster.system).List(ctx, metav1.ListOptions{LabelSelector: selector, ResourceVersion: "0"})
	})
	if err != nil {
		return fmt.Errorf("looking for the sidecars in the namespace %s: %w", r.cluster.system, err)
	}
	found := make(map[string]agent, len(pods.Items))
	for i := range pods.Items {
		p := &pods.Items[i]
		a := agentOf(p)
		if before, twice := found[p.Spec.NodeName]; p.Spec.NodeName == "" || p.DeletionTimestamp != nil || twice && before.ready && !a.ready {
			continue
		}
		found[p.Spec.NodeName] = a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agents, r.listed = found, time.Now()
	return nil
}

func agentOf(p *corev1.Pod) agent {
	a := agent{pod: p.Name, port: nodeagent.Port}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			a.ready, a.why = c.Status == corev1.ConditionTrue, first(sentence(c.Message), c.Reason)
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			a.why = first(w.Reason, sentence(w.Message))
		}
	}
	for _, c := range p.Spec.Containers {
		if a.image == "" {
			a.image = c.Image
		}
		for _, port := range c.Ports {
			if port.Name == portName {
				a.port, a.image = int(port.ContainerPort), c.Image
			}
		}
	}
	return a
}

// serving has the nodes whose agents are ready, and nil where agents are dialled directly.
func (r *reach) serving() map[string]agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.agents == nil {
		return nil
	}
	ready := make(map[string]agent)
	for node, a := range r.agents {
		if a.ready {
			ready[node] = a
		}
	}
	return ready
}

// coming are the nodes whose agents are there and not ready, each with why.
func (r *reach) coming() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for node, a := range r.agents {
		if !a.ready {
			all = append(all, fmt.Sprintf("%s on %s (%s)", a.pod, node, first(a.why, "not ready yet")))
		}
	}
	slices.Sort(all)
	return all
}

// relist looks again where the last look is a second old: an agent's pod that was replaced has another name.
func (r *reach) relist(ctx context.Context) error {
	if r.direct != nil {
		return nil
	}
	r.loading.Lock()
	defer r.loading.Unlock()
	if time.Since(r.since()) < time.Second {
		return nil
	}
	return r.list(ctx)
}

// dial connects to the agent of a node.
func (r *reach) dial(ctx context.Context, node string) (net.Conn, error) {
	if r.direct != nil {
		return r.direct(ctx, node)
	}
	ctx, cancel := context.WithTimeout(ctx, linksWithin)
	defer cancel()
	conn, err := r.through(ctx, node)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	if listing := r.relist(ctx); listing != nil {
		return nil, errors.Join(err, listing)
	}
	return r.through(ctx, node)
}

// through makes a pair of streams to the agent.
func (r *reach) through(ctx context.Context, node string) (net.Conn, error) {
	r.mu.Lock()
	a, known := r.agents[node]
	l := r.links[node]
	if known && (l == nil || l.agent.pod != a.pod || l.agent.port != a.port) {
		if l != nil {
			l.close()
		}
		l = &link{reach: r, agent: a}
		r.links[node] = l
	}
	r.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("no sidecar of groundplan runs on node %s", node)
	}
	conn, err := l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("reaching the sidecar on node %s: %w", node, err)
	}
	return conn, nil
}

func (r *reach) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		l.close()
	}
}

// link is the connection to one agent's pod.
type link struct {
	reach *reach
	agent agent

	mu   sync.Mutex
	conn httpstream.Connection // nil before the first use, and after it broke
	ids  int
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.Close() // whoever waits on a stream is told by that
		l.conn = nil
	}
}

// broken drops a connection that failed; another one takes its place at the next use.
func (l *link) broken(conn httpstream.Connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == conn {
		l.conn = nil
	}
	_ = conn.Close()
}

// open makes a connection to the agent's port. httpstream knows no contexts: what comes after one has ended is closed.
func (l *link) open(ctx context.Context) (net.Conn, error) {
	type made struct {
		conn net.Conn
		err  error
	}
	done := make(chan made, 1)
	go func() {
		conn, err := l.pair()
		done <- made{conn, err}
	}()
	select {
	case m := <-done:
		return m.conn, m.err
	case <-ctx.Done():
		go func() {
			if m := <-done; m.err == nil {
				_ = m.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// pair makes the two streams that one connection to a port is.
func (l *link) pair() (net.Conn, error) {
	conn, id, err := l.connection()
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(l.agent.port))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(id))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failure, err := conn.CreateStream(headers)
	if err != nil {
		l.broken(conn)
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	_ = failure.Close() // of our side: nothing is written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		l.broken(conn)
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	s := &stream{link: l, conn: conn, data: data, failure: failure, failed: make(chan struct{})}
	go s.listen()
	return s, nil
}

// connection is the one to the agent's pod, and a number for a pair of streams in it.
func (l *link) connection() (httpstream.Connection, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		select {
		case <-l.conn.CloseChan():
			l.conn = nil
		default:
		}
	}
	if l.conn == nil {
		conn, err := l.connect()
		if err != nil {
			return nil, 0, err
		}
		l.conn = conn
	}
	l.ids++
	return l.conn, l.ids, nil
}

// connect asks the API server for a port-forward: by WebSocket, or by SPDY where it, or a proxy before it, is of the old
// kind.
func (l *link) connect() (httpstream.Connection, error) {
	c := l.reach.cluster
	where := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.system).Name(l.agent.pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("preparing a port-forward: %w", err)
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport, Timeout: linksWithin}, http.MethodPost, where)
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(where, c.config)
	if err != nil {
		return nil, fmt.Errorf("preparing a port-forward: %w", err)
	}
	either := portforward.NewFallbackDialer(tunnel, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	conn, _, err := either.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("forwarding a port of the pod %s/%s: %w", c.system, l.agent.pod, err)
	}
	return conn, nil
}

// stream is a connection to a port, as a pair of streams.
type stream struct {
	link          *link
	conn          httpstream.Connection
	data, failure httpstream.Stream
	closing       sync.Once

	failed chan struct{} // closed once the stream of failures has ended
	reason error         // set before that
}

// listen waits for what went wrong behind the API server, such as that nobody listens on the port.
func (s *stream) listen() {
	defer close(s.failed)
	said, err := io.ReadAll(io.LimitReader(s.failure, 4096))
	if len(said) > 0 {
		s.reason = fmt.Errorf("the port-forward failed: %s", sentence(string(said)))
	} else if err != nil {
		s.reason = fmt.Errorf("the port-forward broke: %w", err)
	}
	if s.reason != nil {
		s.link.broken(s.conn)
	}
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.data.Read(p)
	if err != nil && n == 0 {
		err = s.why(err)
	}
	return n, err
}

// why is the cause of a stream's end, where the other side has told one.
func (s *stream) why(err error) error {
	select {
	case <-s.failed:
		if s.reason != nil {
			return s.reason
		}
	case <-time.After(100 * time.Millisecond):
	}
	return err
}

func (s *stream) Write(p []byte) (int, error) { return s.data.Write(p) }

func (s *stream) Close() error {
	s.closing.Do(func() {
		_ = s.data.Reset() // what wasn't sent is dropped, or it would be in the way of others
		_ = s.failure.Reset()
		s.conn.RemoveStreams(s.data, s.failure)
	})
	return nil
}

// address names the port.
type address string

func (a address) Network() string { return "port-forward" }
func (a address) String() string  { return string(a) }

func (s *stream) LocalAddr() net.Addr  { return address("here") }
func (s *stream) RemoteAddr() net.Addr { return address(s.link.agent.pod) }

// Deadlines are not set by those who use these connections: their contexts close them.
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }
