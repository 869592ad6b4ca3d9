package conformance

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
)

const ms = time.Millisecond

func delay(d time.Duration) *pipelines.Duration { return new(pipelines.Duration(d)) }
func part(p float64) *pipelines.Share           { return new(pipelines.Share(p)) }
func rate(bits int64) *pipelines.Bandwidth      { return new(pipelines.Bandwidth(bits)) }

// rows are the table.
func rows() []row {
	return slices.Concat(delays(), losses(), damages(), bandwidths(), ways(), changes())
}

func delays() []row {
	all := []row{
		{name: "no shape", steps: []step{{check: func(s *stand) error {
			return errors.Join(s.untouched(s.a, s.b[0]), s.untouched(s.b[0], s.a))
		}}}},
		jittered("jitter uniform", "uniform", spread{least: 90 * ms, tenth: 97 * ms, median: 120 * ms, top: 138 * ms, most: 150 * ms}),
		jittered("jitter normal", "normal", spread{least: 0, tenth: 93 * ms, median: 120 * ms, top: 150 * ms, most: 240 * ms}),
		jittered("jitter by default", "", spread{least: 0, tenth: 93 * ms, median: 120 * ms, top: 150 * ms, most: 240 * ms}),
		jittered("jitter pareto", "pareto", spread{least: 102 * ms, tenth: 106 * ms, median: 115 * ms, top: 145 * ms, most: 240 * ms}),
		{name: "jitter keeps the order", steps: []step{{
			shape: pipelines.Shape{Latency: delay(30 * ms), Jitter: delay(20 * ms), Distribution: "uniform"},
			check: func(s *stand) error {
				got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: s.packets(1000), Interval: 2 * ms})
				return errors.Join(wholesome("jitter", got), drawn("loss", got.Sent-got.Received, got.Sent, 0, 0))
			},
		}}},
		{name: "reorder 25 %", steps: []step{{
			shape: pipelines.Shape{Latency: delay(100 * ms), Reorder: part(.25)},
			check: func(s *stand) error {
				got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: s.packets(800), Interval: 4 * ms})
				overtaking := 0
				for _, l := range got.Latencies {
					if l < 50*ms {
						overtaking++
					}
				}
				return errors.Join(
					drawn("reorder", overtaking, got.Sent, .25, .25),
					drawn("loss", got.Sent-got.Received, got.Sent, 0, 0))
			},
		}}},
	}
	for _, latency := range []time.Duration{1 * ms, 10 * ms, 50 * ms, 200 * ms} {
		all = append(all, row{name: fmt.Sprint("latency ", latency), steps: []step{{
			shape: pipelines.Shape{Latency: delay(latency)},
			check: func(s *stand) error { return errors.Join(s.latency(latency), s.untouched(s.b[0], s.a)) },
		}}})
	}
	return append(all,
		row{name: "latency 50ms over IPv6", six: true, steps: []step{{
			shape: pipelines.Shape{Latency: delay(50 * ms)},
			check: func(s *stand) error { return errors.Join(s.latency(50*ms), s.untouched(s.b[0], s.a)) },
		}}},
		row{name: "first exchange", steps: []step{{
			shape: pipelines.Shape{Latency: delay(60 * ms)}, back: pipelines.Shape{Latency: delay(40 * ms)},
			check: func(s *stand) error {
				took := s.exchanges(s.a, s.b[0], 2)
				return errors.Join(
					atLeast("the first exchange", took[0], 100*ms),
					atMost("the first exchange", took[0], max(took[1], 100*ms)*11/10))
			},
		}}})
}

// latency checks a constant one.
func (s *stand) latency(want time.Duration) error {
	got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: s.packets(200), Interval: 5 * ms})
	return errors.Join(
		atLeast("the least latency", got.Quantile(0), want),
		atMost("the median latency", got.Quantile(.5), want),
		wholesome("latency", got),
		drawn("loss", got.Sent-got.Received, got.Sent, 0, 0))
}

// spread is what 120 ms with a jitter of 30 ms have to come to: the least latency and a high one at least, the tenth part,
// the median and the greatest at most.
type spread struct{ least, tenth, median, top, most time.Duration }

