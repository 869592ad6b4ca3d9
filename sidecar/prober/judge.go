package prober

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/links"
)

// floor is by how much a latency may be off whatever is asked: what the way through namespaces and a busy machine takes.
const floor = time.Millisecond

// findings are what the probes of a pair found; what is nil was not probed.
type findings struct {
	answer        *Answer
	spaced, dense *Series
	spacing       SeriesOptions // of spaced
	density       SeriesOptions // of dense
	rate          *Rate
	flood         ThroughputOptions
	within        time.Duration // how well the sender's and the receiver's clocks are compared; 0: they are the same
	notes         []string
	failure       error // why nothing more was found
}

// judgement holds what was found against what is asked.
type judgement struct {
	asked     links.Path
	expected  links.Policy
	tolerance float64
	found     findings
	figures   control.Figures
	faults    []string
}

// judge says what was found of a pair, and what of it is outside the tolerance.
func judge(p pair, found findings, tolerance pipelines.Share) control.Pair {
	j := judgement{asked: p.way, expected: p.expected(), tolerance: float64(tolerance), found: found}
	if found.failure != nil {
		j.fault("can't be probed: %v", found.failure)
	}
	j.policy()
	j.latency()
	j.jitter()
	j.shares()
	j.bandwidth()
	notes := found.notes
	if p.six {
		notes = append([]string{"over IPv6"}, notes...)
	}
	result := control.Pair{
		From: p.fromName, To: p.toName, Asked: asked(p), Achieved: j.figures,
		OK: len(j.faults) == 0, Fault: strings.Join(j.faults, "; "), Note: strings.Join(notes, "; "),
	}
	if found.spaced != nil {
		result.Packets = found.spaced.Sent
	}
	if found.dense != nil && found.dense != found.spaced {
		result.Packets += found.dense.Sent
	}
	return result
}

// asked are the figures that a pair should have.
func asked(p pair) control.Figures {
	w := p.way
	f := control.Figures{Policy: policyName(p.expected())}
	if p.measurable() {
		f.Latency, f.Jitter = pipelines.Duration(w.Latency), pipelines.Duration(w.Jitter)
		f.Loss, f.Duplicate = pipelines.Share(w.Loss), pipelines.Share(w.Duplicate)
		f.Reorder, f.Corrupt = pipelines.Share(w.Reorder), pipelines.Share(w.Corrupt)
		f.Bandwidth = pipelines.Bandwidth(w.Bandwidth)
	}
	return f
}

func policyName(p links.Policy) string {
	return [...]string{links.Accept: "accept", links.Reject: "reject", links.Drop: "drop"}[p]
}

func (j *judgement) fault(format string, arguments ...any) {
	j.faults = append(j.faults, fmt.Sprintf(format, arguments...))
}

// outside notes a figure that is outside the tolerance.
func (j *judgement) outside(what string, got, want any) {
	j.fault("%s %v instead of %v (tolerance %v)", what, got, want, pipelines.Share(j.tolerance))
}

// policy judges what became of the first packets. Those of both protocols have to fare the same.
func (j *judgement) policy() {
	a := j.found.answer
	if a == nil {
		if s := j.found.spaced; s != nil && s.Received > 0 {
			j.figures.Policy = policyName(links.Accept)
		}
		return
	}
	j.figures.Policy = policyName(a.UDP)
	for _, met := range []struct {
		protocol string
		policy   links.Policy
	}{{"UDP", a.UDP}, {"TCP", a.TCP}} {
		if met.policy != j.expected {
			j.fault("policy for %s is %s instead of %s", met.protocol, policyName(met.policy), policyName(j.expected))
		}
	}
}

// latency judges the median.
func (j *judgement) latency() {
	s, p := j.found.spaced, j.asked
	if s == nil {
		return
	}
	if s.Received == 0 {
		if p.Loss < 1 {
			j.fault("not one of %d packets came through", s.Sent)
		}
		return
	}
	// Those that are sent at once, for reordering, are the first ones by latency.
	got := s.Quantile(p.Reorder + (1-p.Reorder)/2)
	j.figures.Latency = pipelines.Duration(rounded(got))
	below := time.Duration(j.tolerance*float64(p.Latency)) + floor + j.found.within + medianError(p, s.Received)
	above := below + serialization(p, j.found.spacing.Size)
	if j.found.spacing.Interval < 2*p.Jitter {
		above += p.Jitter
	}
	if got < p.Latency-below || got > p.Latency+above {
		j.outside("latency", rounded(got), p.Latency)
	}
}

// medianError is by how much jitter may move the median of n latencies.
func medianError(p links.Path, n int) time.Duration {
	off := 4 * 1.2533 * float64(p.Jitter) / math.Sqrt(float64(n))
	if p.Distribution == "pareto" {
		off += float64(p.Jitter) // its median is not its mean
	}
	return time.Duration(off)
}

