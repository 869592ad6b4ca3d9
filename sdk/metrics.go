package sdk

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Metrics is a file of measurements. A name may have tags behind it: `lookup_seconds,from=eu`. Give the unit in the
// name, in seconds and bytes: groundplan summarises what it finds and doesn't convert.
//
// Lines are on disk within a second, and all of them before the instance's outcome is reported.
type Metrics struct {
	mu       sync.Mutex
	file     *os.File
	out      *bufio.Writer
	err      error // the first that went wrong
	closed   bool
	counters map[string]*Counter

	stop chan struct{}
	work sync.WaitGroup
}

var errMetricsClosed = errors.New("the case has ended: its metrics are closed")

func openMetrics(folder, name string) (*Metrics, error) {
	file, err := appendTo(folder, name)
	if err != nil {
		return nil, err
	}
	m := &Metrics{file: file, out: bufio.NewWriter(file), counters: map[string]*Counter{}, stop: make(chan struct{})}
	m.work.Go(m.flushing)
	return m, nil
}

func (m *Metrics) flushing() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.mu.Lock()
			m.flush()
			m.mu.Unlock()
		case <-m.stop:
			return
		}
	}
}

// flush writes what the counters count and what is buffered. Callers hold mu.
func (m *Metrics) flush() {
	for name, c := range m.counters {
		if n := c.added.Swap(0); n != 0 {
			m.line("counter", name, map[string]float64{"count": float64(n)})
		}
	}
	if err := m.out.Flush(); m.err == nil {
		m.err = err
	}
}

// close says what went wrong since it was opened.
func (m *Metrics) close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.flush()
	m.closed = true
	m.mu.Unlock()
	close(m.stop)
	m.work.Wait()
	return errors.Join(m.err, m.file.Close())
}

// Point records a value that stands for itself.
func (m *Metrics) Point(name string, value float64) error { return m.record("point", name, value) }

// Gauge records the present value of something; the last one counts.
func (m *Metrics) Gauge(name string, value float64) error { return m.record("gauge", name, value) }

// Histogram records one of many values whose distribution matters.
func (m *Metrics) Histogram(name string, value float64) error {
	return m.record("histogram", name, value)
}

// Timer records how long something took, in seconds.
func (m *Metrics) Timer(name string, took time.Duration) error {
	return m.record("timer", name, took.Seconds())
}

// record refuses what no file of JSON can hold.
func (m *Metrics) record(kind, name string, value float64) error {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return fmt.Errorf("metric %s: %v is not a number that can be recorded", name, value)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("metric %s: %w", name, errMetricsClosed)
	}
	m.line(kind, name, map[string]float64{"value": value})
	return m.err
}

// line writes one measurement. Callers hold mu.
func (m *Metrics) line(kind, name string, measures map[string]float64) {
	text, err := json.Marshal(struct {
		Time     int64              `json:"ts"`
		Type     string             `json:"type"`
		Name     string             `json:"name"`
		Measures map[string]float64 `json:"measures"`
	}{time.Now().UnixNano(), kind, name, measures})
	if err == nil {
		_, err = m.out.Write(append(text, '\n'))
	}
	if m.err == nil {
		m.err = err
	}
}

// Counter counts. It is made by Metrics.Counter.
type Counter struct{ added atomic.Int64 }

// Counter is the counter of that name; the same name gives the same one.
func (m *Metrics) Counter(name string) *Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counters[name]
	if c == nil {
		c = &Counter{}
		m.counters[name] = c
		// One that never counts anything has counted to 0, and `metrics.NAME.sum == 0` can be asserted.
		m.line("counter", name, map[string]float64{"count": 0})
	}
	return c
}

// Add counts n more.
func (c *Counter) Add(n int64) { c.added.Add(n) }
