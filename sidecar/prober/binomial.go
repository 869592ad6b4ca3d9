package prober

import "math"

// confidence bounds false alarms: a figure counts as wrong when less than this share of all measurements of a link that
// is right would be as far off to that side.
const confidence = 0.0005

// tooMany says whether k of n are more than a share of at most p explains.
func tooMany(k, n int, p float64) bool { return k > 0 && atLeast(k, n, p) < confidence }

// tooFew says whether k of n are fewer than a share of at least p explains.
func tooFew(k, n int, p float64) bool { return k < n && 1-atLeast(k+1, n, p) < confidence }

// atLeast is the probability that at least k of n happen when each does with probability p.
func atLeast(k, n int, p float64) float64 {
	switch {
	case k <= 0:
		return 1
	case k > n || p <= 0:
		return 0
	case p >= 1:
		return 1
	}
	// The terms are summed from the side that has less of the whole, so that nothing is lost in the difference.
	if float64(k) <= float64(n)*p {
		return 1 - terms(0, k-1, n, p)
	}
	return terms(k, n, n, p)
}

// terms sums the probabilities that exactly first, first+1, … last of n happen.
func terms(first, last, n int, p float64) float64 {
	sum := 0.0
	for i := first; i <= last; i++ {
		sum += math.Exp(logChoose(n, i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return min(sum, 1)
}

func logChoose(n, k int) float64 {
	all, _ := math.Lgamma(float64(n + 1))
	these, _ := math.Lgamma(float64(k + 1))
	others, _ := math.Lgamma(float64(n - k + 1))
	return all - these - others
}
