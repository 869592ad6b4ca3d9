//go:build linux

// Package pods is the programs of instances that live in pods of this node: each is started by the supervisor of its pod
// (package supervisor), which the sidecar reaches by a socket in the pod's folder. That folder is an emptyDir, which
// the kubelet keeps on the node under a path made of the pod's UID: neither the API server nor the container runtime is
// asked for anything.
//
// What is in the folder is the plan's to write. No path in it is followed out of it, whoever answers at the socket is
// believed only what concerns its own pod, and that it sits in that pod is checked before its network is touched.
package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

// Options say where pods are.
type Options struct {
	// KubeletRoot is the kubelet's own folder on this node, mostly /var/lib/kubelet.
	KubeletRoot string
	// Folder is where pods see their folder; empty: wire.Folder. "-" is for pods that are no more than processes: they see
	// it where this process does.
	Folder string
	// Gone is told, once for each pod, that it is gone and why. It must return at once. May be nil.
	Gone func(slot int, why string)
	Log  *slog.Logger // nil: says nothing
}

const (
	// firstWithin is how long a pod that was placed may take until its supervisor answers.
	firstWithin = 60 * time.Second
	// actsWithin is how long a supervisor may take for what it does at once.
	actsWithin = 30 * time.Second
)

// Pods are the pods of a run on this node. They are a keeper.Programs.
type Pods struct {
	options Options
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu     sync.Mutex
	bySlot map[int]*pod
}

var _ keeper.Programs = (*Pods)(nil)

// New holds no pod yet.
func New(o Options) (*Pods, error) {
	if !filepath.IsAbs(o.KubeletRoot) {
		return nil, fmt.Errorf("the kubelet's folder %q is no absolute path", o.KubeletRoot)
	}
	if o.Folder == "" {
		o.Folder = wire.Folder
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Gone == nil {
		o.Gone = func(int, string) {}
	}
	p := &Pods{options: o, bySlot: make(map[int]*pod)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Close lets go of all pods; what runs in them goes on.
func (p *Pods) Close() error {
	p.mu.Lock()
	for slot, pod := range p.bySlot {
		pod.cancel()
		delete(p.bySlot, slot)
	}
	p.mu.Unlock()
	p.cancel()
	p.work.Wait()
	return nil
}

// Place begins to follow the pods of homes, and returns once each has answered or can't.
func (p *Pods) Place(ctx context.Context, homes []keeper.Home) []error {
	errs := make([]error, len(homes))
	var work sync.WaitGroup
	for i, home := range homes {
		pod, err := p.add(home.Pod, home.Slot)
		if err != nil {
			errs[i] = err
			continue
		}
		work.Go(func() { errs[i] = pod.ready(ctx) })
	}
	work.Wait()
	return errs
}

// add finds or begins to follow a pod. One with another UID than before replaces the one at its slot.
func (p *Pods) add(who control.Pod, slot int) (*pod, error) {
	if who.UID == "" || who.UID != filepath.Base(who.UID) || strings.HasPrefix(who.UID, ".") {
		return nil, fmt.Errorf("the pod %s has the UID %q, which is none", who.Name, who.UID)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil, errClosed
	}
	old := p.bySlot[slot]
	if old != nil && old.uid == who.UID {
		return old, nil
	}
	if old != nil {
		old.cancel()
	}
	pod := p.newPod(slot, who)
	p.bySlot[slot] = pod
	p.work.Go(pod.follow)
	return pod, nil
}

// Forget lets go of the pod at a slot.
func (p *Pods) Forget(slot int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pod := p.bySlot[slot]; pod != nil {
		pod.cancel()
		delete(p.bySlot, slot)
	}
}

var (
	errClosed = errors.New("the sidecar lets go of its pods")
	errNone   = errors.New("no pod was placed there")
)

func (p *Pods) at(slot int) (*pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pod := p.bySlot[slot]; pod != nil {
		return pod, nil
	}
	return nil, fmt.Errorf("slot %d: %w", slot, errNone)
}

// Start implements keeper.Programs.
func (p *Pods) Start(slot int, program keeper.Program, ended func(keeper.Exit)) (keeper.Started, error) {
	pod, err := p.at(slot)
	if err != nil {
		return keeper.Started{}, err
	}
	return pod.start(program, ended)
}

// Signal implements keeper.Programs.
func (p *Pods) Signal(slot int, what unix.Signal) error {
	pod, err := p.at(slot)
	if err != nil {
		return nil // nothing runs there
	}
	return pod.signal(wire.Signal{Number: int(what)})
}

// SignalAll implements keeper.Programs.
func (p *Pods) SignalAll(slots []int, what unix.Signal) error {
	return p.each(slots, func(pod *pod) error { return pod.signal(wire.Signal{Number: int(what), All: true}) })
}

// Clear implements keeper.Programs.
func (p *Pods) Clear(ctx context.Context, slots []int) (left int, err error) {
	var mu sync.Mutex
	err = p.each(slots, func(pod *pod) error {
		n, err := pod.clear(ctx)
		mu.Lock()
		left += n
		mu.Unlock()
		return err
	})
	return left, err
}

// each does something at all pods at once; there are no more than some hundreds on a node.
func (p *Pods) each(slots []int, do func(*pod) error) error {
	errs := make([]error, len(slots))
	var work sync.WaitGroup
	for i, slot := range slots {
		if pod, err := p.at(slot); err == nil {
			work.Go(func() { errs[i] = do(pod) })
		}
	}
	work.Wait()
	return errors.Join(errs...)
}

// Folders implements keeper.Programs.
func (p *Pods) Folders(slot int) (outputs, temp string) {
	folder := p.options.Folder
	if pod, err := p.at(slot); folder == "-" && err == nil {
		folder = pod.path
	}
	return filepath.Join(folder, wire.Outputs), filepath.Join(folder, wire.Temp)
}

// Outputs implements keeper.Programs.
func (p *Pods) Outputs(slot int) (*os.Root, error) {
	pod, err := p.at(slot)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(pod.path)
	if err != nil {
		return nil, fmt.Errorf("opening the folder of pod %s: %w", pod.name, err)
	}
	defer root.Close()
	outputs, err := root.OpenRoot(wire.Outputs)
	if err != nil {
		return nil, fmt.Errorf("opening the outputs of pod %s: %w", pod.name, err)
	}
	return outputs, nil
}

// Namespace opens the network namespace of the pod at a slot, once its supervisor answers. The caller closes it.
func (p *Pods) Namespace(ctx context.Context, slot int) (*os.File, error) {
	pod, err := p.at(slot)
	if err != nil {
		return nil, err
	}
	if err := pod.ready(ctx); err != nil {
		return nil, err
	}
	return pod.namespace()
}

// Serve listens at the sync socket of the pod at a slot: what connects there is that instance and nobody else. Whoever
// listened there before, an earlier sidecar or the plan itself, doesn't any more.
func (p *Pods) Serve(slot int) (net.Listener, error) {
	pod, err := p.at(slot)
	if err != nil {
		return nil, err
	}
	l, err := listenIn(pod.path, wire.Sync)
	if err != nil {
		return nil, fmt.Errorf("listening for the sync client of pod %s: %w", pod.name, err)
	}
	return l, nil
}
