package kubernetes

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// pod is what is known of the pod of one instance.
type pod struct {
	Name, UID, Node string
	Group           string
	Index, Slot     int
	// Made is the hash of what it was made from, By the attempt that made it.
	Made, By string
	// Running says that its supervisor runs; Leaving that it is being deleted.
	Running, Leaving bool
	Trouble          trouble
}

// view is what one activity sees of the pods of its run: one list and one watch, whatever their number.
type view struct {
	stop   context.CancelFunc
	ended  chan struct{}
	synced func() bool

	mu      sync.Mutex
	pods    map[string]pod
	changed chan struct{} // holds one token after a change
	fault   error         // why listing or watching fails; nil once it works again
}

// see begins to look at the pods of a run.
func see(ctx context.Context, client kubernetes.Interface, namespace, run string) *view {
	pods := client.CoreV1().Pods(namespace)
	v := &view{ended: make(chan struct{}), pods: make(map[string]pod), changed: make(chan struct{}, 1)}
	// The calls are cancelled with the watching; cache has contexts of its own only in part.
	ctx, v.stop = context.WithCancel(ctx)
	source := &cache.ListWatch{
		ListWithContextFunc: func(_ context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = ofRun(run)
			list, err := pods.List(ctx, o)
			v.failed(err)
			return list, err
		},
		WatchFuncWithContext: func(_ context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.LabelSelector = ofRun(run)
			w, err := pods.Watch(ctx, o)
			v.failed(err)
			return w, err
		},
	}
	informer := cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(source, client), &corev1.Pod{}, 0, cache.Indexers{})
	_ = informer.SetTransform(strip) // fails only after its start
	_ = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { v.failed(err) })
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { v.put(o) },
		UpdateFunc: func(_, o any) { v.put(o) },
		DeleteFunc: func(o any) { v.drop(o) },
	})
	v.synced = func() bool { return err == nil && registration.HasSynced() }
	go func() {
		defer close(v.ended)
		informer.RunWithContext(ctx)
	}()
	return v
}

// close ends the watching.
func (v *view) close() {
	v.stop()
	<-v.ended
}

// strip keeps of a pod what is looked at: a run may have ten thousand.
func strip(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	slim := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion, DeletionTimestamp: p.DeletionTimestamp,
		Labels: p.Labels, Annotations: map[string]string{annotationMade: p.Annotations[annotationMade], annotationBy: p.Annotations[annotationBy]},
	}}
	slim.Spec.NodeName = p.Spec.NodeName
	slim.Status.Phase, slim.Status.Reason, slim.Status.Message = p.Status.Phase, p.Status.Reason, p.Status.Message
	if p.Status.Phase != corev1.PodRunning {
		slim.Status.Conditions = p.Status.Conditions
		slim.Status.InitContainerStatuses, slim.Status.ContainerStatuses = p.Status.InitContainerStatuses, p.Status.ContainerStatuses
		for _, c := range p.Spec.Containers {
			slim.Spec.Containers = append(slim.Spec.Containers, corev1.Container{Name: c.Name, Resources: c.Resources})
		}
	}
	return slim, nil
}

func (v *view) put(o any) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	v.mu.Lock()
	v.pods[p.Name] = understood(p, v.pods[p.Name], time.Now())
	v.mu.Unlock()
	v.tell()
}

func (v *view) drop(o any) {
	if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	p, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	v.mu.Lock()
	delete(v.pods, p.Name)
	v.mu.Unlock()
	v.tell()
}

func (v *view) tell() {
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

func (v *view) failed(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = err
}

// understood is what a pod's object says, and before what it said last.
func understood(p *corev1.Pod, before pod, now time.Time) pod {
	if before.UID != string(p.UID) {
		before = pod{}
	}
	index, _ := strconv.Atoi(p.Labels[labelIndex])
	slot, err := strconv.Atoi(p.Labels[labelSlot])
	if err != nil {
		slot = -1 // nobody's: it is made anew
	}
	return pod{
		Name: p.Name, UID: string(p.UID), Node: p.Spec.NodeName,
		Group: p.Labels[labelGroup], Index: index, Slot: slot, Made: p.Annotations[annotationMade], By: p.Annotations[annotationBy],
		Running: p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil,
		Leaving: p.DeletionTimestamp != nil,
		Trouble: troubleOf(p, before.Trouble, now),
	}
}

// settle waits for the first whole picture. It gives up when the API server refuses to give one.
func (v *view) settle(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !v.synced() {
		select {
		case <-ctx.Done():
			if err := v.lastFault(); err != nil {
				return fmt.Errorf("listing the pods of the run: %w", err)
			}
			return context.Cause(ctx)
		case <-ticker.C:
		}
		if err := v.lastFault(); refusal(err) != "" {
			return fmt.Errorf("listing the pods of the run: %w", err)
		}
	}
	return nil
}

func (v *view) lastFault() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fault
}

// all returns the pods by name, as they are now.
func (v *view) all() map[string]pod {
	v.mu.Lock()
	defer v.mu.Unlock()
	copied := make(map[string]pod, len(v.pods))
	for name, p := range v.pods {
		copied[name] = p
	}
	return copied
}

// each calls f for the pod of each seat, with the zero pod where there is none.
func (v *view) each(wanted []seat, f func(seat, pod)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range wanted {
		f(s, v.pods[s.pod])
	}
}
