package pipelines

import (
	"slices"
	"strings"
)

// nearest returns the candidate that was likely meant by name, or "".
func nearest(name string, candidates []string) string {
	const longest = 64
	if name == "" || len(name) > longest {
		return ""
	}
	lower := strings.ToLower(name)
	squeezed := strings.NewReplacer("-", "", "_", "").Replace(lower)
	best, distance := "", 1+max(1, len(name)/3)
	for _, c := range candidates {
		if len(c) > longest || c == name {
			continue
		}
		folded := strings.ToLower(c)
		d := editDistance(lower, folded)
		if squeezed == strings.NewReplacer("-", "", "_", "").Replace(folded) {
			d = 0
		}
		if d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours.
func editDistance(a, b string) int {
	before, previous := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		current := make([]int, len(b)+1)
		current[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			current[j+1] = min(previous[j+1]+1, current[j]+1, previous[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				current[j+1] = min(current[j+1], before[j-1]+1)
			}
		}
		before, previous = previous, current
	}
	return previous[len(b)]
}

// known lists names for a message, at most ten.
func known(names []string) string {
	if len(names) == 0 {
		return "none is known here"
	}
	sorted := slices.Sorted(slices.Values(names))
	if len(sorted) > 10 {
		return "known: " + strings.Join(sorted[:10], ", ") + ", …"
	}
	return "known: " + strings.Join(sorted, ", ")
}
