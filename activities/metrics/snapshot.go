package metrics

// snapshot is what a histogram or timer of Testground's SDK says of its values. It says it once a second, and either
// of all values so far, or, for a resetting one, of those since the last time; the file doesn't tell which.
type snapshot struct {
	Count int64
	Mean  float64
	Min   float64
	Max   float64
	// Points are known percentiles between 0 and 1, ascending.
	Points []point
}

type point struct{ Share, Value float64 }

// continues says whether s, written after before, can hold the values of before again. One that can't starts anew: its
// count fell, or the count stayed and the values are others, or its range shrank at both ends.
func (s snapshot) continues(before snapshot) bool {
	switch {
	case s.Count < before.Count:
		return false
	case s.Count == before.Count:
		return s.Mean == before.Mean && s.Min == before.Min && s.Max == before.Max
	}
	return s.Min <= before.Min || s.Max >= before.Max
}

// into adds the values that a snapshot stands for: those between two percentiles are spread evenly between their values.
// Count, sum, least and greatest are exact.
func (s snapshot) into(d *distribution) {
	if s.Count <= 0 {
		return
	}
	var with distribution
	points := append([]point{{0, s.Min}}, s.Points...)
	points = append(points, point{1, s.Max})
	var given int64
	for i := 1; i < len(points); i++ {
		from, to := points[i-1], points[i]
		through := int64(to.Share*float64(s.Count) + 0.5)
		spread(&with, from.Value, to.Value, through-given)
		given = max(given, through)
	}
	with.sum, with.lost = 0, 0
	with.addSum(s.Mean * float64(s.Count))
	with.min, with.max = s.Min, s.Max
	d.merge(&with)
}

// steps is how many values at most stand for those between two percentiles.
const steps = 64

// spread adds n values, evenly from low (left out) to high.
func spread(d *distribution, low, high float64, n int64) {
	if n <= 0 {
		return
	}
	parts := min(n, steps)
	for i := range parts {
		times := n / parts
		if i < n%parts {
			times++
		}
		share := float64(i+1) / float64(parts)
		d.add(low*(1-share)+high*share, times)
	}
}
