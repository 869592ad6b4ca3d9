package links

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/groundplan/groundplan/pipelines"
)

// fourRegions is what 1,000 instances in four groups with a full matrix are asked.
func fourRegions(instances int) (Seats, Layers) {
	names := []string{"eu", "us", "ap", "sa"}
	var groups []string
	matrix := map[string]map[string]pipelines.Duration{}
	for i, from := range names {
		groups = append(groups, fmt.Sprintf("%s:%d:%s", from, instances/len(names), from))
		matrix[from] = map[string]pipelines.Duration{}
		for j, to := range names {
			matrix[from][to] = pipelines.Duration(1+i*10+j*7) * 1e6
		}
	}
	return seated(groups...), Layers{Stage: pipelines.Network{Matrix: matrix, Default: pipelines.Shape{Bandwidth: ptr(pipelines.Bandwidth(100e6))}}}
}

// twoRules gives every instance a plan of its own.
func twoRules(seats Seats) map[int]Plan {
	plans := map[int]Plan{}
	for i := range seats.Instances {
		plans[i] = Plan{
			Default: Shape{Shape: pipelines.Shape{Latency: ptr(pipelines.Duration(i+1) * 1e5)}},
			Rules: []Rule{
				{netip.PrefixFrom(home((i*37)%len(seats.Instances)), 28).Masked(), Shape{Shape: pipelines.Shape{Loss: ptr(pipelines.Share(0.01))}}},
				{netip.PrefixFrom(home((i*91)%len(seats.Instances)), 32), Shape{Shape: pipelines.Shape{Policy: "drop"}}},
			},
		}
	}
	return plans
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		seats, layers := fourRegions(n)
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			for b.Loop() {
				made(b, seats, layers)
			}
		})
		layers.Plans = twoRules(seats)
		b.Run(fmt.Sprintf("plans=%d", n), func(b *testing.B) {
			for b.Loop() {
				made(b, seats, layers)
			}
		})
	}
	var groups []string
	for i := range 1000 {
		groups = append(groups, fmt.Sprintf("g%d:1:r%d", i, i%20))
	}
	_, layers := fourRegions(4)
	seats := seated(groups...)
	b.Run("groups=1000", func(b *testing.B) {
		for b.Loop() {
			made(b, seats, layers)
		}
	})
}

func BenchmarkPath(b *testing.B) {
	seats, layers := fourRegions(1000)
	layers.Plans = twoRules(seats)
	s := made(b, seats, layers)
	for i := 0; b.Loop(); i++ {
		s.Path(i%1000, seats.Instances[(i*7)%1000].Data)
	}
}
