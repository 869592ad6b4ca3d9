package metrics

import (
	"maps"
	"math"
	"slices"

	"github.com/groundplan/groundplan/pipelines"
)

// exactly is how many values are kept as they are, before they are counted in buckets.
const exactly = 4096

// bucketBits is how many bits of a value's mantissa its bucket keeps. Half a bucket is at most 2^-11 of the value, so
// that a percentile is off by less than 0.05 %.
const bucketBits = 10

// distribution summarises any number of values in bounded memory, by the scheme of HdrHistogram: buckets whose width
// grows with the value. The exponent and the upper bits of a float64 are such a bucket by themselves, so that there is
// no range to choose, and fractions, zero and negative values need no care.
type distribution struct {
	kind     Kind
	count    int64
	sum      float64
	lost     float64 // what rounding took from sum (Kahan)
	min, max float64
	exact    []weighted
	buckets  map[int64]int64
}

// Kind is what the values of a metric stand for.
type Kind string

// The kinds. What was measured as several of them under one name is KindValues.
const (
	KindValues Kind = "values" // each for itself: point, histogram, timer
	KindTotals Kind = "totals" // what each instance counted, by full name: counter, meter
	KindLast   Kind = "last"   // the last of each instance, by full name: gauge, ewma
)

// of notes what kind of values are added.
func (d *distribution) of(kind Kind) *distribution {
	switch d.kind {
	case "":
		d.kind = kind
	case kind:
	default:
		d.kind = KindValues
	}
	return d
}

// weighted is a value that was seen a number of times.
type weighted struct {
	value float64
	times int64
}

// add counts a value, n times.
func (d *distribution) add(value float64, n int64) {
	if n <= 0 {
		return
	}
	if d.count == 0 || value < d.min {
		d.min = value
	}
	if d.count == 0 || value > d.max {
		d.max = value
	}
	d.count += n
	d.addSum(value * float64(n))
	if d.buckets != nil {
		d.buckets[bucketOf(value)] += n
		return
	}
	d.exact = append(d.exact, weighted{value, n})
	if len(d.exact) > exactly {
		d.spill()
	}
}

// addSum adds to the sum, which stays finite: JSON knows no infinity.
func (d *distribution) addSum(value float64) {
	y := value - d.lost
	t := d.sum + y
	d.lost = (t - d.sum) - y
	d.sum = t
	if math.IsInf(t, 0) {
		d.sum, d.lost = math.Copysign(math.MaxFloat64, t), 0
	}
}

// spill goes over from values to buckets.
func (d *distribution) spill() {
	d.buckets = map[int64]int64{}
	for _, w := range d.exact {
		d.buckets[bucketOf(w.value)] += w.times
	}
	d.exact = nil
}

// merge adds what another distribution has counted.
func (d *distribution) merge(other *distribution) {
	if other.count == 0 {
		return
	}
	if other.kind != "" {
		d.of(other.kind)
	}
	if d.count == 0 || other.min < d.min {
		d.min = other.min
	}
	if d.count == 0 || other.max > d.max {
		d.max = other.max
	}
	d.count += other.count
	d.addSum(other.sum)
	if d.buckets == nil && other.buckets == nil && len(d.exact)+len(other.exact) <= exactly {
		d.exact = append(d.exact, other.exact...)
		return
	}
	if d.buckets == nil {
		d.spill()
	}
	for _, w := range other.exact {
		d.buckets[bucketOf(w.value)] += w.times
	}
	for bucket, n := range other.buckets {
		d.buckets[bucket] += n
	}
}

// bucketOf numbers buckets so that greater values have greater numbers; zero has its own, between the signs.
func bucketOf(value float64) int64 {
	if value == 0 {
		return 0
	}
	bucket := int64(math.Float64bits(math.Abs(value))>>(52-bucketBits)) + 1
	if value < 0 {
		return -bucket
	}
	return bucket
}

// middle is the value in the middle of a bucket.
func middle(bucket int64) float64 {
	switch {
	case bucket == 0:
		return 0
	case bucket < 0:
		return -middle(-bucket)
	}
	low := math.Float64frombits(uint64(bucket-1) << (52 - bucketBits))
	high := math.Float64frombits(uint64(bucket) << (52 - bucketBits))
	if math.IsInf(high, 0) {
		return low
	}
	return low + (high-low)/2
}

// summary is what is kept of the values. A percentile is the smallest value that at least so many per cent of all
// values don't exceed.
func (d *distribution) summary() pipelines.Summary {
	if d.count == 0 {
		return pipelines.Summary{}
	}
	s := pipelines.Summary{Count: d.count, Sum: d.sum, Min: d.min, Max: d.max, Mean: d.sum / float64(d.count)}
	ordered := d.ordered()
	for _, p := range []struct {
		share float64
		to    *float64
	}{{0.50, &s.P50}, {0.90, &s.P90}, {0.95, &s.P95}, {0.99, &s.P99}} {
		*p.to = min(max(at(ordered, rank(p.share, d.count)), d.min), d.max)
	}
	return s
}

// rank is the place, from 1, of the value at a share.
func rank(share float64, count int64) int64 {
	return max(int64(math.Ceil(share*float64(count)-1e-9)), 1)
}

// ordered lists values, or the middles of buckets, from the least up.
func (d *distribution) ordered() []weighted {
	if d.buckets == nil {
		return slices.SortedFunc(slices.Values(d.exact), func(a, b weighted) int { return compare(a.value, b.value) })
	}
	list := make([]weighted, 0, len(d.buckets))
	for _, bucket := range slices.Sorted(maps.Keys(d.buckets)) {
		list = append(list, weighted{middle(bucket), d.buckets[bucket]})
	}
	return list
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// at is the value at a rank.
func at(ordered []weighted, rank int64) float64 {
	for _, w := range ordered {
		if rank -= w.times; rank <= 0 {
			return w.value
		}
	}
	return ordered[len(ordered)-1].value
}
