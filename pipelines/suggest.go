package pipelines

import (
	"slices"
	"strings"
)

// longestName bounds what is compared.
const longestName = 64

// nearest returns the candidate that was likely meant by name, or "". Case, `-` and `_` don't count.
func nearest(name string, candidates []string) string {
	if name == "" || len(name) > longestName {
		return ""
	}
	wanted := squeeze(nil, name)
	var buffer [longestName]byte
	best, distance := "", 1+max(1, len(name)/3)
	for _, c := range candidates {
		if len(c) > longestName || c == name {
			continue
		}
		squeezed := squeeze(buffer[:0], c)
		if d := len(squeezed) - len(wanted); max(d, -d) >= distance {
			continue
		}
		if d := editDistance(wanted, squeezed, distance); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// squeeze appends the bytes of a name that count.
func squeeze(to []byte, name string) []byte {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'A' && c <= 'Z':
			to = append(to, c+'a'-'A')
		case c != '-' && c != '_':
			to = append(to, c)
		}
	}
	return to
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours; it gives up at the limit.
func editDistance(a, b []byte, limit int) int {
	var rows [3][longestName + 1]int
	before, previous, current := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		previous[j] = j
	}
	for i := range len(a) {
		current[0] = i + 1
		least := current[0]
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			current[j+1] = min(previous[j+1]+1, current[j]+1, previous[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				current[j+1] = min(current[j+1], before[j-1]+1)
			}
			least = min(least, current[j+1])
		}
		if least > limit {
			return least
		}
		before, previous, current = previous, current, before
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
