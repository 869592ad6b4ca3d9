package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/pipelines"
)

// addresses is how many instances a /16 data subnet can hold.
const addresses = 65_000

// room is what a node has left.
type room struct {
	node        string
	cpu, memory int64 // thousandths of a core, bytes
	pods        int64
}

// demand is what the missing instances of one group ask for.
type demand struct {
	group       string
	count       int64
	cpu, memory int64 // of one
}

// demands counts what is missing by groups.
func demands(missing []seat) []demand {
	byGroup := map[*pipelines.Group]*demand{}
	var order []*demand
	for _, s := range missing {
		d := byGroup[s.group]
		if d == nil {
			d = &demand{group: s.group.Name, cpu: s.group.CPU, memory: memoryOf(s.group)}
			byGroup[s.group] = d
			order = append(order, d)
		}
		d.count++
	}
	var all []demand
	for _, d := range order {
		all = append(all, *d)
	}
	return all
}

// site is what is known of the nodes of a cluster before anything is placed.
type site struct {
	rooms []room
	// all counts the nodes, and the rest why some of them don't count.
	all, unready, unselected, tainted, unserved int
	taints                                      map[string]bool
	// avoid are the nodes that would do, but that nothing serves.
	avoid []string
	// image is groundplan's, of the sidecars that are there.
	image string
	// unready nodes by name: their pods are not waited for.
	dead map[string]bool
	// coming are the agents that are there and not ready, each with why.
	coming []string
}

// mayCome says whether there may be more room soon: nodes that are not ready, or that have an agent that is not ready.
func (f *site) mayCome() bool { return len(f.dead) > 0 || len(f.coming) > 0 }

// lacks says why the site can't take what is missing; empty when it can.
func (f *site) lacks(p *placing) string {
	c := p.cluster
	if f.image == "" {
		why := fmt.Sprintf("no sidecar of groundplan is ready on %s", c.name)
		if len(f.coming) > 0 {
			why += ": " + joined(f.coming[:min(len(f.coming), sidecars.Shown)])
		}
		return fmt.Sprintf("%s: look at its pods (kubectl -n %s get pods -l %s=%s)", why, c.system, labelComponent, componentSidecar)
	}
	return first(f.nowhere(c, p.ground.options.NodeSelector), f.short(p.missing, sidecars.Instances(p.in, sidecars.Names(p.in))))
}

// survey looks at the nodes. Where listing them is forbidden, nothing is known and nothing is checked.
func (s *session) survey(ctx context.Context) (*site, error) {
	o := s.ground.options
	found := &site{taints: map[string]bool{}, dead: map[string]bool{}, image: o.Image}
	serving := s.reach.serving()
	for _, a := range serving {
		found.image = first(found.image, a.image)
	}
	found.coming = s.reach.coming()
	nodes, err := patiently(ctx, func() (*corev1.NodeList, error) {
		return s.cluster.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	})
	if apierrors.IsForbidden(err) {
		return found, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the nodes: %w", err)
	}
	fit := map[string]*room{}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		_, served := serving[n.Name]
		if found.counts(n, o.NodeSelector, o.Tolerations, serving == nil || served) {
			free := n.Status.Allocatable
			fit[n.Name] = &room{n.Name, free.Cpu().MilliValue(), free.Memory().Value(), free.Pods().Value()}
		}
	}
	if err := s.subtract(ctx, fit); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(fit)) {
		found.rooms = append(found.rooms, *fit[name])
	}
	return found, nil
}

// counts says whether instances may go to a node, and counts why not.
func (f *site) counts(n *corev1.Node, selector map[string]string, tolerations []corev1.Toleration, served bool) bool {
	f.all++
	ready := readiness(n)
	if !selected(n, selector) {
		f.unselected++
		return false
	}
	if ready == nil || ready.Status != corev1.ConditionTrue || n.Spec.Unschedulable {
		f.unready++
		f.dead[n.Name] = ready == nil || ready.Status != corev1.ConditionTrue
		return false
	}
	if taint := repelling(n, tolerations); taint != "" {
		f.tainted++
		f.taints[taint] = true
		return false
	}
	if !served {
		f.unserved++
		f.avoid = append(f.avoid, n.Name)
	}
	return served
}

// selected says whether a node has the labels of a selector.
func selected(n *corev1.Node, selector map[string]string) bool {
	for key, value := range selector {
		if n.Labels[key] != value {
			return false
		}
	}
	return true
}

// repelling is the first taint of a node that isn't tolerated; empty when there is none.
func repelling(n *corev1.Node, tolerations []corev1.Toleration) string {
	for _, taint := range n.Spec.Taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && !slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool { return tolerates(t, taint) }) {
			return taint.ToString()
		}
	}
	return ""
}

