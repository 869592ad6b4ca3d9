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
//	meter      measures.count, the last line of an instance per full name: it counts from the start
//	histogram  the values that its count, mean, range and percentiles stand for: see snapshot
//	timer      likewise, in the unit that the plan wrote (nanoseconds, from Testground's SDK)
//
// Of an event, that is of the lines whose ts lies between its beginning and its end, a meter says what it counted meanwhile,
// and the summaries of a histogram or timer say nothing: they are of all its values.
//
// So a counter has one value per instance and full name, and its sum is the sum over all. A histogram, counter or gauge whose line has
// measures.value instead is read as a point. Tags (`,tag=value` behind a name) tell apart what is measured within an
// instance; the summary is over all of them, under the bare name.
package metrics

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// longestLine bounds a line, in bytes; a longer one is a bad line.
const longestLine = 1 << 20

// mostNames bounds how many metrics, and how many sets of tags, one instance may have: a plan that puts a value into the
// name would else take all memory. A line beyond is a bad line.
const mostNames = 10_000

// line is one line of results.out.
type line struct {
	TS       json.RawMessage    `json:"ts"`
	Type     string             `json:"type"`
	Name     string             `json:"name"`
	Measures map[string]float64 `json:"measures"`
}

// series is what an instance has said of one metric with one set of tags, where its lines belong together.
type series struct {
	kind    string
	metric  string
	value   float64 // gauge, ewma, meter: the last; counter: the sum
	base    float64 // meter: what it had counted to before
	current snapshot
}

// tally is what lines come to: all of a file's, or those of a window.
type tally struct {
	// values are those that are known already, by metric.
	values map[string]*distribution
	open   map[string]*series
	// whole is the tally of all lines, for that of a window; nil for itself.
	whole *tally
}

func newTally(whole *tally) *tally {
	return &tally{values: map[string]*distribution{}, open: map[string]*series{}, whole: whole}
}

// file reads one instance's results.
type file struct {
	// windows are those that lines are to be counted in beside, and parts what they come to, window by window.
	windows []Window
	parts   []*tally
	// discard are the times whose lines don't count.
	discard []Window
	*tally
	bad   int
	first string // the first bad line: its number and what is wrong with it
}

// read reads to the end. Lines that are none of the above are counted, the first of them named.
func (f *file) read(r io.Reader) error {
	f.tally = newTally(nil)
	f.parts = nil
	for range f.windows {
		f.parts = append(f.parts, newTally(f.tally))
	}
	reader := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		data, tooLong, err := readLine(reader)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch problem := ""; {
		case tooLong:
			f.fault(number, fmt.Sprintf("longer than %d bytes", longestLine))
		case len(bytes.TrimSpace(data)) > 0:
			if problem = f.line(data); problem != "" {
				f.fault(number, problem)
			}
		}
		if err != nil {
			for _, t := range append(f.parts, f.tally) {
				t.finish()
			}
			return nil
		}
	}
}

func (f *file) fault(number int, problem string) {
	if f.bad++; f.bad == 1 {
		f.first = fmt.Sprintf("line %d: %s", number, problem)
	}
}

// readLine returns the next line; of one that is too long, only that it was.
func readLine(r *bufio.Reader) (data []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(data)+len(part) > longestLine {
			tooLong, data = true, nil
		}
		if !tooLong {
			data = append(data, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return data, tooLong, err
		}
	}
}

// line counts one line; the string is what is wrong with it.
func (f *file) line(data []byte) string {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return "not a metric: " + err.Error()
	}
	// A line that doesn't say when it was written is in no window, and always counts.
	var at time.Time
	timed := false
	if len(f.windows) > 0 || len(f.discard) > 0 {
		at, timed = moment(l.TS)
	}
	if timed && f.superseded(at) {
		return ""
	}
	metric, _, _ := strings.Cut(l.Name, ",")
	metric = strings.TrimSpace(metric)
	if metric == "" {
		return "it has no name"
	}
	for _, value := range l.Measures {
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return "a measure is not a number"
		}
	}
	if _, known := f.values[metric]; !known && len(f.values) >= mostNames || len(f.open) >= mostNames {
		return fmt.Sprintf("the instance has more than %d metrics", mostNames)
	}
	if timed {
		for _, t := range f.within(at) {
			t.take(l, metric) // what is wrong with it is said once, below
		}
	}
	return f.take(l, metric)
}

