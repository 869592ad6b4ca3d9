package pipelines

import "slices"

// Together are sets of groups whose instances are behind one router (NAT) in some state of the data network: a ground of
// several machines keeps each set on one of them, since a router is in one place. Groups stand in the order of the
// pipeline; sets that share a group are one.
func (r *Resolved) Together() [][]string {
	var sets [][]string
	for _, s := range r.Stages {
		for _, n := range networksOf(s) {
			for _, router := range n.NAT {
				if !router.PerInstance {
					sets = join(sets, router.Groups)
				}
			}
		}
	}
	for _, set := range sets {
		slices.SortFunc(set, func(a, b string) int { return r.position(a) - r.position(b) })
	}
	return sets
}

// networksOf are the states of the data network that a stage, or one of its events, asks for.
func networksOf(s Stage) []*Network {
	var all []*Network
	if s.Network != nil {
		all = append(all, s.Network)
	}
	if s.Run != nil {
		for _, e := range s.Run.Events {
			if e.Network != nil {
				all = append(all, e.Network)
			}
		}
	}
	return all
}

// join adds a set, as one with those that it shares a group with.
func join(sets [][]string, groups []string) [][]string {
	union := slices.Clone(groups)
	var apart [][]string
	for _, set := range sets {
		if !slices.ContainsFunc(set, func(g string) bool { return slices.Contains(groups, g) }) {
			apart = append(apart, set)
			continue
		}
		for _, g := range set {
			if !slices.Contains(union, g) {
				union = append(union, g)
			}
		}
	}
	return append(apart, union)
}

func (r *Resolved) position(group string) int {
	return slices.IndexFunc(r.Groups, func(g Group) bool { return g.Name == group })
}