func tolerates(t corev1.Toleration, taint corev1.Taint) bool {
	switch {
	case t.Effect != "" && t.Effect != taint.Effect, t.Key != "" && t.Key != taint.Key:
		return false
	case t.Operator == corev1.TolerationOpExists:
		return true
	}
	return t.Key != "" && t.Value == taint.Value
}

// subtract takes away what pods that are there have asked for. Where listing them is forbidden, all room counts as free.
func (s *session) subtract(ctx context.Context, fit map[string]*room) error {
	o := metav1.ListOptions{ResourceVersion: "0", FieldSelector: "status.phase!=Succeeded,status.phase!=Failed", Limit: 1000}
	for {
		pods, err := patiently(ctx, func() (*corev1.PodList, error) {
			return s.cluster.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		})
		if apierrors.IsForbidden(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking at what the nodes hold: %w", err)
		}
		for i := range pods.Items {
			if r := fit[pods.Items[i].Spec.NodeName]; r != nil {
				cpu, memory := requests(&pods.Items[i])
				r.cpu, r.memory, r.pods = r.cpu-cpu, r.memory-memory, r.pods-1
			}
		}
		if o.Continue = pods.Continue; o.Continue == "" {
			return nil
		}
		o.ResourceVersion = ""
	}
}

// requests are what a pod asks for: of its containers together, or of the largest that runs before them.
func requests(p *corev1.Pod) (cpu, memory int64) {
	for _, c := range p.Spec.Containers {
		cpu += c.Resources.Requests.Cpu().MilliValue()
		memory += c.Resources.Requests.Memory().Value()
	}
	for _, c := range p.Spec.InitContainers {
		cpu = max(cpu, c.Resources.Requests.Cpu().MilliValue())
		memory = max(memory, c.Resources.Requests.Memory().Value())
	}
	return cpu, memory
}

// nowhere says why there is no node at all for instances; empty when there is one.
func (f *site) nowhere(c *cluster, selector map[string]string) string {
	if f.all == 0 || len(f.rooms) > 0 {
		return ""
	}
	var why []string
	if f.unselected > 0 {
		why = append(why, fmt.Sprintf("%d without %s", f.unselected, text(selector)))
	}
	if f.unready > 0 {
		why = append(why, fmt.Sprintf("%d not ready", f.unready))
	}
	if f.tainted > 0 {
		why = append(why, fmt.Sprintf("%d with taints that are not tolerated (%s)", f.tainted, strings.Join(slices.Sorted(maps.Keys(f.taints)), ", ")))
	}
	if f.unserved > 0 {
		why = append(why, fmt.Sprintf("%d without a ready sidecar of groundplan (kubectl -n %s get pods -l %s=%s)", f.unserved, c.system, labelComponent, componentSidecar))
	}
	do := "label nodes, or change --kube-node-selector and --kube-tolerations"
	if f.unselected+f.tainted == 0 {
		do = "look at the nodes and the sidecars on them"
	}
	return fmt.Sprintf("there is no node for instances on %s: of %s, %s: %s", c.name, nodesText(f.all), strings.Join(why, ", "), do)
}

// short says by how much the nodes can't hold what is missing; empty when they can.
func (f *site) short(missing []seat, total int) string {
	if total > addresses {
		return fmt.Sprintf("the data subnet has %d addresses for %d instances: %d too few", addresses, total, total-addresses)
	}
	if f.all == 0 || len(missing) == 0 {
		return ""
	}
	wanted := demands(missing)
	var sum demand
	for _, d := range wanted {
		sum.count, sum.cpu, sum.memory = sum.count+d.count, sum.cpu+d.count*d.cpu, sum.memory+d.count*d.memory
	}
	var have room
	for _, r := range f.rooms {
		have.cpu, have.memory, have.pods = have.cpu+max(r.cpu, 0), have.memory+max(r.memory, 0), have.pods+max(r.pods, 0)
	}
	var lacks []string
	if sum.count > have.pods {
		lacks = append(lacks, fmt.Sprintf("there is room for %d more pods: %d too few", have.pods, sum.count-have.pods))
	}
	if sum.cpu > have.cpu {
		lacks = append(lacks, fmt.Sprintf("they ask for %s and %s are free: %s too few", cores(sum.cpu), cores(have.cpu), cores(sum.cpu-have.cpu)))
	}
	if sum.memory > have.memory {
		lacks = append(lacks, fmt.Sprintf("they ask for %s of memory and %s are free: %s too little", sidecars.Size(sum.memory), sidecars.Size(have.memory), sidecars.Size(sum.memory-have.memory)))
	}
	if len(lacks) == 0 {
		lacks = f.fragments(wanted)
	}
	if len(lacks) == 0 {
		return ""
	}
	return fmt.Sprintf("the cluster can't hold %s more on its %s: %s", sidecars.Count(int(sum.count)), nodesText(len(f.rooms)), strings.Join(lacks, "; "))
}

