package conformance

import (
	"fmt"
	"math"
)

// doubt is the probability with which a right share is called wrong, on either side.
const doubt = 5e-5

// drawn says, as an error, when a number of packets out of n can't be had from a share between least and most, each
// packet by itself.
func drawn(what string, got, n int, least, most float64) error {
	low, high := interval(n, least), interval(n, most)
	if got < low.least || got > high.most {
		return fmt.Errorf("%s: %d of %d packets (%.3f %%), asked for %.4g %%: between %d and %d would do",
			what, got, n, 100*float64(got)/float64(n), 100*most, low.least, high.most)
	}
	return nil
}

// bounds are the least and the most of something that is drawn by lot, but for a doubt on either side.
type bounds struct{ least, most int }

// interval bounds how many of n packets are hit with that probability each.
func interval(n int, p float64) bounds {
	if p <= 0 {
		return bounds{0, 0}
	}
	if p >= 1 {
		return bounds{n, n}
	}
	b := bounds{least: -1, most: n}
	below := 0.0
	for k := range n + 1 {
		below += chance(n, k, p)
		if b.least < 0 && below > doubt {
			b.least = k
		}
		if below >= 1-doubt {
			b.most = k
			break
		}
	}
	return b
}

// chance is the probability that exactly k of n are hit.
func chance(n, k int, p float64) float64 {
	all, _ := math.Lgamma(float64(n + 1))
	hit, _ := math.Lgamma(float64(k + 1))
	missed, _ := math.Lgamma(float64(n - k + 1))
	return math.Exp(all - hit - missed + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}
