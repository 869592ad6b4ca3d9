package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

// callsAtOnce is how many pods are made or removed at a time; the client's own rate bounds them too.
const callsAtOnce = 64

// clear removes the pods that can't be kept, and returns when their names are free.
func (p *placing) clear(ctx context.Context) error {
	if len(p.stale) == 0 {
		return nil
	}
	if err := p.remove(ctx, p.stale); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("pods of an earlier attempt are still there after a minute, %s among them", p.stale[0].Name))
	defer cancel()
	return p.until(ctx, func() bool {
		there := p.view.all()
		return !slices.ContainsFunc(p.stale, func(old pod) bool { return there[old.Name].UID == old.UID })
	})
}

// until waits for what the view has to show, and reports on the way.
func (p *placing) until(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.view.changed:
		}
	}
	return nil
}

// remove deletes pods, many at a time. On a node that is dead nobody would ever say that they are gone.
func (p *placing) remove(ctx context.Context, pods []pod) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(callsAtOnce)
	for _, old := range pods {
		group.Go(func() error {
			o := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(old.UID)}
			if p.site.dead[old.Node] {
				o.GracePeriodSeconds = new(int64)
			}
			_, err := patiently(ctx, func() (struct{}, error) {
				return struct{}{}, p.cluster.client.CoreV1().Pods(p.cluster.namespace).Delete(ctx, old.Name, o)
			})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("deleting the pod %s: %w", old.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// make creates the missing pods, many at a time. What the API server refuses for one pod of a group it isn't asked for
// the others.
func (p *placing) make(ctx context.Context) error {
	var mu sync.Mutex
	refused := map[string]string{} // by group
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(callsAtOnce)
	for _, s := range p.missing {
		group.Go(func() error {
			mu.Lock()
			why := refused[s.group.Name]
			mu.Unlock()
			if why == "" {
				var err error
				if why, err = p.cluster.create(ctx, p.mold.pod(s), false); err != nil {
					return err
				}
			}
			if why != "" {
				mu.Lock()
				defer mu.Unlock()
				refused[s.group.Name], p.faults[s.name()] = why, why
			}
			return nil
		})
	}
	return group.Wait()
}

// await waits until every instance's pod runs, or has a trouble that won't pass. What isn't either at the stage's deadline
// is a fault.
func (p *placing) await(ctx context.Context) error {
	ticker := time.NewTicker(500 * time.Millisecond) // troubles become final as time goes by
	defer ticker.Stop()
	deadline := time.NewTimer(time.Until(p.in.Deadline))
	defer deadline.Stop()
	for {
		open := p.standing(time.Now())
		if len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			p.late(open)
			return nil
		case <-p.view.changed:
			// A wave of changes is one look; a look at ten thousand pods costs something.
			select {
			case <-time.After(50*time.Millisecond + time.Duration(len(p.wanted))*20*time.Microsecond):
			case <-ctx.Done():
			}
		case <-ticker.C:
		}
	}
}

// standing looks at every pod, reports, and returns those that may still come to run.
func (p *placing) standing(now time.Time) []pod {
	var open []pod
	running := 0
	progress := stage.Progress{Total: len(p.wanted)}
	kinds := map[string]int{}
	p.view.each(p.wanted, func(s seat, there pod) {
		switch {
		case there.Running && there.Trouble.Reason == "":
			running++
			delete(p.faults, s.name())
			return
		case p.faults[s.name()] != "":
			return
		case there.Trouble.final(now):
			if isPull(there.Trouble.Reason) && p.hopeless[p.mold.images[s.group.Name]] == (hopelessness{}) {
				p.hopeless[p.mold.images[s.group.Name]] = hopelessness{there.Trouble.Text, now}
			}
			p.faults[s.name()] = there.Trouble.Text
			p.firstFault = first(p.firstFault, s.name()+": "+there.Trouble.Text)
			return
		case p.hopeless[p.mold.images[s.group.Name]].outlasted(now):
			p.faults[s.name()] = p.hopeless[p.mold.images[s.group.Name]].text
			return
		case there.Leaving && there.Name != "":
			p.faults[s.name()] = "its pod was deleted by somebody else"
			return
		case there.Trouble.Reason != "":
			kinds[there.Trouble.Text]++
		}
		if there.Name == "" {
			there.Name = s.pod
			there.Group, there.Index = s.group.Name, s.index
		}
		open = append(open, there)
	})
	progress.Placed, progress.Failed, progress.FirstFailure = running, len(p.faults), p.firstFault
	if len(kinds) > 0 {
		text := slices.MinFunc(slices.Collect(maps.Keys(kinds)), func(a, b string) int { return kinds[b] - kinds[a] })
		progress.Note = fmt.Sprintf("%d wait: %s", kinds[text], text)
	}
	p.report(progress)
	return open
}

// othersWithin is how long other pods with the same image have to come to run once one could not be pulled for good: a node
// that had the image before needs no longer. Kubelets tell one after the other, and some take their time.
const othersWithin = 3 * time.Second

// hopelessness is an image that can't be pulled, and since when that is known.
type hopelessness struct {
	text  string
	since time.Time
}

func (h hopelessness) outlasted(now time.Time) bool {
	return h.text != "" && now.Sub(h.since) >= othersWithin
}

// late makes faults of the pods that were still on their way when the time was over, with the last that the cluster had
// to say about one of them.
func (p *placing) late(open []pod) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	last := p.cluster.lastEvent(ctx, open[0].Name)
	for _, there := range open {
		text := "its pod has not come to run in the stage's time"
		switch {
		case there.Trouble.Text != "":
			text += ": " + there.Trouble.Text
		case there.UID == "":
			text += ": it is not there"
		case there.Node == "":
			text += ": no node was found for it"
		case last != "":
			text += " on node " + there.Node + ": " + last
		}
		p.faults[instance(there.Group, there.Index)] = text
	}
}

// lastEvent is what the cluster said last about a pod; empty when it said nothing that can be read.
func (c *cluster) lastEvent(ctx context.Context, name string) string {
	events, err := c.client.CoreV1().Events(c.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil || len(events.Items) == 0 {
		return ""
	}
	newest := slices.MaxFunc(events.Items, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	return sentence(newest.Reason + ": " + newest.Message)
}

// held are the instances that run, by node, in the order of their slots.
func (s *session) held() map[string][]control.Pod {
	held := map[string][]control.Pod{}
	for _, p := range s.view.all() {
		if p.Running && p.Node != "" && slices.Contains(s.state.Groups, p.Group) {
			held[p.Node] = append(held[p.Node], control.Pod{Slot: p.Slot, UID: p.UID, Name: p.Name})
		}
	}
	for _, pods := range held {
		slices.SortFunc(pods, func(a, b control.Pod) int { return a.Slot - b.Slot })
	}
	return held
}

// lead is the node with the lowest slot.
func lead(held map[string][]control.Pod) string {
	lead, lowest := "", -1
	for name, pods := range held {
		if slot := pods[0].Slot; lowest < 0 || slot < lowest {
			lead, lowest = name, slot
		}
	}
	return lead
}

// peers has a sidecar started on every node, and returns the nodes as they see each other.
func (s *session) peers(ctx context.Context, names []string, held map[string][]control.Pod) ([]control.Peer, error) {
	peers := make([]control.Peer, len(names))
	position := positions(names)
	err := s.onAll(ctx, s.named(names), func(ctx context.Context, n *node) error {
		return s.patient(ctx, n, s.ground.limits.answers, func(ctx context.Context) error {
			if _, err := n.agent.Ensure(ctx, s.in.Run.ID, nodeagent.Ask{Seed: s.in.Seed}); err != nil {
				return fmt.Errorf("starting the run's sidecar on node %s: %w", n.name, err)
			}
			info, err := n.agent.Node(ctx)
			if err != nil {
				return fmt.Errorf("asking node %s for its address: %w", n.name, err)
			}
			if !info.Address.IsValid() {
				return fmt.Errorf("node %s: %w", n.name, errNoAddress)
			}
			peers[position[n.name]] = control.Peer{Name: n.name, Address: info.Address, Slots: ranges(held[n.name])}
			return nil
		})
	})
	return peers, err
}

// ranges are the slots of pods, which are in order, as ranges with both ends in.
func ranges(pods []control.Pod) [][2]int {
	var all [][2]int
	for _, p := range pods {
		if last := len(all) - 1; last >= 0 && all[last][1] == p.Slot-1 {
			all[last][1] = p.Slot
		} else {
			all = append(all, [2]int{p.Slot, p.Slot})
		}
	}
	return all
}

// named are the nodes with those names.
func (s *session) named(names []string) []*node {
	var all []*node
	for _, name := range names {
		all = append(all, s.node(name))
	}
	return all
}

// positions are the places of names in their list.
func positions(names []string) map[string]int {
	all := make(map[string]int, len(names))
	for i, name := range names {
		all[name] = i
	}
	return all
}

func joined(names []string) string { return joinedBy(names, ", ") }

func joinedBy(parts []string, by string) string { return strings.Join(parts, by) }