// fragments finds groups whose instances fit into what is left of all nodes together, but not onto single nodes. The
// largest are placed first, wherever most fit.
func (f *site) fragments(wanted []demand) []string {
	left := slices.Clone(f.rooms)
	slices.SortStableFunc(wanted, func(a, b demand) int { return cmp.Or(cmp.Compare(b.memory, a.memory), cmp.Compare(b.cpu, a.cpu)) })
	var lacks []string
	for _, d := range wanted {
		rest := d.count
		for i := range left {
			r := &left[i]
			n := min(rest, max(r.pods, 0), max(r.memory, 0)/d.memory)
			if d.cpu > 0 {
				n = min(n, max(r.cpu, 0)/d.cpu)
			}
			rest, r.pods, r.memory, r.cpu = rest-n, r.pods-n, r.memory-n*d.memory, r.cpu-n*d.cpu
		}
		if rest > 0 {
			lacks = append(lacks, fmt.Sprintf("%d of group %s find no node with %s and %s of memory left", rest, d.group, cores(d.cpu), sidecars.Size(d.memory)))
		}
	}
	return lacks
}

// quotas are those of the namespace, or none where they may not be looked at.
func (c *cluster) quotas(ctx context.Context) ([]corev1.ResourceQuota, error) {
	list, err := patiently(ctx, func() (*corev1.ResourceQuotaList, error) {
		return c.client.CoreV1().ResourceQuotas(c.namespace).List(ctx, metav1.ListOptions{})
	})
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the quotas of the namespace %s: %w", c.namespace, err)
	}
	return list.Items, nil
}

// countsCPU says whether one of the quotas counts limits of processors: pods without one are refused then.
func countsCPU(quotas []corev1.ResourceQuota) bool {
	return slices.ContainsFunc(quotas, func(q corev1.ResourceQuota) bool {
		_, counted := q.Spec.Hard[corev1.ResourceLimitsCPU]
		return counted
	})
}

// exceeds says which of the quotas doesn't allow what is missing; empty when all do.
func (m *mold) exceeds(quotas []corev1.ResourceQuota, missing []seat) string {
	need := m.needed(missing)
	var lacks []string
	for _, q := range quotas {
		if len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil {
			continue // whether it is about such pods, the API server knows
		}
		for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
			asked, counted := need[name]
			hard, used := q.Status.Hard[name], q.Status.Used[name]
			left := hard.DeepCopy()
			left.Sub(used)
			if counted && asked.Cmp(left) > 0 {
				over := asked.DeepCopy()
				over.Sub(left)
				lacks = append(lacks, fmt.Sprintf("%s: they need %s and %s of %s are left: %s too little", name, asked.String(), left.String(), hard.String(), over.String()))
			}
		}
		if len(lacks) > 0 {
			return fmt.Sprintf("the quota %s of the namespace %s doesn't allow %s more: %s: raise it, or name another namespace (--kube-namespace)",
				q.Name, m.namespace, sidecars.Count(len(missing)), strings.Join(lacks, "; "))
		}
	}
	return ""
}

// needed is what the missing instances take of quotas, by the quotas' names for it.
func (m *mold) needed(missing []seat) map[corev1.ResourceName]resource.Quantity {
	var cpu, memory, cpuLimits, memoryLimits int64
	for _, s := range missing {
		r := resources(s.group, m.limitCPU)
		cpu, memory = cpu+r.Requests.Cpu().MilliValue(), memory+r.Requests.Memory().Value()
		cpuLimits, memoryLimits = cpuLimits+r.Limits.Cpu().MilliValue(), memoryLimits+r.Limits.Memory().Value()
	}
	count := *resource.NewQuantity(int64(len(missing)), resource.DecimalSI)
	cores, bytes := *resource.NewMilliQuantity(cpu, resource.DecimalSI), *resource.NewQuantity(memory, resource.BinarySI)
	return map[corev1.ResourceName]resource.Quantity{
		corev1.ResourcePods: count, "count/pods": count,
		corev1.ResourceCPU: cores, corev1.ResourceRequestsCPU: cores,
		corev1.ResourceMemory: bytes, corev1.ResourceRequestsMemory: bytes,
		corev1.ResourceLimitsCPU:    *resource.NewMilliQuantity(cpuLimits, resource.DecimalSI),
		corev1.ResourceLimitsMemory: *resource.NewQuantity(memoryLimits, resource.BinarySI),
	}
}

func nodesText(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// cores is a number of thousandths of cores for a person.
func cores(milli int64) string {
	if milli == 1000 {
		return "1 core"
	}
	return fmt.Sprintf("%.4g cores", float64(milli)/1000)
}

// text is a selector as its users write it.
func text(selector map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(selector)) {
		parts = append(parts, key+"="+selector[key])
	}
	return strings.Join(parts, ",")
}
