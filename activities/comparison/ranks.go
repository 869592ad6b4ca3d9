// Package comparison says whether a run's figures differ from those of other runs: by how much, how sure that is, and
// whether it is more than a tolerance. It is pure: samples in, findings out.
package comparison

import (
	"math"
	"slices"
)

// exactPairs is up to how many pairs of values, without ties, the distribution of U is counted out.
const exactPairs = 2500

// MannWhitney is the two-sided test of whether values of b tend to be greater or smaller than those of a. U counts the
// pairs in which b's value is the greater one, ties by half; p is the probability of a U at least as far from its middle
// where there is no difference. Few values without ties are counted out exactly; else U is taken as normally
// distributed, with the corrections for ties and continuity. Without values on both sides p is 1.
//
// H. B. Mann, D. R. Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other",
// Annals of Mathematical Statistics 18 (1947).
func MannWhitney(a, b []float64) (u, p float64) {
	n, m := len(a), len(b)
	if n == 0 || m == 0 {
		return 0, 1
	}
	ranks, ties := rankSum(a, b)
	u = ranks - float64(m)*float64(m+1)/2
	if ties == 0 && n*m <= exactPairs {
		return u, exactly(n, m, u)
	}
	total := float64(n + m)
	middle := float64(n) * float64(m) / 2
	variance := float64(n) * float64(m) / 12 * (total + 1 - ties/(total*(total-1)))
	if variance <= 0 { // all values are the same
		return u, 1
	}
	z := max(math.Abs(u-middle)-0.5, 0) / math.Sqrt(variance)
	return u, min(math.Erfc(z/math.Sqrt2), 1)
}

// rankSum adds up the ranks of b's values among all, and the correction that ties ask for: the sum of t³-t over all
// groups of t equal values.
func rankSum(a, b []float64) (sum, ties float64) {
	type value struct {
		v   float64
		ofB bool
	}
	all := make([]value, 0, len(a)+len(b))
	for _, v := range a {
		all = append(all, value{v, false})
	}
	for _, v := range b {
		all = append(all, value{v, true})
	}
	slices.SortFunc(all, func(x, y value) int {
		switch {
		case x.v < y.v:
			return -1
		case x.v > y.v:
			return 1
		}
		return 0
	})
	for i := 0; i < len(all); {
		j, own := i, 0
		for ; j < len(all) && all[j].v == all[i].v; j++ {
			if all[j].ofB {
				own++
			}
		}
		sum += float64(own) * float64(i+1+j) / 2 // the mean of the ranks i+1 … j
		if t := float64(j - i); t > 1 {
			ties += t*t*t - t
		}
		i = j
	}
	return sum, ties
}

// exactly is the two-sided probability of a U as far out as u, counted out over all ways to mix n and m values.
func exactly(n, m int, u float64) float64 {
	ways := arrangements(n, m)
	tail := min(int(math.Round(u)), n*m-int(math.Round(u)))
	sum, all := 0.0, 0.0
	for i, w := range ways {
		all += w
		if i <= tail {
			sum += w
		}
	}
	return min(2*sum/all, 1)
}

// arrangements counts, for every U from 0 to n·m, the orders of n and m values that have it: the coefficients of the
// Gaussian binomial, as a product of (1-x^(n+i))/(1-x^i).
func arrangements(n, m int) []float64 {
	ways := make([]float64, n*m+1)
	ways[0] = 1
	for i := 1; i <= m; i++ {
		for u := n * m; u >= n+i; u-- {
			ways[u] -= ways[u-n-i]
		}
		for u := i; u <= n*m; u++ {
			ways[u] += ways[u-i]
		}
	}
	return ways
}

// Delta is Cliff's: how much more often b's value is the greater one of a pair than the smaller one, from -1 to 1.
func Delta(u float64, n, m int) float64 {
	if n == 0 || m == 0 {
		return 0
	}
	return 2*u/(float64(n)*float64(m)) - 1
}

// mostPaired is from how many values on each side a shift is estimated: of more, as many are taken at even ranks.
const mostPaired = 400

// Shift is by how much b's values are greater than a's (Hodges and Lehmann: the median of all differences), with the
// interval that holds the true shift in 1-alpha of all cases.
func Shift(a, b []float64, alpha float64) (shift, low, high float64) {
	a, b = thinned(a), thinned(b)
	if len(a) == 0 || len(b) == 0 {
		return 0, 0, 0
	}
	differences := make([]float64, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			differences = append(differences, y-x)
		}
	}
	slices.Sort(differences)
	n, m := float64(len(a)), float64(len(b))
	out := int(math.Floor(n*m/2 - quantile(1-alpha/2)*math.Sqrt(n*m*(n+m+1)/12)))
	out = min(max(out, 0), (len(differences)-1)/2)
	return median(differences), differences[out], differences[len(differences)-1-out]
}

// thinned are values in order, at most mostPaired of them.
func thinned(values []float64) []float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) <= mostPaired {
		return sorted
	}
	few := make([]float64, mostPaired)
	for i := range few {
		few[i] = sorted[(2*i+1)*len(sorted)/(2*mostPaired)]
	}
	return few
}

// median of sorted values, which must not be empty.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return sorted[n/2-1]/2 + sorted[n/2]/2
}

// quantile is that of the standard normal distribution.
func quantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }
