package capacity

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/activities/kubernetes"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

const gib, mib = 1 << 30, 1 << 20

// simple is a provider whose figures can be worked out in the head.
const simple = `
asOf: today
providers:
  - name: P
    control: 1
    pods: 2
    reserved:
      memory: {fixed: 1Gi, perPod: 1Mi, tiers: [{next: 4Gi, share: 25%}, {share: 5%}]}
      cpu: {tiers: [{next: 1, share: 10%}]}
      system: {memory: 100Mi, cpu: 100m}
    types:
      - {name: small, vcpu: 2, memory: 4Gi, price: 0.1, pods: {few: 12, many: 102}}
      - {name: tiny, vcpu: 1, memory: 2Gi, price: 0.01, pods: {default: 10}}
`

func prices(t *testing.T, text string) Prices {
	t.Helper()
	p, err := ParsePrices("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultPrices(t *testing.T) {
	p := prices(t, string(DefaultPrices))
	reserve := map[string]int64{}
	for _, provider := range p.Providers {
		for _, ty := range provider.Types {
			for _, pods := range ty.Pods {
				memory := int64(provider.Reserved.Memory.of(ty.Memory, pods))
				if memory <= 0 || memory > int64(ty.Memory)/2 {
					t.Errorf("%s keeps %d of %d bytes", ty.Name, memory, ty.Memory)
				}
				reserve[ty.Name] = max(reserve[ty.Name], memory)
			}
		}
	}
	for name, want := range map[string]int64{ // what providers say of these
		"m6i.4xlarge":   355*mib + 234*11*mib,
		"e2-standard-4": 100*mib + 1*gib + gib*8/10 + gib*8/10,
	} {
		if math.Abs(float64(reserve[name]-want)) > mib {
			t.Errorf("%s keeps %d bytes, not %d", name, reserve[name], want)
		}
	}
}

func TestBadPrices(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "it is empty"},
		{"no providers", "asOf: x", "no providers"},
		{"a wrong word", "providers: [{name: P, prize: 3}]", "prize"},
		{"no unit", "providers: [{name: P, types: [{name: t, vcpu: 1, memory: 4}]}]", "4"},
		{"no processors", "providers: [{name: P, reserved: {system: {cpu: lots}}}]", "write 2 or 250m"},
		{"nothing of a type", "providers: [{name: P, types: [{name: t}]}]", `type "t" of P needs`},
		{"no types", "providers: [{name: P}]", "P needs types"},
		{"no name", "providers: [{}]", "provider 1 has no name"},
		{"pods", "providers: [{name: P, types: [{name: t, vcpu: 1, memory: 4Gi, price: 1, pods: {x: 0}}]}]", "0 pods (x)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParsePrices("f.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "f.yaml") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMachines(t *testing.T) {
	// small: 4 GiB less 1 GiB, 25 % and 100 MiB = 1948 MiB less a MiB a pod; 2 processors less 100m and 100m = 1800m.
	for _, c := range []struct {
		name   string
		groups []Group
		kind   string
		want   Machine
	}{
		{"by memory", []Group{{Instances: 100, Memory: 100 * mib, CPU: 1}}, "small many", Machine{Each: 18, Nodes: 6, Bound: "memory", Hour: 1.6}},
		{"by processors", []Group{{Instances: 100, Memory: mib, CPU: 100}}, "small many", Machine{Each: 18, Nodes: 6, Bound: "cpu", Hour: 1.6}},
		{"by pods", []Group{{Instances: 100, Memory: mib, CPU: 1}}, "small few", Machine{Each: 10, Nodes: 10, Bound: "pods", Hour: 2}},
		{"exactly full", []Group{{Instances: 200, Memory: mib, CPU: 1}}, "small many", Machine{Each: 100, Nodes: 2, Bound: "pods", Hour: 1.2}},
		{"two groups", []Group{{Instances: 9, Memory: mib, CPU: 100}, {Instances: 9, Memory: 100 * mib, CPU: 1}}, "small many",
			Machine{Each: 18, Nodes: 1, Bound: "memory", Hour: 1.1}},
		{"too large", []Group{{Instances: 1, Memory: 3 * gib, CPU: 1}}, "small few", Machine{Bound: "memory"}},
		{"nobody", []Group{{Instances: 0, Memory: 3 * gib}}, "small few", Machine{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, m := range Machines(prices(t, simple), c.groups) {
				if strings.TrimSpace(m.Type+" "+m.Mode) == c.kind {
					got := Machine{Each: m.Each, Nodes: m.Nodes, Bound: m.Bound, Hour: m.Hour}
					if got != c.want {
						t.Errorf("got %+v, want %+v", got, c.want)
					}
					return
				}
			}
			t.Errorf("%s is not among the machines", c.kind)
		})
	}
}

// TestMachinesInOrder has the cheapest first, those that are too small last, and no mode that changes nothing.
func TestMachinesInOrder(t *testing.T) {
	var order []string
	for _, m := range Machines(prices(t, simple), []Group{{Instances: 40, Memory: 800 * mib, CPU: 1}}) {
		order = append(order, m.Type+" "+m.Mode)
	}
	if want := []string{"small few", "tiny "}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

func measured(memory, cpu, seconds float64, succeeded int) runs.Group {
	sum := func(v float64) pipelines.Summary { return pipelines.Summary{Count: 3, Max: v, Mean: v} }
	return runs.Group{Instances: 3, Outcomes: pipelines.Outcomes{Succeeded: succeeded, Failed: 3 - succeeded},
		PeakMemory: sum(memory), CPU: sum(cpu), Seconds: sum(seconds)}
}

func TestGroups(t *testing.T) {
	p := pipelines.Resolved{Groups: []pipelines.Group{
		{Name: "plain", Instances: 60},
		{Name: "declared", Instances: 30, Memory: 64 * mib, CPU: 250},
		{Name: "greedy", Instances: 5, Memory: 8 * mib},
		{Name: "absent", Instances: 5},
	}}
	got := Groups(p, map[string]runs.Group{
		"plain":    measured(100*mib, 20, 40, 3),
		"declared": measured(10*mib, 1, 100, 3),
		"greedy":   measured(20*mib, 0, 0.02, 2),
	}, 0.5, 1001)
	pod := int64(SandboxMemory + NetworkMemory)
	for i, want := range []struct {
		instances   int
		memory, cpu int64
		notes       string
	}{
		{601, 150*mib + SupervisorMemory + pod, 750, ""},
		{300, 64*mib + kubernetes.SupervisorShare + pod, 250, ""},
		{50, 8*mib + kubernetes.SupervisorShare + pod, 1, "one took 20Mi, and the file gives an instance 8Mi: on a cluster it would be killed for it; " +
			"declare at least 30Mi|1 of 3 measured instances did not succeed: what they would have taken later is not known"},
		{50, 150*mib + SupervisorMemory + pod, 750, "it takes no part in the stage that was measured: counted like the largest group that does " +
			"(--stage chooses another)"},
	} {
		g := got[i]
		if g.Instances != want.instances || g.Memory != want.memory || g.CPU != want.cpu || strings.Join(g.Notes, "|") != want.notes {
			t.Errorf("group %s: %+v, want %+v", g.Name, g, want)
		}
	}
}

func TestShortInstances(t *testing.T) {
	p := pipelines.Resolved{Groups: []pipelines.Group{{Name: "a", Instances: 7}}}
	g := Groups(p, map[string]runs.Group{"a": measured(0, 0.02, 0.03, 3)}, 0, 0)[0]
	if g.Instances != 7 || g.Busy != 2 || len(g.Notes) != 2 || !strings.Contains(g.Notes[0], "too soon") || !strings.Contains(g.Notes[1], "spread over 10 s") {
		t.Errorf("got %+v", g)
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		groups []int
		n      int
		want   []int
	}{
		{[]int{1, 2}, 0, []int{1, 2}},
		{[]int{1, 2}, 9, []int{3, 6}},
		{[]int{1, 1, 1}, 10, []int{4, 3, 3}},
		{[]int{5, 995}, 100, []int{1, 99}},
		{[]int{0}, 5, []int{0}},
	} {
		var groups []pipelines.Group
		for _, n := range c.groups {
			groups = append(groups, pipelines.Group{Instances: n})
		}
		if got := share(groups, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%d over %v: %v, want %v", c.n, c.groups, got, c.want)
		}
	}
}

func FuzzPrices(f *testing.F) {
	f.Add([]byte(simple))
	f.Add(DefaultPrices)
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePrices("f", text)
		if err != nil {
			return
		}
		for _, m := range Machines(p, []Group{{Instances: 1000, Memory: 64 * mib, CPU: 10}}) {
			if m.Nodes < 0 || m.Nodes > 1000 || math.IsNaN(m.Hour) {
				t.Errorf("%+v", m)
			}
		}
	})
}
