package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/report/plot"
	"github.com/groundplan/groundplan/sidecar/control"
)

// network is what the links of a network stage were found to do, beside what was asked.
type network struct {
	Stage, Shaper, Tolerance string
	Pairs, Faults            int
	Links                    []link
	// Bad are the pairs outside the tolerance, at most 50.
	Bad     []control.Pair
	MoreBad int
}

// link is all probed pairs of which the same was asked, between the same groups.
type link struct {
	From, To, Policy string
	Pairs, Faults    int
	Figures          []figure
}

// figure is one thing asked and what came of it. Lane shows by how much that is more or less, beside what is tolerated;
// of what is a matter of chance, like loss, it is empty.
type figure struct {
	Name, Asked, Achieved string
	Lane                  template.HTML
}

func (m *material) networks() []network {
	var list []network
	for _, p := range m.proofs {
		n := network{Stage: clean(p.stage, 63), Shaper: clean(p.Shaper, 40), Tolerance: p.Tolerance.String(), Pairs: len(p.Pairs)}
		for _, pair := range p.Pairs {
			if pair.OK {
				continue
			}
			n.Faults++
			if len(n.Bad) < 50 {
				n.Bad = append(n.Bad, cleanPair(pair))
			} else {
				n.MoreBad++
			}
		}
		n.Links = links(p.Pairs, float64(p.Tolerance))
		list = append(list, n)
	}
	return list
}

// links puts together the pairs between the same groups that are asked the same.
func links(pairs []control.Pair, tolerance float64) []link {
	of := map[string][]control.Pair{}
	for _, p := range pairs {
		key := groupOf(p.From) + "\x00" + groupOf(p.To) + "\x00" + fmt.Sprint(p.Asked)
		of[key] = append(of[key], p)
	}
	var list []link
	for _, key := range sorted(of) {
		same := of[key]
		l := link{From: clean(groupOf(same[0].From), 63), To: clean(groupOf(same[0].To), 63), Policy: clean(same[0].Asked.Policy, 20), Pairs: len(same)}
		for _, p := range same {
			if !p.OK {
				l.Faults++
			}
		}
		l.Figures = figures(same, tolerance)
		list = append(list, l)
	}
	slices.SortStableFunc(list, func(a, b link) int { return cmp.Compare(b.Faults, a.Faults) })
	return list[:min(len(list), 200)]
}

func groupOf(instance string) string {
	name, _, _ := strings.Cut(instance, "/")
	return name
}

// figures are what was asked of some pairs, each with what was achieved from the least to the most.
func figures(pairs []control.Pair, tolerance float64) []figure {
	asked := pairs[0].Asked
	var list []figure
	add := func(name string, of func(control.Figures) float64, format func(float64) string, judged bool) {
		var values []float64
		for _, p := range pairs {
			values = append(values, of(p.Achieved))
		}
		slices.Sort(values)
		low, high := values[0], values[len(values)-1]
		text := format(low)
		if last := format(high); last != text {
			text += " to " + last
		}
		f := figure{Name: name, Asked: "nothing", Achieved: text}
		if want := of(asked); want > 0 {
			f.Asked = format(want)
			if judged {
				f.Lane = deviation(low/want-1, high/want-1, tolerance)
			}
		}
		list = append(list, f)
	}
	span := func(f func(control.Figures) pipelines.Duration) func(control.Figures) float64 {
		return func(v control.Figures) float64 { return time.Duration(f(v)).Seconds() }
	}
	share := func(f func(control.Figures) pipelines.Share) func(control.Figures) float64 {
		return func(v control.Figures) float64 { return float64(f(v)) }
	}
	if asked.Latency > 0 {
		add("latency", span(func(f control.Figures) pipelines.Duration { return f.Latency }), plot.Seconds.Format, true)
	}
	if asked.Jitter > 0 {
		add("jitter", span(func(f control.Figures) pipelines.Duration { return f.Jitter }), plot.Seconds.Format, false)
	}
	if asked.Bandwidth > 0 {
		add("bandwidth", func(f control.Figures) float64 { return float64(f.Bandwidth) }, plot.Bits.Format, true)
	}
	for _, s := range []struct {
		name string
		of   func(control.Figures) pipelines.Share
	}{
		{"loss", func(f control.Figures) pipelines.Share { return f.Loss }},
		{"duplicates", func(f control.Figures) pipelines.Share { return f.Duplicate }},
		{"reordering", func(f control.Figures) pipelines.Share { return f.Reorder }},
		{"corruption", func(f control.Figures) pipelines.Share { return f.Corrupt }},
	} {
		if s.of(asked) > 0 {
			add(s.name, share(s.of), plot.Share.Format, false)
		}
	}
	if asked.Policy != "" && asked.Policy != "accept" {
		list = append(list, figure{Name: "policy", Asked: clean(asked.Policy, 20), Achieved: policies(pairs)})
	}
	if len(list) == 0 {
		add("latency", span(func(f control.Figures) pipelines.Duration { return f.Latency }), plot.Seconds.Format, false)
	}
	return list
}

// deviation draws from what to what share achieved is off what was asked, over twice what is tolerated to both sides.
func deviation(low, high, tolerance float64) template.HTML {
	if tolerance <= 0 {
		return ""
	}
	at := func(share float64) float64 { return 0.5 + share/(4*tolerance) }
	class := "thick better"
	if max(-low, high) > tolerance {
		class = "thick different"
	}
	// What is hit exactly still has to be seen.
	from, to := at(low), at(high)
	return plot.Lane(
		plot.Part{Shape: plot.Band, From: at(-tolerance), To: at(tolerance), Class: "tolerated"}, plot.Part{Shape: plot.Rule, From: 0.5, Class: "none"},
		plot.Part{Shape: plot.Line, From: min(from, to-0.006), To: max(to, from+0.006), Class: class},
	)
}

func policies(pairs []control.Pair) string {
	var found []string
	for _, p := range pairs {
		if policy := clean(p.Achieved.Policy, 20); !slices.Contains(found, policy) {
			found = append(found, policy)
		}
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
}
