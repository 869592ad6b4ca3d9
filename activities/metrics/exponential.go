package metrics

import "math"

// Exponential is a distribution in buckets whose bounds are powers of 2^(2^-Scale), as OpenTelemetry has them: bucket i
// holds values above base^i, up to base^(i+1).
type Exponential struct {
	Scale    int
	Zero     uint64
	Positive Buckets
	Negative Buckets // of the absolute values
}

// Buckets are counts from the bucket Offset on.
type Buckets struct {
	Offset int
	Counts []uint64
}

// finest is the scale that is begun with: at 10 a bucket is 0.07 % wide, as wide as those that values are counted in here.
const finest = 10

// Exponential is the distribution of a series in at most so many buckets (2 or more) for either sign.
func (s Series) Exponential(most int) Exponential {
	var e Exponential
	ordered := s.values.ordered()
	for e.Scale = finest; ; e.Scale-- {
		if e.fill(ordered, most) {
			return e
		}
	}
}

// fill counts values; false says that they take more buckets than there may be.
func (e *Exponential) fill(ordered []weighted, most int) bool {
	e.Zero, e.Positive, e.Negative = 0, Buckets{}, Buckets{}
	for _, w := range ordered {
		switch {
		case w.value == 0:
			e.Zero += uint64(w.times)
		case w.value > 0:
			if !e.Positive.add(bucketAt(w.value, e.Scale), w.times, most) {
				return false
			}
		case !e.Negative.add(bucketAt(-w.value, e.Scale), w.times, most):
			return false
		}
	}
	return true
}

// add counts in a bucket, growing the range to it.
func (b *Buckets) add(bucket int, times int64, most int) bool {
	if len(b.Counts) == 0 {
		b.Offset, b.Counts = bucket, []uint64{0}
	}
	low, high := min(b.Offset, bucket), max(b.Offset+len(b.Counts)-1, bucket)
	if high-low+1 > most {
		return false
	}
	if high-low+1 > len(b.Counts) {
		counts := make([]uint64, high-low+1)
		copy(counts[b.Offset-low:], b.Counts)
		b.Offset, b.Counts = low, counts
	}
	b.Counts[bucket-b.Offset] += uint64(times)
	return true
}

// bucketAt is the bucket of a value above 0.
func bucketAt(value float64, scale int) int {
	fraction, exponent := math.Frexp(value) // value = fraction × 2^exponent, fraction from 0.5 to below 1
	if scale <= 0 {
		if fraction == 0.5 {
			exponent-- // a power of 2 is the upper bound of its bucket
		}
		return (exponent - 1) >> -scale
	}
	if fraction == 0.5 {
		return (exponent-1)<<scale - 1
	}
	steps := math.Log2(fraction*2) * float64(int(1)<<scale)
	return (exponent-1)<<scale + int(math.Ceil(steps)) - 1
}
