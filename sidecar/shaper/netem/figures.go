package netem

import (
	"math"
	"slices"
	"sync"

	"github.com/groundplan/groundplan/sidecar/links"
)

// unlimited is a rate, in bytes per second, at which any packet takes less than a nanosecond: the kernel's token buckets
// then never hold anything back.
const unlimited uint64 = 1e15

// smallest is the size of the smallest packets worth counting, in bytes.
const smallest = 40

// generous is how many packets may be delayed where no bandwidth bounds them: so many that memory ends first.
const generous = 1 << 20

// limit is how many packets a netem may hold. It is never what drops: delayed packets have a place each, however small
// they are, and those that wait for bandwidth have their own queue. More than that arrive only when most of them would be
// dropped by the bandwidth anyway.
func limit(p links.Path) uint32 {
	if p.Bandwidth == 0 {
		return generous
	}
	longest := p.Latency + furthest*p.Jitter
	delayed := float64(p.Bandwidth) / (8 * smallest) * longest.Seconds()
	return uint32(min(delayed+float64(p.Queue)+1, generous))
}

// burst is how long a lane may send at once after it was idle, in bytes: 4 ms, in which a kernel's timer surely fires,
// and at least two packets.
func burst(bitsPerSecond int64) int64 { return max(bitsPerSecond/8/250, 3200) }

// share is a probability as the kernel has it.
func share(p float64) uint32 { return uint32(math.Round(min(max(p, 0), 1) * math.MaxUint32)) }

// furthest is how far, in units of the jitter, a delay is from its mean at most: the kernel's tables end there.
const furthest = 4

const (
	tableSize  = 1 << 12
	tableScale = 1 << 13 // stands for one unit of the jitter
)

// table is a distribution of jitter: its quantiles.
type table [tableSize]int16

var tables = map[string]*table{
	"uniform": newTable(func(p float64) float64 { return 2*p - 1 }),
	"normal":  newTable(func(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }),
	// pareto has the shape parameter 3, brought to mean 0 and standard deviation 1.
	"pareto": newTable(func(p float64) float64 {
		const mean, deviation = 1.5, 0.8660254037844386
		return (math.Pow(1-p, -1./3) - mean) / deviation
	}),
}

func newTable(quantile func(p float64) float64) *table {
	var t table
	for i := range t {
		q := min(max(quantile((float64(i)+0.5)/tableSize), -furthest), furthest)
		t[i] = int16(min(math.Round(q*tableScale), math.MaxInt16))
	}
	return &t
}

func tableOf(distribution string) *table {
	if t := tables[distribution]; t != nil {
		return t
	}
	return tables["normal"]
}

// gilbert is the chance of a chain of losses to begin and to end, such that the share of packets lost is as asked and the
// chance that a packet shares the fate of the one before is larger by the correlation.
func gilbert(loss, correlation float64) (begin, end float64) {
	return loss * (1 - correlation), (1 - loss) * (1 - correlation)
}

// correlated is the threshold that the kernel has to be given for a share when its random numbers are correlated: each is
// then a weighted mean of a fresh one and the one before, and such means are seldom small. Given the share itself it would
// make 1.4 % of 5 % with a correlation of 25 %.
func correlated(share, correlation float64) float64 {
	if share <= 0 || share >= 1 || correlation <= 0 {
		return share
	}
	means, _ := quantiles.LoadOrStore(correlation, sync.OnceValue(func() []float64 { return simulated(correlation) }))
	sorted := means.(func() []float64)()
	return sorted[int(share*float64(len(sorted)))]
}

var quantiles sync.Map // of func() []float64, by correlation

// simulated is what the kernel's numbers are like, sorted.
func simulated(correlation float64) []float64 {
	numbers := make([]float64, 1<<17)
	// A sequence of low discrepancy would not do here: successive numbers have to be independent. This one is SplitMix64.
	seed, last := uint64(1), 0.5
	for i := range numbers {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		fresh := float64((z^z>>31)>>11) / (1 << 53)
		last = (1-correlation)*fresh + correlation*last
		numbers[i] = last
	}
	slices.Sort(numbers)
	return numbers
}
