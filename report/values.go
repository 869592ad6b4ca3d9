package report

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/report/plot"
)

const (
	// valueBytes is how much of all results is read to draw distributions, in bytes; instances are chosen evenly, and of
	// each at most its share is read.
	valueBytes = 48 << 20
	// mostFiles is how many instances' results are read, and mostCurvePoints how many points a curve has.
	mostFiles       = 1000
	mostCurvePoints = 90
	// mostSeries bounds how many metrics of how many groups are told apart.
	mostSeries = 2000
)

// measurement is a line of results.out that has one value.
type measurement struct {
	TS       json.Number                  `json:"ts"`
	Type     string                       `json:"type"`
	Name     string                       `json:"name"`
	Measures struct{ Value *json.Number } `json:"measures"`
}

// results are single values that instances have measured.
type results struct {
	// values is group → metric → what was read of it.
	values map[string]map[string][]float64
	// files counts the instances that were read, and all those that were not chosen too; cut says that some were not read
	// to their end.
	files, all int
	cut        bool
}

// superseded are the times of a run stage's attempts that another has taken the place of: what was measured then doesn't
// count.
type superseded struct{ from, to time.Time }

// readValues reads single values of evenly chosen instances.
func (m *material) readValues() results {
	r := results{values: map[string]map[string][]float64{}}
	var gone []superseded
	for _, a := range m.attempts {
		if a.Kind == pipelines.KindRun && !a.newest && !a.Started.IsZero() {
			gone = append(gone, superseded{a.Started, later(a.Ended, a.Started)})
		}
	}
	r.all = m.census.size()
	every := max((r.all+mostFiles-1)/mostFiles, 1)
	share := int64(valueBytes / max(min(r.all, mostFiles), 1))
	slot := -1
	for _, g := range m.census.groups {
		for index := range g.lives {
			if slot++; slot%every == 0 {
				m.readInstance(&r, g.name, index, share, gone)
			}
		}
	}
	return r
}

func (m *material) readInstance(r *results, group string, index int, share int64, gone []superseded) {
	file, size, err := m.files.open(fmt.Sprintf("outputs/%s/%d/results.out", group, index))
	if err != nil {
		return
	}
	defer file.Close()
	r.files++
	r.cut = r.cut || size > share
	of := r.values[group]
	if of == nil {
		of = map[string][]float64{}
		r.values[group] = of
	}
	reader := bufio.NewReaderSize(io.LimitReader(file, share), 64<<10)
	for {
		line, _, err := nextLine(reader)
		if name, value, ok := single(line, gone); ok && (of[name] != nil || len(of) < mostSeries) {
			of[name] = append(of[name], value)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.cut = true
			}
			return
		}
	}
}

// single takes the one value out of a line that has one and counts by itself.
func single(line []byte, gone []superseded) (name string, value float64, ok bool) {
	var l measurement
	if len(line) == 0 || json.Unmarshal(line, &l) != nil || l.Measures.Value == nil || l.Type == "gauge" || l.Type == "ewma" {
		return "", 0, false
	}
	value, err := l.Measures.Value.Float64()
	name, _, _ = strings.Cut(l.Name, ",")
	if name = strings.TrimSpace(name); err != nil || name == "" || math.IsInf(value, 0) {
		return "", 0, false
	}
	if ns, err := l.TS.Int64(); err == nil {
		at := time.Unix(0, ns)
		for _, g := range gone {
			if !at.Before(g.from) && !at.After(g.to) {
				return "", 0, false
			}
		}
	}
	return name, value, true
}

// curve is the cumulative distribution of values in few points: both ends are drawn finer than the middle.
func curve(name string, values []float64) plot.Curve {
	slices.Sort(values)
	c := plot.Curve{Name: name}
	n := len(values)
	last := -1
	for i := range mostCurvePoints {
		at := i * (n - 1) / max(mostCurvePoints-1, 1)
		if i > mostCurvePoints*4/5 { // the last fifth of the points for the last tenth of the values
			tail := float64(i-mostCurvePoints*4/5) / float64(mostCurvePoints-1-mostCurvePoints*4/5)
			at = n - 1 - int(float64(n)*0.1*(1-tail)*(1-tail))
		} else if n > mostCurvePoints {
			at = int(float64(n-1) * 0.9 * float64(i) / (mostCurvePoints * 4 / 5))
		}
		at = min(max(at, 0), n-1)
		if at <= last {
			continue
		}
		last = at
		c.Points = append(c.Points, plot.Point{X: values[at], Y: float64(at+1) / float64(n)})
	}
	return c
}
