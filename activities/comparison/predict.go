package comparison

import "math"

// fewestRuns is how many earlier runs it takes to say what the next one may be like.
const fewestRuns = 3

// Predict is the two-sided probability that one more run lies as far from the others as next does, where nothing has
// changed: Student's t for a single new value, with len(earlier)-1 degrees of freedom. Runs differ from each other more
// than the instances of one run do; this is what keeps that from being taken for a change. Values that are all
// positive are taken by their logarithms: noise on them is a share. With fewer than three runs p is 1.
func Predict(earlier []float64, next float64) float64 {
	if len(earlier) < fewestRuns {
		return 1
	}
	positive := next > 0
	for _, v := range earlier {
		positive = positive && v > 0
	}
	at := func(v float64) float64 {
		if positive {
			return math.Log(v)
		}
		return v
	}
	n, mean := float64(len(earlier)), 0.0
	for _, v := range earlier {
		mean += at(v) / n
	}
	squares := 0.0
	for _, v := range earlier {
		squares += (at(v) - mean) * (at(v) - mean)
	}
	off, rounding := math.Abs(at(next)-mean), 1e-12*max(math.Abs(mean), 1)
	switch spread := math.Sqrt(squares / (n - 1) * (1 + 1/n)); {
	case off <= rounding:
		return 1
	case spread <= rounding: // runs that have always been the same to the last digit: a counter
		return 0
	default:
		return student(off/spread, n-1)
	}
}

// student is the probability that |T| exceeds t, for Student's distribution with that many degrees of freedom.
func student(t, freedom float64) float64 {
	return beta(freedom/(freedom+t*t), freedom/2, 0.5)
}

// beta is the regularised incomplete beta function I_x(a, b), by its continued fraction (NIST DLMF 8.17.22), evaluated
// by Lentz's method.
func beta(x, a, b float64) float64 {
	switch {
	case x <= 0:
		return 0
	case x >= 1:
		return 1
	case x > (a+1)/(a+b+2): // where the fraction converges slowly, the mirrored one is quick
		return 1 - beta(1-x, b, a)
	}
	lgA, _ := math.Lgamma(a)
	lgB, _ := math.Lgamma(b)
	lgAB, _ := math.Lgamma(a + b)
	front := math.Exp(lgAB - lgA - lgB + a*math.Log(x) + b*math.Log1p(-x))
	const tiny, precise = 1e-300, 1e-14
	away := func(v float64) float64 {
		if math.Abs(v) < tiny {
			return tiny
		}
		return v
	}
	c, d := 1.0, 1/away(1-(a+b)*x/(a+1))
	fraction := d
	for m := 1.0; m < 300; m++ {
		even := m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		d, c = 1/away(1+even*d), away(1+even/c)
		fraction *= d * c
		odd := -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		d, c = 1/away(1+odd*d), away(1+odd/c)
		step := d * c
		fraction *= step
		if math.Abs(step-1) < precise {
			break
		}
	}
	return front * fraction / a
}
