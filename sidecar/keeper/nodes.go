//go:build linux

package keeper

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/sidecar/control"
)

// What keepers of different nodes tell each other in a stage: that all members are held at the gate, and that all have
// ended. Each node has a state of its own: it may be signalled twice, by a keeper that took another's place, and counts
// once all the same.
const (
	stateGate  = "gate"
	stateEnded = "ended"
)

// assign says which places are this node's own, and in which pods they are.
func (w *world) assign() error {
	node := w.ask.Node
	if node == nil {
		for _, p := range w.places {
			p.own = true
		}
		return nil
	}
	if !slices.ContainsFunc(node.Nodes, func(peer control.Peer) bool { return peer.Name == node.Name }) {
		return control.Refuse(http.StatusBadRequest, "node %q is not among the nodes that hold instances of the run", node.Name)
	}
	for _, pod := range node.Pods {
		p := w.at(pod.Slot)
		if p == nil {
			return control.Refuse(http.StatusBadRequest, "pod %s is for slot %d: there are %d instances", pod.Name, pod.Slot, len(w.places))
		}
		p.own, p.pod = true, pod
	}
	return nil
}

// reassign takes over which places are own, and in which pods, from a newer placement. What is in another pod than before
// has to be placed anew. The caller holds mu.
func (w *world) reassign(fresh *world) error {
	for i, p := range w.places {
		next := fresh.places[i]
		if p.runs != nil && p.runs.isUp() && (p.own != next.own || p.pod.UID != next.pod.UID) {
			return control.Refuse(http.StatusConflict, "%s still runs in stage %s: it can't be placed anew", p.name, p.runs.stage.ask.Stage)
		}
	}
	for i, p := range w.places {
		next := fresh.places[i]
		if p.own != next.own || p.pod.UID != next.pod.UID {
			p.placed = false
		}
		if p.own && !next.own {
			w.left = append(w.left, p.slot)
		}
		p.own, p.pod = next.own, next.pod
	}
	return nil
}

// forget forgets the programs of what is on another node now.
func (k *Keeper) forget() {
	k.mu.Lock()
	left := k.world.left
	k.world.left = nil
	k.mu.Unlock()
	if programs, can := k.programs.(forgetter); can {
		for _, slot := range left {
			programs.Forget(slot)
		}
	}
}

// setPeers tells the network which nodes hold instances of the run.
func (k *Keeper) setPeers() error {
	k.mu.RLock()
	node := k.world.ask.Node
	k.mu.RUnlock()
	if node == nil {
		return nil
	}
	network, can := k.fabric.(Peers)
	if !can {
		return control.Refuse(http.StatusBadRequest, "the network of this sidecar can't reach instances on other nodes")
	}
	if err := network.SetPeers(node.Nodes); err != nil {
		return fmt.Errorf("finding the way to the run's other nodes: %w", err)
	}
	return nil
}

// Gone hears that the pod of an instance is gone. What ran in it is lost, of which Programs tell; the instance is to be
// placed anew.
func (k *Keeper) Gone(slot int, uid, why string) {
	k.mu.Lock()
	p := k.world.at(slot)
	if p == nil || !p.own || !p.placed || p.pod.UID != uid {
		k.mu.Unlock()
		return
	}
	p.placed = false
	idle := p.runs == nil
	k.mu.Unlock()
	if idle {
		k.tell("instance-lost", "", p.name+" is lost: "+why)
	}
}

// isUp says whether the member has no outcome yet.
func (m *member) isUp() bool {
	m.stage.mu.Lock()
	defer m.stage.mu.Unlock()
	return !m.ended
}

// leads says whether this keeper is the one that tells what concerns the whole run.
func (k *Keeper) leads() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.world == nil || k.world.ask.Node == nil || k.world.ask.Node.Lead
}

// leads says whether this keeper is the one that tells what concerns the whole run.
func (s *stage) leads() bool { return s.node == nil || s.node.Lead }

// space is where keepers speak with each other about the stage. No instance is in it.
func (s *stage) space() string { return "groundplan:" + s.key }

// meet waits until the members on every node have come as far.
func (s *stage) meet(state string) error {
	if s.node == nil {
		return nil
	}
	if err := s.arrive(s.ctx, state); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(s.ctx)
	for _, peer := range s.node.Nodes {
		work.Go(func() error {
			return s.keeper.sync.Barrier(ctx, s.space(), state+":"+peer.Name, 1)
		})
	}
	if err := work.Wait(); err != nil {
		return fmt.Errorf("waiting for the other nodes: %w", err)
	}
	return nil
}

func (s *stage) arrive(ctx context.Context, state string) error {
	if err := s.keeper.sync.Signal(ctx, s.space(), state+":"+s.node.Name, 1); err != nil {
		return fmt.Errorf("telling the other nodes: %w", err)
	}
	return nil
}

// stay keeps the stage open after this node's members have ended until those of all nodes have, since as long it is in
// force what events ask of the network.
func (s *stage) stay() {
	if s.node == nil || s.stopping() {
		return
	}
	if err := s.meet(stateEnded); err != nil && s.ctx.Err() == nil {
		s.fault(err)
	}
}

// leave tells the other nodes that this one's members have ended, where the stage was ended here before it could. Nobody
// waits for that to succeed: it may be that the sync service is away, or that the others were ended as well.
func (s *stage) leave() {
	if s.node == nil || s.ctx.Err() == nil {
		return
	}
	s.keeper.work.Go(func() {
		if err := s.arrive(s.keeper.ctx, stateEnded); err != nil && s.keeper.ctx.Err() == nil {
			s.keeper.log.Warn("the other nodes do not know that the stage is over here", "stage", s.ask.Stage, "error", err)
		}
	})
}
