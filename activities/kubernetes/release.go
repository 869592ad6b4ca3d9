package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

// forcesAfter is how long pods may take to go before those on dead nodes are taken away without their kubelet's word.
const forcesAfter = 10 * time.Second

// Release brings home what was not gathered, and gives everything back: the sidecars' state on the nodes, the pods, and
// what owns them. It returns once all is gone.
func (g *Ground) Release(ctx context.Context, run stage.Run) error {
	folder := g.options.Home.Run(run.ID)
	if _, err := os.Stat(string(folder)); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever placed, and no folder is to be made for that
	}
	unlock, err := sidecars.Lock(ctx, folder)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := g.open(run, stage.Input{Run: run})
	var none *clusterFault
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	if len(s.state.Groups) == 0 && len(s.state.Nodes) == 0 {
		return forget(folder) // nothing was made
	}
	if len(s.state.Nodes) > 0 {
		if err := s.leave(ctx); err != nil {
			return err
		}
	}
	if err := s.takeAway(ctx); err != nil {
		return err
	}
	return forget(folder)
}

// leave has every node forget the run. A node that is gone, or that nothing serves any more, has forgotten it.
func (s *session) leave(ctx context.Context) error {
	err := s.connect(ctx)
	var none *clusterFault
	if errors.As(err, &none) {
		s.ground.options.Log.Warn("the run's sidecars can't be reached; they release it by themselves", "run", s.in.Run.ID, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	if s.state.Written {
		s.bringHome(ctx)
	}
	return s.onAll(ctx, s.noted(), func(ctx context.Context, n *node) error {
		err := s.patient(ctx, n, s.ground.limits.answers/3, func(ctx context.Context) error { return n.agent.Remove(ctx, s.in.Run.ID) })
		var away *awayFault
		if errors.As(err, &away) {
			// Its agent ends what nobody asks for; what matters is that the pods go.
			s.ground.options.Log.Warn("a node was not told that the run is over", "run", s.in.Run.ID, "node", n.name, "error", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("releasing the run on node %s: %w", n.name, err)
		}
		return nil
	})
}

// bringHome brings what instances wrote and nobody gathered, as far as it can be had in a while.
func (s *session) bringHome(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.ground.limits.home)
	defer cancel()
	err := s.bring(ctx, nodeagent.ArchiveOptions{}, func(int) {})
	if err != nil {
		s.note("outputs-lost", fmt.Sprintf("not all outputs could be brought home before the run was released: %v", err))
		return
	}
	s.state.Written = false
	if err := s.state.write(s.folder); err != nil {
		s.ground.options.Log.Warn("what was brought home is brought again", "run", s.in.Run.ID, "error", err)
	}
}

// takeAway deletes the run's pods and what owns them, and returns once they are gone.
func (s *session) takeAway(ctx context.Context) error {
	pods := s.cluster.client.CoreV1().Pods(s.cluster.namespace)
	remove := func(o metav1.DeleteOptions) error {
		_, err := patiently(ctx, func() (struct{}, error) {
			return struct{}{}, pods.DeleteCollection(ctx, o, metav1.ListOptions{LabelSelector: ofRun(s.in.Run.ID)})
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting the run's pods: %w", err)
		}
		return nil
	}
	if err := remove(metav1.DeleteOptions{}); err != nil {
		return err
	}
	background := metav1.DeletePropagationBackground
	_, err := patiently(ctx, func() (struct{}, error) {
		return struct{}{}, s.cluster.client.CoreV1().ConfigMaps(s.cluster.namespace).Delete(ctx, ownerName(s.in.Run.ID), metav1.DeleteOptions{PropagationPolicy: &background})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting what owns the run's pods: %w", err)
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	force := time.NewTimer(forcesAfter)
	defer force.Stop()
	for len(s.view.all()) > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d pods to go: %w", len(s.view.all()), context.Cause(ctx))
		case <-s.view.changed:
		case <-force.C:
			if err := s.force(ctx); err != nil {
				return err
			}
			force.Reset(forcesAfter)
		}
	}
	return nil
}

// force takes away the pods on nodes that are dead or gone.
func (s *session) force(ctx context.Context) error {
	dead := map[string]bool{}
	for _, p := range s.view.all() {
		if _, looked := dead[p.Node]; !looked {
			dead[p.Node] = p.Node != "" && s.gone(ctx, p.Node) != ""
		}
		if !dead[p.Node] {
			continue
		}
		o := metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(p.UID)}
		err := s.cluster.client.CoreV1().Pods(s.cluster.namespace).Delete(ctx, p.Name, o)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("deleting the pod %s: %w", p.Name, err)
		}
	}
	return nil
}
