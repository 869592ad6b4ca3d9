// Package metrics turns the results.out files of instances into summaries. A line is
//
//	{"ts":1,"type":"point","name":"rtt_seconds,peer=3","measures":{"value":0.081}}
//
// and what counts as a value of the metric depends on the type:
//
//	point      measures.value, each line
//	gauge      measures.value, the last line of an instance per full name (with its tags)
//	ewma       measures.rate, likewise the last
//	counter    measures.count, summed over the lines of an instance per full name: a line says what was added since the
//	           one before
//	meter      measures.count, the last line of an instance per full name: it counts from the start of the program, so that
//	           those of several run stages, or of a program that an event started again, are added up
//	histogram  the values that its count, mean, range and percentiles stand for: see snapshot
//	timer      likewise, in the unit that the plan wrote (nanoseconds, from Testground's SDK)
//
// Of a phase, that is of the lines whose ts lies before an event, during or after it, a meter says what it counted meanwhile,
// and the summaries of a histogram or timer say nothing: they are of all its values.
//
// So a counter has one value per instance and full name, and its sum is the sum over all. A histogram, counter or gauge whose line has
// measures.value instead is read as a point. Tags (`,tag=value` behind a name) tell apart what is measured within an
// instance; the summary is over all of them, under the bare name.
package metrics

import (
	"fmt"
	"io"
)

// mostNames bounds how many metrics, and how many sets of tags, one instance may have: a plan that puts a value into the
// name would else take all memory. A line beyond is a bad line.
const mostNames = 10_000

// series is what an instance has said of one metric with one set of tags, where its lines belong together.
type series struct {
	kind    string
	metric  string
	process int
	value   float64 // gauge, ewma: the last; counter, meter: the sum
	last    float64 // meter: what the process has counted to
	current snapshot
}

// tally is what lines come to: all of a file's, or those of a window.
type tally struct {
	// values are those that are known already, by metric.
	values map[string]*distribution
	open   map[string]*series
	// part says that the window is a part of a process's life, of which a summary of all its values says nothing.
	part bool
}

func newTally(part bool) *tally {
	return &tally{values: map[string]*distribution{}, open: map[string]*series{}, part: part}
}

// file reads one instance's results.
type file struct {
	group string
	times Times
	// phases is what the lines of times.Windows come to, and stages those of the group's run stages, in their order; outside
	// is what lies in no stage.
	phases, stages []*tally
	outside        *tally
	*tally
	bad   int
	first string // the first bad line: its number and what is wrong with it
}

// read reads to the end. Lines that are none of the above are counted, the first of them named.
func (f *file) read(r io.Reader) error {
	f.tally, f.outside = newTally(false), newTally(false)
	f.phases, f.stages = nil, nil
	for range f.times.Windows {
		f.phases = append(f.phases, newTally(true))
	}
	for range f.times.Stages[f.group] {
		f.stages = append(f.stages, newTally(false))
	}
	err := lines(r, f.line, func(number int, problem string) {
		if f.bad++; f.bad == 1 {
			f.first = fmt.Sprintf("line %d: %s", number, problem)
		}
	})
	if err != nil {
		return err
	}
	f.finish()
	f.outside.finish()
	for _, t := range append(f.stages, f.phases...) {
		t.finish()
	}
	return nil
}

// line counts one line; the string is what is wrong with it.
func (f *file) line(l line) string {
	// A line that doesn't say when it was written is in no window, and always counts.
	timed := !l.at.IsZero()
	if timed && f.times.superseded(f.group, l.at) {
		return ""
	}
	if _, known := f.values[l.metric]; !known && len(f.values) >= mostNames || len(f.open) >= mostNames {
		return fmt.Sprintf("the instance has more than %d metrics", mostNames)
	}
	stage := f.outside
	if timed {
		if l.process = f.times.stage(f.group, l.at); l.process >= 0 {
			stage = f.stages[l.process]
		}
	}
	if l.Type == "meter" && !l.hasValue() {
		l.gained = f.at(l).counted(l)
	}
	f.take(l)
	stage.take(l)
	if timed {
		for i, w := range f.times.Windows {
			if w.holds(l.at) {
				f.phases[i].take(l)
			}
		}
	}
	return ""
}

// take counts one line.
func (t *tally) take(l line) {
	switch {
	case l.summarises():
		if !t.part {
			t.snapshot(l)
		}
	case l.Type == "gauge" || l.Type == "ewma":
		t.at(l).value = l.number()
	case l.Type == "meter" && !l.hasValue():
		t.at(l).value += l.gained
	case l.Type == "counter" && !l.hasValue():
		t.at(l).value += l.number()
	default:
		t.of(l.metric, KindValues).add(l.number(), 1)
	}
}

// of is the distribution of a metric.
func (t *tally) of(metric string, kind Kind) *distribution {
	d := t.values[metric]
	if d == nil {
		d = &distribution{}
		t.values[metric] = d
	}
	return d.of(kind)
}

// at is the series that a line belongs to.
func (t *tally) at(l line) *series {
	key := l.Type + " " + l.Name
	s := t.open[key]
	if s == nil {
		s = &series{kind: l.Type, metric: l.metric, process: l.process}
		t.open[key] = s
	}
	return s
}

// counted is what a meter has counted since its last line. One of another process, or whose count fell because its program
// was started again, counts from 0.
func (s *series) counted(l line) float64 {
	gained := l.number() - s.last
	if gained < 0 || s.process != l.process {
		gained = max(l.number(), 0)
	}
	s.last, s.process = l.number(), l.process
	return gained
}

// snapshot takes a line of a histogram or timer that summarises.
func (t *tally) snapshot(l line) {
	next := snapshot{Count: int64(l.Measures["count"]), Mean: l.Measures["mean"], Min: l.Measures["min"], Max: l.Measures["max"]}
	low := next.Min
	for _, p := range percentiles {
		if value, there := l.Measures[p.measure]; there {
			low = min(max(value, low), next.Max)
			next.Points = append(next.Points, point{p.share, low})
		}
	}
	s := t.at(l)
	if s.process != l.process || !next.continues(s.current) {
		s.current.into(t.of(l.metric, KindValues))
	}
	s.current, s.process = next, l.process
}

// finish counts what only the end of the file settles.
func (t *tally) finish() {
	for _, s := range t.open {
		switch s.kind {
		case "histogram", "timer":
			s.current.into(t.of(s.metric, KindValues))
		case "counter", "meter":
			t.of(s.metric, KindTotals).add(s.value, 1)
		default:
			t.of(s.metric, KindLast).add(s.value, 1)
		}
	}
}