// spread turns half the distance between the 16th and the 84th percentile into jitter.
var spread = map[string]float64{"": 1, "normal": 1, "uniform": 1 / 0.68, "pareto": 1}

// jitter judges roughly: few packets say little about it.
func (j *judgement) jitter() {
	s, p := j.found.spaced, j.asked
	if s == nil || s.Received < fewest || p.Reorder > 0 {
		return
	}
	got := time.Duration(float64(s.Quantile(.84)-s.Quantile(.16)) / 2 * spread[p.Distribution])
	if p.Jitter == 0 {
		return
	}
	j.figures.Jitter = pipelines.Duration(rounded(got))
	least, most := 0.4, 2.2
	if p.Distribution == "pareto" {
		least, most = 0.1, 6
	}
	if p.Latency < 2*p.Jitter || j.found.spacing.Interval < 2*p.Jitter {
		least = 0 // what can't be sent before it came, or before the one ahead of it, is less spread
	}
	if got < time.Duration(least*float64(p.Jitter))-floor || got > time.Duration(most*float64(p.Jitter))+floor {
		j.fault("jitter %v instead of %v", rounded(got), p.Jitter)
	}
}

// shares judges what happens to some of the packets.
func (j *judgement) shares() {
	s, p := j.found.dense, j.asked
	if s == nil || s.Sent == 0 {
		return
	}
	// Packets damaged in their headers don't come, and those that come twice have two chances.
	headers := float64(14+headers6) / float64(14+j.found.density.Size)
	lost := s.Sent - s.Received
	j.share("loss", lost, s.Sent, p.Loss, p.LossCorrelation, &j.figures.Loss,
		p.Loss*(1-p.Duplicate), 1-(1-p.Loss)*(1-p.Corrupt*headers), min(s.Overrun, lost))
	j.share("duplicate", s.Duplicates, s.Sent, p.Duplicate, p.DuplicateCorrelation+p.LossCorrelation, &j.figures.Duplicate,
		p.Duplicate*(1-p.Loss)*(1-p.Corrupt), p.Duplicate, 0)
	if s.Received == 0 {
		return
	}
	j.share("corrupt", s.Corrupted, s.Received+s.Duplicates, p.Corrupt, p.CorruptCorrelation, &j.figures.Corrupt,
		p.Corrupt*(1-headers), p.Corrupt, 0)
	if soon := (p.Latency - 2*p.Jitter) / 2; soon > 2*floor {
		early := 0
		for _, l := range s.Latencies {
			if l < soon {
				early++
			}
		}
		j.share("reorder", early, s.Received, p.Reorder, p.ReorderCorrelation, &j.figures.Reorder, p.Reorder, p.Reorder, 0)
	}
}

// share judges one of them: k of n, where between least and most of them are right; unknown of the k may be the prober's
// own fault. Where packets depend on those before them it is recorded only, unless it should never happen, or always.
func (j *judgement) share(what string, k, n int, want, correlation float64, figure *pipelines.Share, least, most float64, unknown int) {
	*figure = pipelines.Share(math.Round(float64(k)/float64(n)*1e4) / 1e4)
	if correlation > 0 && want > 0 && want < 1 {
		return
	}
	if tooMany(k-unknown, n, min(most*(1+j.tolerance), 1)) || tooFew(k, n, least*(1-j.tolerance)) {
		j.fault("%s %v instead of %v (%d of %d packets)", what, *figure, pipelines.Share(want), k, n)
	}
}

// bandwidth judges the rate. A link can't be shown to carry more than the prober managed to send.
func (j *judgement) bandwidth() {
	r, p := j.found.rate, j.asked
	if r == nil {
		return
	}
	if r.Packets < 2 {
		j.fault("bandwidth can't be measured: not enough packets came through")
		return
	}
	want := float64(p.Bandwidth)
	j.figures.Bandwidth = pipelines.Bandwidth(significant(r.Received))
	off := j.tolerance + 1.5/float64(r.Packets) + p.Jitter.Seconds()/j.found.flood.For.Seconds()
	// Whether packets are lost before they take bandwidth or after is not laid down.
	if r.Received > want*(1+off) || r.Received < min(want, r.Sent)*(1-p.Loss)*(1-off) {
		j.outside("bandwidth", readable(j.figures.Bandwidth), readable(pipelines.Bandwidth(p.Bandwidth)))
	}
}

// significant rounds to three digits.
func significant(v float64) int64 {
	if v < 1 {
		return 0
	}
	unit := math.Pow(10, max(0, math.Floor(math.Log10(v))-2))
	return int64(math.Round(v/unit) * unit)
}

// readable is a rate as people say it: 9.98Mbit where the canonical text is 9980kbit.
func readable(b pipelines.Bandwidth) string {
	if b >= 1e6 {
		return fmt.Sprintf("%gMbit", float64(b)/1e6)
	}
	return b.String()
}

// rounded leaves out what nobody reads.
func rounded(d time.Duration) time.Duration {
	if d.Abs() >= 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(10 * time.Microsecond)
}
