// Package capacity works out how many machines a pipeline needs on a cluster, from what a few of its instances took.
package capacity

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/groundplan/groundplan/activities/kubernetes"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// What an instance takes on a cluster beside its own program, in bytes. docs/performance.md has what was measured.
const (
	// SupervisorMemory is the supervisor's, in the instance's own container; kubernetes.SupervisorShare is what a pod asks
	// for it, on top of what the group declares.
	SupervisorMemory = 5 << 20
	// SandboxMemory is the pod's sandbox (the container runtime's shim and the pause program), which no pod asks for.
	SandboxMemory = 5 << 20
	// NetworkMemory is the kernel's for a pod's namespaces and interfaces, and the sidecar's for the instance.
	NetworkMemory = 256 << 10
)

// window is the shortest time, in seconds, that processor time is taken over: what a program does when it starts may well
// take that long where many start on one machine.
const window = 10

// leastCPU is what an instance is counted with that did nothing measurable, in thousandths of a processor.
const leastCPU = 1

// Group is what instances of a group took, and what one of them is counted with.
type Group struct {
	Name string `json:"name"`
	// Instances is how many the answer is for, Measured how many were run for it.
	Instances int `json:"instances"`
	Measured  int `json:"measured"`
	// Peak is the largest resident set of one, in bytes; 0 when it ended too soon to be measured. Busy is the most that
	// one used of a processor on average, in thousandths: over the time it ran, or ten seconds where that is more.
	Peak int64 `json:"peakMemory"`
	Busy int64 `json:"cpuMillis"`
	// Seconds is how long the longest ran.
	Seconds  float64            `json:"seconds"`
	Outcomes pipelines.Outcomes `json:"outcomes"`
	// Memory and CPU are what one instance is counted with: what the file declares, else what was measured with the
	// headroom on top. Memory has the overheads in it.
	Memory int64 `json:"memoryEach"`
	CPU    int64 `json:"cpuEach"`
	// Notes are sentences about this group that change what the answer is worth.
	Notes []string `json:"notes,omitempty"`
}

// Groups lays what was measured in a run of a sample over the groups of the pipeline. headroom is what is added to what
// was measured, as a share of it. instances is how many of all groups together are asked about, dealt out as the file
// deals them out; 0: as many as the file has.
func Groups(p pipelines.Resolved, measured map[string]runs.Group, headroom float64, instances int) []Group {
	counts := share(p.Groups, instances)
	groups := make([]Group, len(p.Groups))
	var largest Group
	for i, g := range p.Groups {
		m := measured[g.Name]
		groups[i] = Group{
			Name: g.Name, Instances: counts[i], Measured: int(m.PeakMemory.Count), Outcomes: m.Outcomes,
			Peak: int64(m.PeakMemory.Max), Seconds: m.Seconds.Max,
		}
		groups[i].Busy = int64(math.Ceil(1000 * m.CPU.Max / max(m.Seconds.Mean, window)))
		largest.Peak, largest.Busy = max(largest.Peak, groups[i].Peak), max(largest.Busy, groups[i].Busy)
	}
	for i, g := range p.Groups {
		groups[i].count(g, headroom, largest)
	}
	return groups
}

// count decides what one instance is counted with.
func (g *Group) count(declared pipelines.Group, headroom float64, largest Group) {
	peak, busy := g.Peak, g.Busy
	switch {
	case g.Measured == 0 && declared.Memory == 0:
		g.note("it takes no part in the stage that was measured: counted like the largest group that does (--stage chooses another)")
		peak, busy = largest.Peak, largest.Busy
	case g.Measured > 0 && peak == 0 && declared.Memory == 0:
		g.note("its instances ended too soon for their memory to be measured")
	}
	more := func(n int64) int64 { return int64(math.Ceil(float64(n) * (1 + headroom))) }
	need := more(peak) + SupervisorMemory
	g.Memory, g.CPU = max(need, kubernetes.SupervisorShare), max(more(busy), leastCPU)
	if declared.Memory > 0 {
		g.Memory = int64(declared.Memory) + kubernetes.SupervisorShare
		if peak+SupervisorMemory > g.Memory {
			g.note(fmt.Sprintf("one took %s, and the file gives an instance %s: on a cluster it would be killed for it; declare at least %s",
				pipelines.Size(roundUp(peak)), declared.Memory, pipelines.Size(roundUp(more(peak)))))
		}
	}
	g.Memory += SandboxMemory + NetworkMemory
	if declared.CPU > 0 {
		g.CPU = declared.CPU
	}
	if failed := g.Measured - g.Outcomes.Succeeded; failed > 0 {
		g.note(fmt.Sprintf("%d of %d measured instances did not succeed: what they would have taken later is not known", failed, g.Measured))
	} else if g.Measured > 0 && g.Seconds < window && declared.CPU == 0 {
		g.note(fmt.Sprintf("its instances were done within %.2g s: their processor time is counted as if spread over %d s", g.Seconds, window))
	}
}

func (g *Group) note(text string) { g.Notes = append(g.Notes, text) }

