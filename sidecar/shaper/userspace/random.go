package userspace

import "math"

// stream is a series of random numbers that follows from where it began (SplitMix64).
type stream uint64

func (s *stream) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// newStream begins one that differs for every seed and flow.
func newStream(seed, flow uint64) stream {
	s := stream(seed)
	s = stream(s.next() ^ flow)
	return stream(s.next())
}

// choice is made for a share of packets. Both numbers are shares of 1<<32.
type choice struct {
	share, correlation uint64
}

func newChoice(share, correlation float64) choice {
	return choice{share: scaled(share), correlation: scaled(correlation)}
}

func scaled(share float64) uint64 { return uint64(math.Round(min(max(share, 0), 1) * (1 << 32))) }

// made says whether it is made for the next packet. last is what the packet before drew: with the probability of the
// correlation this one draws the same. So the share stays what was asked for, and what grows is the length of the runs;
// netem's own way of correlating also changes the share (5 % with 25 % correlation are 1.4 %).
func (c choice) made(s *stream, last *uint32) bool {
	if c.share == 0 {
		return false
	}
	drawn := s.next()
	if drawn>>32 >= c.correlation {
		*last = uint32(drawn)
	}
	return uint64(*last) < c.share
}

// spread is a distribution of jitter: its quantiles, in units of the jitter, around 0.
type spread [1 << 12]float32

var (
	uniform = newSpread(func(p float64) float64 { return 2*p - 1 })
	normal  = newSpread(func(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) })
	// pareto has the shape parameter 3 that netem's table has, brought to mean 0 and standard deviation 1.
	pareto = newSpread(func(p float64) float64 {
		const mean, deviation = 1.5, 0.8660254037844386
		return (math.Pow(1-p, -1./3) - mean) / deviation
	})
)

// furthest bounds what is drawn, as netem's tables do.
const furthest = 4

func newSpread(quantile func(p float64) float64) *spread {
	var s spread
	for i := range s {
		s[i] = float32(min(max(quantile((float64(i)+0.5)/float64(len(s))), -furthest), furthest))
	}
	return &s
}

func spreadOf(distribution string) *spread {
	switch distribution {
	case "uniform":
		return uniform
	case "pareto":
		return pareto
	}
	return normal
}

// draw is a random deviation of that jitter, in nanoseconds.
func (s *spread) draw(random *stream, jitter int64) int64 {
	return int64(float64(jitter) * float64(s[random.next()>>(64-12)]))
}
