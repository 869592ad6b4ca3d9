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

// line is one line of results.out.
type line struct {
	TS       json.RawMessage    `json:"ts"`
	Type     string             `json:"type"`
	Name     string             `json:"name"`
	Measures map[string]float64 `json:"measures"`

	metric string    // the name without its tags
	at     time.Time // the zero value for one that doesn't say when it was written
	// process tells apart lines of different processes of the plan, of which one ran in each run stage; -1: it isn't known.
	process int
	gained  float64 // meter: what was counted since the line before
}

// percentiles are the measures of a histogram that name one, ascending.
var percentiles = []struct {
	measure string
	share   float64
}{{"p50", 0.5}, {"p75", 0.75}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}, {"p9999", 0.9999}}

// parse reads a line; the string is what is wrong with it.
func parse(data []byte) (line, string) {
	l := line{process: -1}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, "not a metric: " + err.Error()
	}
	l.metric, _, _ = strings.Cut(l.Name, ",")
	if l.metric = strings.TrimSpace(l.metric); l.metric == "" {
		return l, "it has no name"
	}
	for _, value := range l.Measures {
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return l, "a measure is not a number"
		}
	}
	if at, ok := moment(l.TS); ok {
		l.at = at
	}
	return l, l.fault()
}

// fault is what is wrong with the measures of a line.
func (l line) fault() string {
	needed := []string{"value"}
	switch l.Type {
	case "point", "gauge":
	case "ewma":
		needed = []string{"rate"}
	case "counter", "meter":
		if !l.hasValue() {
			needed = []string{"count"}
		}
	case "histogram", "timer":
		if !l.hasValue() {
			needed = []string{"count", "mean", "min", "max"}
		}
	default:
		return fmt.Sprintf("its type %q is none of point, counter, ewma, gauge, histogram, meter, timer", l.Type)
	}
	for _, measure := range needed {
		if _, there := l.Measures[measure]; !there {
			return "it has no measures." + measure
		}
	}
	if l.summarises() {
		return l.snapshotFault()
	}
	return ""
}

func (l line) snapshotFault() string {
	if count := l.Measures["count"]; count < 0 || count > 1<<53 {
		return fmt.Sprintf("measures.count is %v", count)
	}
	if l.Measures["min"] > l.Measures["max"] {
		return "measures.min is above measures.max"
	}
	return ""
}

// hasValue says whether the line has one value that stands for itself.
func (l line) hasValue() bool { _, there := l.Measures["value"]; return there }

// summarises says whether the line is a histogram's or timer's summary of many values.
func (l line) summarises() bool {
	return !l.hasValue() && (l.Type == "histogram" || l.Type == "timer")
}

// number is the one that a line which doesn't summarise is about.
func (l line) number() float64 {
	if value, there := l.Measures["value"]; there && l.Type != "ewma" {
		return value
	}
	if l.Type == "ewma" {
		return l.Measures["rate"]
	}
	return l.Measures["count"]
}

// lines reads to the end and calls each with every line that is a metric, and wrong with the number of every one that is
// not, and why. Empty lines are neither.
func lines(r io.Reader, each func(line) string, wrong func(number int, problem string)) error {
	reader := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		data, tooLong, err := readLine(reader)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch {
		case tooLong:
			wrong(number, fmt.Sprintf("longer than %d bytes", longestLine))
		case len(bytes.TrimSpace(data)) > 0:
			l, problem := parse(data)
			if problem == "" {
				problem = each(l)
			}
			if problem != "" {
				wrong(number, problem)
			}
		}
		if err != nil {
			return nil
		}
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
