package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

// node is a node of the cluster as one activity speaks with it.
type node struct {
	name    string
	agent   *nodeagent.Client
	control *control.Client
}

// session is one activity's work on a run.
type session struct {
	ground  *Ground
	cluster *cluster
	folder  runs.Folder
	in      stage.Input
	state   state
	reach   *reach
	nodes   map[string]*node
	view    *view // nil before look
	// proved is what was found of the data network that this session has set.
	proved string
}

// open begins a session. The caller closes it.
func (g *Ground) open(run stage.Run, in stage.Input) (*session, error) {
	if err := runs.CheckID(run.ID); err != nil {
		return nil, err
	}
	cluster, err := g.cluster(run)
	if err != nil {
		return nil, err
	}
	s := &session{ground: g, cluster: cluster, folder: g.options.Home.Run(run.ID), in: in, nodes: make(map[string]*node)}
	s.reach = newReach(cluster, g.options)
	s.state, err = readState(s.folder)
	return s, err
}

// connect makes ready to speak with nodes. It comes before the first node.
func (s *session) connect(ctx context.Context) error { return s.reach.ready(ctx) }

func (s *session) close() {
	if s.view != nil {
		s.view.close()
	}
	for _, n := range s.nodes {
		n.agent.Close()
	}
	s.reach.close()
}

// look begins to watch the run's pods, and returns once it has seen them all.
func (s *session) look(ctx context.Context) error {
	if s.view == nil {
		s.view = see(ctx, s.cluster.client, s.cluster.namespace, s.in.Run.ID)
	}
	return s.view.settle(ctx)
}

// node is the node with that name. It isn't connected to yet. Nodes are made by the goroutine that owns the session.
func (s *session) node(name string) *node {
	if known := s.nodes[name]; known != nil {
		return known
	}
	n := &node{name: name}
	n.agent = nodeagent.Dial(func(ctx context.Context) (net.Conn, error) { return s.reach.dial(ctx, name) }, s.reach.token)
	n.control = n.agent.Control(s.in.Run.ID)
	s.nodes[name] = n
	return n
}

// noted are the nodes whose agents were ever asked for this run.
func (s *session) noted() []*node {
	var all []*node
	for _, name := range s.state.Nodes {
		all = append(all, s.node(name))
	}
	return all
}

// asking notes that the agents of these nodes are going to be asked.
func (s *session) asking(names []string) error {
	s.state.Nodes = slices.Compact(slices.Sorted(slices.Values(slices.Concat(s.state.Nodes, names))))
	return s.state.write(s.folder)
}

// onAll does something on nodes, on all at once: a gate opens when all of them have been asked. The first error ends the others' contexts.
func (s *session) onAll(ctx context.Context, nodes []*node, do func(context.Context, *node) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		group.Go(func() error { return do(ctx, n) })
	}
	return group.Wait()
}

// awayFault is a node that didn't answer for too long, or is gone.
type awayFault struct {
	node string
	gone bool   // the node, not only what serves it
	why  string // the end of a sentence
}

func (f *awayFault) Error() string { return fmt.Sprintf("node %s %s", f.node, f.why) }

// patient makes a call of a node until it is answered, for at most so long: a sidecar that is started again adopts what
// it finds, and the API server in between may be away as well.
func (s *session) patient(ctx context.Context, n *node, most time.Duration, call func(context.Context) error) error {
	since := time.Now()
	looked, failing := since, time.Time{}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := call(ctx)
		if ctx.Err() != nil && err != nil {
			return context.Cause(ctx)
		}
		if !isAway(err) {
			return err
		}
		switch {
		case !comesUp(err):
			failing = time.Time{}
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > failsFor:
			return err
		}
		if time.Since(looked) >= s.ground.limits.looks {
			looked = time.Now()
			if why := s.gone(ctx, n.name); why != "" {
				return &awayFault{n.name, true, why}
			}
		}
		if time.Since(since) > most {
			return &awayFault{n.name, false, fmt.Sprintf("has not answered for %v: %v", time.Since(since).Round(time.Second), err)}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// isAway says whether asking again may help: nobody listens, or who listens has nobody behind it just now.
func isAway(err error) bool {
	var refused *control.Error
	if errors.As(err, &refused) {
		return refused.Status == http.StatusBadGateway || refused.Status == http.StatusServiceUnavailable
	}
	return errors.Is(err, control.ErrAway)
}

// failsFor is how long an agent may say that the run's sidecar doesn't come up, before it is taken at its word.
const failsFor = 8 * time.Second

// comesUp says whether an agent is just trying to start the run's sidecar, in vain so far.
func comesUp(err error) bool {
	var refused *control.Error
	return errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable
}

// unknownStage says whether a sidecar knows nothing of a stage.
func unknownStage(err error) bool {
	var refused *control.Error
	return errors.As(err, &refused) && refused.Status == http.StatusNotFound
}

// gone says why a node, and with it its instances, has to be given up; empty while there is hope, or nobody to ask.
func (s *session) gone(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n, err := s.cluster.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "is no longer part of the cluster"
	case err != nil:
		return ""
	}
	if ready := readiness(n); ready != nil && ready.Status != corev1.ConditionTrue {
		if since := time.Since(ready.LastTransitionTime.Time); since >= s.ground.limits.gone {
			return fmt.Sprintf("has not been ready for %v (%s)", since.Round(time.Second), sentence(ready.Message))
		}
	}
	return ""
}

func readiness(n *corev1.Node) *corev1.NodeCondition {
	for i, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}
