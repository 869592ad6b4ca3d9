package sidecar

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"path/filepath"
	"sync"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/network"
	"github.com/groundplan/groundplan/sidecar/node"
	"github.com/groundplan/groundplan/sidecar/pods"
)

// buildOnNode puts the parts together on a node of a cluster: instances are pods, which outlive this process, and so does
// their network.
func (w *works) buildOnNode() (err error) {
	c := w.config
	if c.Redis == "" {
		return errors.New("the address of Redis is missing: the instances of a run meet there, whatever node they are on")
	}
	if err := w.openGateway(nil); err != nil {
		return err
	}
	if err := w.gateway.Join(context.Background(), c.Node.Name); err != nil {
		return err
	}
	number, err := w.gateway.Number(context.Background(), vni(c.run()), mostVNI)
	if err != nil {
		return fmt.Errorf("choosing what tells the run's packets from others: %w", err)
	}
	w.fabric, err = fabric.New(fabric.Options{Subnet: c.Subnet, Node: &fabric.Node{
		Pin: filepath.Join(string(c.Folder), "pins"), Underlay: c.Node.Address, VNI: number, Isolate: true,
	}})
	if err != nil {
		return fmt.Errorf("building the run's network: %w", err)
	}
	w.ends = append(w.ends, w.fabric.Destroy)
	w.forget = w.forgetLast
	meeting := newRendezvous(w.gateway, c.Node.Name)
	w.network, err = network.New(w.fabric, network.Options{
		Shaper: c.Shaper, Seed: c.Seed, Log: c.Log, Rendezvous: meeting, Node: c.Node.Name,
	})
	if err != nil {
		return fmt.Errorf("taking over the run's data network: %w", err)
	}
	w.ends = append(w.ends, w.network.Close)
	return w.keep(meeting)
}

// keep begins to keep the pods of the run on this node.
func (w *works) keep(meeting *rendezvous) error {
	c := w.config
	programs := &podPrograms{uids: make(map[int]string)}
	d := &doors{gateway: w.gateway, client: w.client, log: c.Log, ready: make(chan struct{}), served: make(map[int]door)}
	var err error
	programs.Pods, err = pods.New(pods.Options{KubeletRoot: c.Node.Kubelet, Folder: c.Node.Folder, Log: c.Log, Gone: func(slot int, why string) {
		uid := programs.uid(slot)
		go func() {
			<-d.ready
			w.keeper.Gone(slot, uid, why)
		}()
	}})
	if err != nil {
		return err
	}
	w.ends = append(w.ends, programs.Close)
	d.open, programs.doors, w.entrance = programs.Serve, d, d
	seats := nodeSeats{seats: seats{w.fabric}, pods: programs.Pods, meeting: meeting}
	w.keeper, err = keeper.New(keeper.Options{
		Run: c.run(), Folder: c.Folder, Network: seats, Shaping: shaping{w.network}, Sync: signals{w.gateway},
		Programs: programs, Log: c.Log, Port: syncPort, Adopt: true,
	})
	if err != nil {
		return err
	}
	w.backend = &nodeBackend{Keeper: w.keeper, folder: c.Folder, meeting: meeting}
	close(d.ready)
	return nil
}

// forgetLast deletes the run's data from Redis once no node needs it any more.
func (w *works) forgetLast(ctx context.Context) error {
	last, err := w.gateway.Leave(ctx, w.config.Node.Name)
	if err != nil || !last {
		return err
	}
	return w.gateway.Forget(ctx)
}

// mostVNI is the largest of the numbers that tell packets of a run from those of others.
const mostVNI = 1<<24 - 1

// vni is the first of these numbers that a run tries: hardly ever another run has it.
func vni(run string) uint32 {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(run)) // never fails
	return sum.Sum32()%mostVNI + 1
}

// nodeBackend is the keeper as a node's agent calls it.
type nodeBackend struct {
	*keeper.Keeper
	folder  runs.Folder
	meeting *rendezvous
}

// Place notes which instances are here, so that the agent finds their outputs, and places them.
func (b *nodeBackend) Place(ctx context.Context, ask control.Placement) (control.Status, error) {
	if ask.Node == nil {
		return control.Status{}, control.Refuse(http.StatusBadRequest, "the placement doesn't say which instances are on this node")
	}
	if err := node.WriteInstances(b.folder, ask); err != nil {
		return control.Status{}, err
	}
	return b.Keeper.Place(ctx, ask)
}

// Network keeps apart what the nodes exchange about one state of the network and the next.
func (b *nodeBackend) Network(ctx context.Context, ask control.Network) (control.NetworkReply, error) {
	b.meeting.begin(ask.Key)
	return b.Keeper.Network(ctx, ask)
}

// podPrograms are the pods as the keeper sees them: each that is there may come to the gateway.
type podPrograms struct {
	*pods.Pods
	doors *doors

	mu   sync.Mutex
	uids map[int]string
}

func (p *podPrograms) Place(ctx context.Context, homes []keeper.Home) []error {
	p.mu.Lock()
	for _, home := range homes {
		p.uids[home.Slot] = home.Pod.UID
	}
	p.mu.Unlock()
	faults := p.Pods.Place(ctx, homes)
	for i, home := range homes {
		if faults[i] == nil {
			faults[i] = p.doors.answer(home.Slot, home.Pod.UID)
		}
	}
	return faults
}

// uid is that of the pod which was placed last at a slot.
func (p *podPrograms) uid(slot int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.uids[slot]
}

// nodeSeats is a node's fabric as the keeper sees it.
type nodeSeats struct {
	seats
	pods    *pods.Pods
	meeting *rendezvous
}

// SetPeers says which nodes there are.
func (s nodeSeats) SetPeers(peers []control.Peer) error {
	names := make([]string, len(peers))
	for i, peer := range peers {
		names[i] = peer.Name
	}
	s.meeting.meet(names)
	return s.Fabric.SetPeers(peers)
}

func (s nodeSeats) Add(ctx context.Context, wanted []keeper.Seat) []error {
	failures := make([]error, len(wanted))
	var specs []fabric.Spec
	var owners []int
	for i, seat := range wanted {
		namespace, err := s.pods.Namespace(ctx, seat.Slot)
		if err != nil {
			failures[i] = fmt.Errorf("finding the network namespace of its pod: %w", err)
			continue
		}
		defer namespace.Close()
		specs = append(specs, fabric.Spec{Slot: seat.Slot, Hostname: seat.Hostname, Namespace: namespace})
		owners = append(owners, i)
	}
	for i, err := range s.Fabric.Add(ctx, specs) {
		failures[owners[i]] = err
	}
	return failures
}
