package links

import "slices"

// run is a stretch of addresses, by their last 32 bits, with one path; path is a number of the state's.
type run struct {
	first, last uint32
	path        int
}

// entry is a prefix, by its first address, with its path.
type entry struct {
	first uint32
	bits  int
	path  int
}

// entries are the fewest prefixes of a network that give every run its path, when the longest that holds an address
// counts and the path 0 needs none. What lies between runs belongs to nobody and gets any path. It is the algorithm of
// Draves, King, Venkatachary and Zill, "Constructing Optimal IP Routing Tables" (1999).
func entries(network entry, runs []run) []entry {
	var all []entry
	choices(network, runs).emit(network, 0, &all)
	return all
}

// choice is a node of the tree of prefixes with the paths that it may have at the same cost; none: any will do.
type choice struct {
	paths       []int // in rising order
	left, right *choice
}

func choices(at entry, runs []run) *choice {
	if len(runs) == 0 {
		return &choice{}
	}
	if !slices.ContainsFunc(runs, func(r run) bool { return r.path != runs[0].path }) {
		return &choice{paths: []int{runs[0].path}}
	}
	low, high := at.halves()
	// The run over the middle belongs to both.
	end, _ := slices.BinarySearchFunc(runs, high.first, func(r run, first uint32) int { return order(r.first, first) })
	start := end
	if end > 0 && runs[end-1].last >= high.first {
		start--
	}
	n := &choice{left: choices(low, runs[:end]), right: choices(high, runs[start:])}
	n.paths = both(n.left.paths, n.right.paths)
	return n
}

func order(a, b uint32) int {
	if a < b {
		return -1
	}
	return 1
}

func (e entry) halves() (low, high entry) {
	low, high = e, e
	low.bits++
	high.bits++
	high.first |= 1 << (32 - high.bits)
	return low, high
}

// both is what two halves have in common, else all that either has.
func both(a, b []int) []int {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	var common []int
	for _, p := range a {
		if _, ok := slices.BinarySearch(b, p); ok {
			common = append(common, p)
		}
	}
	if common != nil {
		return common
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// emit lists the prefixes of a node under one that has the path above.
func (n *choice) emit(at entry, above int, all *[]entry) {
	if len(n.paths) == 0 {
		return
	}
	if _, ok := slices.BinarySearch(n.paths, above); !ok {
		above = n.paths[0]
		at.path = above
		*all = append(*all, at)
	}
	if n.left != nil {
		low, high := at.halves()
		n.left.emit(low, above, all)
		n.right.emit(high, above, all)
	}
}
