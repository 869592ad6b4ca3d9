// Package kubernetes is the ground that is a cluster: an instance is a pod, and on each node with pods of a run the node's
// agent (sidecar/node) has a sidecar for that run, which is asked what the one sidecar of a local run is asked.
//
// What was asked is noted in the run's folder before it is asked, so that whoever comes next knows what may be there; what
// is there is seen by one list and one watch of the run's pods. Names follow from run, group and index, so that a second
// try finds the first one's work.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/images"
	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Options configures the ground. The zero value of all but Home is fit for a cluster with the chart's defaults.
type Options struct {
	// Home is the state folder: a run's folder below it gets the run's outputs and records.
	Home runs.Home
	// Context is the context of the kubeconfig; empty: the current one, or the cluster whose pod this is.
	Context string
	// Namespace is where instances go, and SystemNamespace where the chart's sidecars are.
	Namespace, SystemNamespace string
	// Registry is where images go that nodes pull, HOST[:PORT][/PATH].
	Registry string
	// NodeSelector and Tolerations say which nodes instances may go to.
	NodeSelector map[string]string
	Tolerations  []corev1.Toleration
	// QPS and Burst bound the calls of the API server, per second; 0: DefaultQPS and twice that.
	QPS   float32
	Burst int
	// Client speaks with the API server instead of one made from the kubeconfig.
	Client kubernetes.Interface
	// Dial connects to the agent of a node directly, without the API server; Token is what agents want then, and Image the
	// one that has the supervisor. Without Dial both are found where the chart has put them.
	Dial  func(ctx context.Context, node string) (net.Conn, error)
	Token string
	Image string
	// Log gets what a person running the worker may want to know; nil: nothing.
	Log *slog.Logger
}

// Ground is a cluster, or several by their contexts.
type Ground struct {
	options Options
	limits  limits

	mu       sync.Mutex
	clusters map[string]*cluster // by context
}

// limits are times; tests have shorter ones.
type limits struct {
	answers time.Duration // for a node's sidecar to come back, outside of run stages
	gone    time.Duration // for a node to be not ready before its instances are given up
	looks   time.Duration // between looks at a node that doesn't answer
	ready   time.Duration // for nodes and sidecars to be ready, before instances are placed
	asks    time.Duration // between looks whether they are
	home    time.Duration // for bringing home what was not gathered, at release
}

var usual = limits{answers: 90 * time.Second, gone: 30 * time.Second, looks: 5 * time.Second, ready: 75 * time.Second, asks: time.Second, home: 45 * time.Second}

var _ activities.Ground = (*Ground)(nil)

// New returns the ground. It connects when it is first asked for something.
func New(o Options) *Ground {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.QPS == 0 {
		o.QPS = DefaultQPS
	}
	if o.Burst == 0 {
		o.Burst = 2 * int(o.QPS)
	}
	return &Ground{options: o, limits: usual, clusters: make(map[string]*cluster)}
}

// Pack makes an artifact an image that nodes can pull.
func (g *Ground) Pack(ctx context.Context, artifact stage.Artifact) (stage.Artifact, string, error) {
	return images.Pack(ctx, artifact, images.Options{Registry: g.options.Registry, Architecture: artifact.Architecture})
}

// placement is what the sidecars are asked to hold for groups; the string is why they can't be asked.
func placement(in stage.Input, groups []string) (control.Placement, string) {
	return sidecars.Placement(in, groups, func(group pipelines.Group, artifact stage.Artifact) (control.Group, string) {
		asked := control.Group{Group: group}
		if artifact.Image == "" || len(artifact.Command) == 0 {
			return asked, fmt.Sprintf("group %s: the artifact %s was not made an image: it was built for another ground; run its build stage again", group.Name, group.Artifact)
		}
		asked.Program, asked.Arguments = artifact.Command[0], artifact.Command[1:]
		return asked, ""
	})
}

// known turns an error into a result where it says something that is known. Whatever else went wrong remains an error.
func (g *Ground) known(ctx context.Context, doing string, err error) (stage.Result, error) {
	var refused *control.Error
	var cluster *clusterFault
	var away *awayFault
	switch {
	case ctx.Err() != nil:
		return stage.Result{}, context.Cause(ctx)
	case errors.As(err, &cluster):
		return sidecars.Invalid("%s", cluster.reason), nil
	case errors.As(err, &away):
		return sidecars.Invalid("%s: %s", doing, away.Error()), nil
	case errors.As(err, &refused):
		return sidecars.Invalid("%s: %s", doing, strings.TrimSpace(refused.Message)), nil
	}
	if why := refusal(err); why != "" {
		return sidecars.Invalid("%s: the cluster refuses: %s", doing, why), nil
	}
	return stage.Result{}, fmt.Errorf("%s: %w", doing, err)
}

// Halt ends every process of the instances and keeps their places.
func (g *Ground) Halt(ctx context.Context, run stage.Run) error {
	return g.onNodes(ctx, run, func(ctx context.Context, n *node) error {
		_, err := n.control.HaltAll(ctx)
		return err
	})
}

// HaltStage halts every attempt of one run stage.
func (g *Ground) HaltStage(ctx context.Context, in stage.Input) error {
	state, err := readState(g.options.Home.Run(in.Run.ID))
	if err != nil {
		return err
	}
	var keys []string
	for ; in.Attempt > 0; in.Attempt-- {
		if state.Opened[sidecars.Key(in)] != "" {
			keys = append(keys, sidecars.Key(in))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return g.onNodes(ctx, in.Run, func(ctx context.Context, n *node) error {
		for _, key := range slices.Backward(keys) {
			if _, err := n.control.Halt(ctx, key); err != nil && !unknownStage(err) {
				return fmt.Errorf("halting %s: %w", key, err)
			}
		}
		return nil
	})
}

// onNodes does something on every node that was asked to hold instances of the run, on all at once. A node that is gone
// has nothing left to be done on.
func (g *Ground) onNodes(ctx context.Context, run stage.Run, do func(context.Context, *node) error) error {
	s, err := g.open(run, stage.Input{Run: run})
	var none *clusterFault
	if errors.As(err, &none) {
		return nil // nothing can have been placed by this worker
	}
	if err != nil {
		return err
	}
	defer s.close()
	if len(s.state.Nodes) == 0 {
		return nil
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	return s.onAll(ctx, s.noted(), func(ctx context.Context, n *node) error {
		err := s.patient(ctx, n, g.limits.answers, func(ctx context.Context) error { return do(ctx, n) })
		var gone *awayFault
		if errors.As(err, &gone) && gone.gone {
			return nil
		}
		return err
	})
}