// roundUp gives whole mebibytes, as people write them.
func roundUp(n int64) int64 { return (n + 1<<20 - 1) >> 20 << 20 }

// share deals n instances out over the groups as the file does: what remains goes to those that lost most by rounding.
func share(groups []pipelines.Group, n int) []int {
	counts := make([]int, len(groups))
	total := 0
	for i, g := range groups {
		counts[i] = g.Instances
		total += g.Instances
	}
	if n <= 0 || total == 0 {
		return counts
	}
	left := n
	order := make([]int, len(groups))
	for i, g := range groups {
		counts[i] = n * g.Instances / total
		left -= counts[i]
		order[i] = i
	}
	lost := func(i int) int { return n * groups[i].Instances % total }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(lost(b), lost(a)) })
	for _, i := range order[:left] {
		counts[i]++
	}
	return counts
}

// Machine is a type of machine, and how many of it are needed.
type Machine struct {
	Provider string `json:"provider"`
	Region   string `json:"region,omitempty"`
	Type     string `json:"type"`
	// Mode is how the network of the nodes is set up, where that decides how many pods they hold.
	Mode string `json:"mode,omitempty"`
	VCPU int    `json:"vcpu"`
	// Memory is in bytes, Pods a node's limit.
	Memory int64 `json:"memory"`
	Pods   int   `json:"pods"`
	// Each is how many instances a node holds on average, Nodes how many nodes are needed: 0 when an instance is larger
	// than such a node. Bound is what they are full of first: memory, cpu or pods.
	Each  int    `json:"instancesPerNode"`
	Nodes int    `json:"nodes"`
	Bound string `json:"boundBy"`
	// Hour is what nodes and control plane cost an hour, in US dollars.
	Hour float64 `json:"pricePerHour"`
}

// Machines is how many of each type the groups need: by provider as in the file, the cheapest first.
func Machines(prices Prices, groups []Group) []Machine {
	var all []Machine
	for _, p := range prices.Providers {
		var some []Machine
		for _, t := range p.Types {
			some = append(some, p.machines(t, groups)...)
		}
		slices.SortFunc(some, func(a, b Machine) int {
			return cmp.Or(compareBool(a.Nodes == 0, b.Nodes == 0), cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Nodes, b.Nodes),
				cmp.Compare(a.Type, b.Type), cmp.Compare(a.Pods, b.Pods))
		})
		all = append(all, some...)
	}
	return all
}

// machines works one type out, in those of its modes that make a difference.
func (p Provider) machines(t Type, groups []Group) []Machine {
	var all []Machine
	modes := slices.SortedFunc(maps.Keys(t.Pods), func(a, b string) int { return cmp.Compare(t.Pods[a], t.Pods[b]) })
	for _, mode := range modes {
		m := p.machine(t, mode, t.Pods[mode], groups)
		if len(all) == 0 || m.Nodes > 0 && m.Nodes < all[len(all)-1].Nodes {
			all = append(all, m)
		}
	}
	return all
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// machine works one type out. Each group is thought of as on nodes of its own, the last of which it may share: no
// scheduler needs fewer nodes for like instances, and a mixture of unlike ones seldom needs more.
func (p Provider) machine(t Type, mode string, pods int, groups []Group) Machine {
	m := Machine{Provider: p.Name, Region: p.Region, Type: t.Name, Mode: mode, VCPU: t.VCPU, Memory: int64(t.Memory), Pods: pods}
	if mode == "default" {
		m.Mode = ""
	}
	total := millis(1000 * t.VCPU)
	memory := int64(t.Memory - p.Reserved.Memory.of(t.Memory, pods) - p.Reserved.System.Memory)
	cpu := int64(total - p.Reserved.CPU.of(total, pods) - p.Reserved.System.CPU)
	nodes, instances := 0.0, 0
	full := map[string]float64{}
	for _, g := range groups {
		if g.Instances == 0 {
			continue
		}
		each, bound := holds(g, memory, cpu, int64(pods-p.Pods))
		if each <= 0 {
			m.Bound = bound
			return m
		}
		instances += g.Instances
		nodes += float64(g.Instances) / float64(each)
		full[bound] += float64(g.Instances) / float64(each)
	}
	m.Nodes = int(math.Ceil(nodes - 1e-9))
	if m.Nodes == 0 {
		return m
	}
	m.Each = int(math.Round(float64(instances) / nodes))
	m.Hour = math.Round(1e4*(p.Control+float64(m.Nodes)*t.Price)) / 1e4
	for _, bound := range bounds {
		if m.Bound == "" || full[bound] > full[m.Bound] {
			m.Bound = bound
		}
	}
	return m
}

// The bounds of a node.
var bounds = []string{"memory", "cpu", "pods"}

// holds is how many instances of a group a node holds, and what it is full of then.
func holds(g Group, memory, cpu, pods int64) (each int64, bound string) {
	each, bound = memory/g.Memory, "memory"
	if n := cpu / g.CPU; n < each {
		each, bound = n, "cpu"
	}
	if pods < each {
		each, bound = pods, "pods"
	}
	return each, bound
}