// jittered sends packets so far apart that they don't hold each other up.
func jittered(name, distribution string, want spread) row {
	return row{name: name, steps: []step{{
		shape: pipelines.Shape{Latency: delay(120 * ms), Jitter: delay(30 * ms), Distribution: distribution},
		check: func(s *stand) error {
			got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: 120, Interval: 40 * ms})
			// How far a packet is late depends on the machine, and so does the greatest latency: only half of the last hundredth.
			return errors.Join(
				atLeast("the least latency", got.Quantile(0), want.least),
				atMost("a tenth of the latencies", got.Quantile(.1), want.tenth),
				atMost("the median latency", got.Quantile(.5), want.median+8*ms),
				atLeast("the greatest latency", got.Quantile(1), want.top),
				atMost("nearly all latencies", got.Quantile(.98), want.most),
				wholesome(name, got))
		},
	}}}
}

func losses() []row {
	var all []row
	for _, c := range []struct {
		share   float64
		packets int
	}{{.001, 16_000}, {.01, 8000}, {.05, 4000}, {.5, 1000}, {1, 200}} {
		all = append(all, row{name: fmt.Sprintf("loss %g %%", 100*c.share), steps: []step{{
			shape: pipelines.Shape{Loss: part(c.share)},
			check: func(s *stand) error {
				got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: s.packets(c.packets), Interval: ms / 2})
				return errors.Join(
					drawn("loss", got.Sent-got.Received, got.Sent, c.share, c.share),
					wholesome("loss", got), s.untouched(s.b[0], s.a))
			},
		}}})
	}
	return append(all,
		row{name: "loss 5 % over IPv6", six: true, steps: []step{{
			shape: pipelines.Shape{Loss: part(.05)},
			check: func(s *stand) error {
				got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: s.packets(4000), Interval: ms / 2})
				return errors.Join(drawn("loss", got.Sent-got.Received, got.Sent, .05, .05), wholesome("loss", got))
			},
		}}},
		row{name: "loss in runs", steps: []step{{
			shape: pipelines.Shape{Loss: part(.1), LossCorr: part(.5)},
			check: func(s *stand) error { return runs(s.arrivals(s.a, s.b[0], s.packets(8000), ms/2), .1, .5) },
		}}})
}

// runs checks a share of losses that come in runs: the share, and how often a loss follows another.
func runs(came []bool, loss, correlation float64) error {
	lost, pairs, after := 0, 0, 0
	for i, ok := range came {
		if ok {
			continue
		}
		lost++
		if i+1 < len(came) {
			after++
			if !came[i+1] {
				pairs++
			}
		}
	}
	n := float64(len(came))
	// Packets that share their fate count for fewer.
	deviation := math.Sqrt(loss * (1 - loss) / n * (1 + correlation) / (1 - correlation))
	var err error
	if share := float64(lost) / n; math.Abs(share-loss) > 4.5*deviation {
		err = fmt.Errorf("loss: %.2f %%, asked for %.2f ± %.2f %%", 100*share, 100*loss, 450*deviation)
	}
	again := loss + correlation*(1-loss)
	return errors.Join(err, drawn("loss right after a loss", pairs, after, again, again))
}

func damages() []row {
	return []row{
		{name: "duplicate 10 %", steps: []step{{
			shape: pipelines.Shape{Duplicate: part(.1)},
			check: func(s *stand) error {
				got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: s.packets(3000), Interval: ms})
				return errors.Join(
					drawn("duplicates", got.Duplicates, got.Sent, .1, .1),
					drawn("loss", got.Sent-got.Received, got.Sent, 0, 0))
			},
		}}},
		{name: "duplicate 5 % under delay", six: true, steps: []step{{
			shape: pipelines.Shape{Duplicate: part(.05), Latency: delay(20 * ms)},
			check: func(s *stand) error {
				got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: s.packets(3000), Interval: ms})
				return errors.Join(
					drawn("duplicates", got.Duplicates, got.Sent, .05, .05),
					atLeast("the least latency", got.Quantile(0), 20*ms),
					drawn("loss", got.Sent-got.Received, got.Sent, 0, 0))
			},
		}}},
		// Replaced whole: half of the packets damaged, then none.
		{name: "corrupt 50 %, then nothing", steps: []step{
			{shape: pipelines.Shape{Corrupt: part(.5)}, check: func(s *stand) error { return s.corrupt(.5) }},
			{check: func(s *stand) error { return s.untouched(s.a, s.b[0]) }},
		}},
		{name: "corrupt 5 %, then latency", steps: []step{
			{shape: pipelines.Shape{Corrupt: part(.05), Loss: part(.2), Duplicate: part(.2)}, check: func(s *stand) error { return nil }},
			{shape: pipelines.Shape{Latency: delay(20 * ms)}, check: func(s *stand) error { return s.latency(20 * ms) }},
			{shape: pipelines.Shape{Corrupt: part(.05)}, check: func(s *stand) error { return s.corrupt(.05) }},
		}},
	}
}