// take counts one line.
func (t *tally) take(l line, metric string) string {
	value, hasValue := l.Measures["value"]
	switch l.Type {
	case "point":
		return t.point(metric, value, hasValue)
	case "gauge":
		return t.keep(l, metric, "value")
	case "ewma":
		return t.keep(l, metric, "rate")
	case "counter", "meter":
		if hasValue {
			return t.point(metric, value, true)
		}
		return t.keep(l, metric, "count")
	case "histogram", "timer":
		if hasValue {
			return t.point(metric, value, true)
		}
		if t.whole != nil {
			return "" // what it says of all its values can't be taken apart
		}
		return t.snapshot(l, metric)
	}
	return fmt.Sprintf("its type %q is none of point, counter, ewma, gauge, histogram, meter, timer", l.Type)
}

func (t *tally) point(metric string, value float64, there bool) string {
	if !there {
		return "it has no measures.value"
	}
	t.of(metric).add(value, 1)
	return ""
}

// of is the distribution of a metric.
func (t *tally) of(metric string) *distribution {
	d := t.values[metric]
	if d == nil {
		d = &distribution{}
		t.values[metric] = d
	}
	return d
}

// at is the series that a line belongs to.
func (t *tally) at(l line, metric string) *series {
	key := l.Type + " " + l.Name
	s := t.open[key]
	if s == nil {
		s = &series{kind: l.Type, metric: metric}
		if t.whole != nil && t.whole.open[key] != nil {
			s.base = t.whole.open[key].value
		}
		t.open[key] = s
	}
	return s
}

// keep takes a line of which only the last, or the sum, counts.
func (t *tally) keep(l line, metric, measure string) string {
	value, there := l.Measures[measure]
	if !there {
		return "it has no measures." + measure
	}
	s := t.at(l, metric)
	if l.Type == "counter" {
		value += s.value
	}
	s.value = value
	return ""
}

// percentiles are the measures of a histogram that name one, ascending.
var percentiles = []struct {
	measure string
	share   float64
}{{"p50", 0.5}, {"p75", 0.75}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}, {"p9999", 0.9999}}

// snapshot takes a line of a histogram or timer.
func (t *tally) snapshot(l line, metric string) string {
	for _, needed := range []string{"count", "mean", "min", "max"} {
		if _, there := l.Measures[needed]; !there {
			return "it has no measures." + needed
		}
	}
	count := l.Measures["count"]
	if count < 0 || count > 1<<53 {
		return fmt.Sprintf("measures.count is %v", count)
	}
	if l.Measures["min"] > l.Measures["max"] {
		return "measures.min is above measures.max"
	}
	next := snapshot{Count: int64(count), Mean: l.Measures["mean"], Min: l.Measures["min"], Max: l.Measures["max"]}
	low := next.Min
	for _, p := range percentiles {
		if value, there := l.Measures[p.measure]; there {
			low = min(max(value, low), next.Max)
			next.Points = append(next.Points, point{p.share, low})
		}
	}
	s := t.at(l, metric)
	if !next.continues(s.current) {
		s.current.into(t.of(metric))
	}
	s.current = next
	return ""
}

// finish counts what only the end of the file settles.
func (t *tally) finish() {
	for _, s := range t.open {
		switch s.kind {
		case "histogram", "timer":
			s.current.into(t.of(s.metric))
		case "meter":
			t.of(s.metric).add(max(s.value-s.base, 0), 1)
		default:
			t.of(s.metric).add(s.value, 1)
		}
	}
}