// corrupt checks a share of damaged packets. A bit may flip where it is noticed on the way, and the packet is lost, and few
// where it hurts nobody.
func (s *stand) corrupt(share float64) error {
	// The receiver's kernel counts what it notices to be damaged among what it has lost, so that count means nothing here.
	got, err := prober.Measure(s.Context(), s.endpoint(s.a), s.endpoint(s.b[0]),
		prober.SeriesOptions{Packets: s.packets(3000), Interval: ms, Size: 1000})
	return errors.Join(err,
		drawn("corruption", got.Corrupted+got.Sent-got.Received, got.Sent, .97*share, share),
		drawn("corruption that can be seen", got.Corrupted, got.Sent, .85*share, share))
}

func bandwidths() []row {
	var all []row
	for _, mbit := range []int64{1, 10, 100} {
		all = append(all, row{name: fmt.Sprintf("bandwidth %d Mbit/s", mbit), alone: mbit == 100, steps: []step{{
			shape: pipelines.Shape{Bandwidth: rate(mbit * 1e6)},
			check: func(s *stand) error { return errors.Join(s.bandwidth(s.b[0], mbit*1e6), s.untouched(s.b[0], s.a)) },
		}}})
	}
	return append(all,
		row{name: "bandwidth shared", more: 1, steps: []step{{
			shape: pipelines.Shape{Bandwidth: rate(4e6)},
			check: func(s *stand) error { return s.shared(4e6) },
		}}},
		row{name: "bandwidth over delay", steps: []step{{
			shape: pipelines.Shape{Bandwidth: rate(10e6), Latency: delay(50 * ms), Queue: new(int64(50))},
			check: func(s *stand) error { return s.bandwidth(s.b[0], 10e6) },
		}}},
		row{name: "queue of 10", steps: []step{{
			shape: pipelines.Shape{Bandwidth: rate(1e6), Queue: new(int64(10))},
			check: func(s *stand) error {
				// All at once: the queue takes its ten, and those go at once that a bucket may have in hand (4 ms or so).
				got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: 60, Size: 1250, Patience: 500 * ms})
				if got.Received < 10 || got.Received > 16 {
					return fmt.Errorf("of 60 packets at once %d got through a queue of 10", got.Received)
				}
				return atLeast("the greatest latency", got.Quantile(1), 90*ms)
			},
		}}},
		row{name: "TCP over 10 Mbit/s", alone: true, steps: []step{{
			shape: pipelines.Shape{Bandwidth: rate(10e6), Latency: delay(50 * ms)},
			back:  pipelines.Shape{Bandwidth: rate(10e6), Latency: delay(50 * ms)},
			check: func(s *stand) error {
				// Of 1,500 bytes 1,448 are data.
				got := s.upload(s.a, s.b[0], 1500*ms, 4000*ms) * 1500 / 1448
				if got < .9*10e6 || got > 1.06*10e6 {
					return fmt.Errorf("TCP over 10 Mbit/s with 50 ms each way: %.2f Mbit/s", got/1e6)
				}
				return nil
			},
		}}})
}

// bandwidth checks how much gets through. Where the machine can't even send more than that, it is an upper bound.
func (s *stand) bandwidth(to links.Instance, want int64) error {
	got, err := prober.Throughput(s.Context(), s.endpoint(s.a), s.endpoint(to), prober.ThroughputOptions{
		Rate: want, For: max(time.Second, time.Duration(40*1500*8*float64(time.Second)/float64(want)))})
	if err != nil {
		return err
	}
	if got.Received < .95*min(float64(want), .9*got.Sent) || got.Received > 1.05*float64(want) {
		return fmt.Errorf("%.2f of %.2f Mbit/s get through (%.2f were sent)", got.Received/1e6, float64(want)/1e6, got.Sent/1e6)
	}
	return nil
}

// shared sends to two instances at once by a link that they share.
func (s *stand) shared(want int64) error {
	var rates [2]prober.Rate
	var errs [2]error
	var both sync.WaitGroup
	for i := range rates {
		both.Go(func() {
			rates[i], errs[i] = prober.Throughput(s.Context(), s.endpoint(s.a), s.endpoint(s.b[i]),
				prober.ThroughputOptions{Rate: want, For: time.Second, Patience: 2 * time.Second})
		})
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	// The two don't begin and end as one: by so much may the sum be off.
	if sum := rates[0].Received + rates[1].Received; sum > 1.25*float64(want) || sum < .8*float64(want) {
		return fmt.Errorf("%.2f and %.2f Mbit/s get through where they share %.2f", rates[0].Received/1e6, rates[1].Received/1e6, float64(want)/1e6)
	}
	return nil
}

func ways() []row {
	return []row{
		{name: "each way by itself", steps: []step{{
			shape: pipelines.Shape{Latency: delay(30 * ms)}, back: pipelines.Shape{Loss: part(.2)},
			check: func(s *stand) error {
				back := s.series(s.b[0], s.a, prober.SeriesOptions{Packets: s.packets(1000), Interval: ms})
				return errors.Join(s.latency(30*ms),
					drawn("loss of the way back", back.Sent-back.Received, back.Sent, .2, .2),
					atMost("the latency of the way back", back.Quantile(.5), 0))
			},
		}}},
		{name: "a plan's rules", more: 2, steps: []step{{
			shape: pipelines.Shape{Latency: delay(100 * ms)},
			plan: func(s *stand) links.Plan {
				return links.Plan{
					Default: links.Shape{Shape: pipelines.Shape{Latency: delay(0)}},
					Rules: []links.Rule{
						{To: netip.PrefixFrom(s.b[1].Data, 32), Shape: links.Shape{Shape: pipelines.Shape{Latency: delay(40 * ms)}}},
						{To: netip.PrefixFrom(s.b[2].Data, 32), Shape: links.Shape{Shape: pipelines.Shape{Loss: part(.5)}}},
					},
				}
			},
			check: func(s *stand) error {
				slow := s.series(s.a, s.b[1], prober.SeriesOptions{Packets: 100, Interval: 5 * ms})
				lossy := s.series(s.a, s.b[2], prober.SeriesOptions{Packets: s.packets(1000), Interval: ms})
				return errors.Join(
					s.untouched(s.a, s.b[0]),
					atLeast("the latency of the rule", slow.Quantile(0), 40*ms), atMost("the latency of the rule", slow.Quantile(.5), 40*ms),
					drawn("the rule's loss", lossy.Sent-lossy.Received, lossy.Sent, .5, .5))
			},
		}}},
	}
}

// changes are rows about what becomes of packets while what is asked changes.
func changes() []row {
	return []row{
		{name: "changed under way", alone: true, steps: []step{
			{shape: pipelines.Shape{Latency: delay(40 * ms)}, check: func(s *stand) error { return s.latency(40 * ms) }},
			{shape: pipelines.Shape{Latency: delay(10 * ms)}, check: func(s *stand) error {
				if err := s.latency(10 * ms); err != nil {
					return err
				}
				return s.changing(0, 1, 2, 1, 0)
			}},
			{shape: pipelines.Shape{Bandwidth: rate(5e6), Latency: delay(10 * ms)}, check: func(s *stand) error { return s.bandwidth(s.b[0], 5e6) }},
			{check: func(s *stand) error { return s.untouched(s.a, s.b[0]) }},
		}},
	}
}

// changing changes what all rows are asked, step by step, while packets are on their way, and sees that none gets lost.
func (s *stand) changing(steps ...int) error {
	var changing sync.WaitGroup
	changing.Go(func() {
		for _, n := range steps {
			time.Sleep(200 * ms)
			s.table.apply(s, n)
		}
		s.table.apply(s, 1)
	})
	got := s.series(s.a, s.b[0], prober.SeriesOptions{Packets: 1500, Interval: ms, Size: 100})
	changing.Wait()
	return errors.Join(drawn("loss while shapes change", got.Sent-got.Received, got.Sent, 0, 0))
}
