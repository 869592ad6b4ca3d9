package elasticsearch

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// records makes the documents of what isn't a log: events, results, metrics. They are few beside the logs, so that each
// push sends them all: what is there already stays.
func (p *push) records(each func(document) error) error {
	if err := p.eventRecords(each); err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	stages, err := filepath.Glob(filepath.Join(string(p.folder), "stages", "*.jsonl"))
	if err != nil {
		return err
	}
	slices.Sort(stages)
	for _, path := range stages {
		if err := p.resultRecords(path, each); err != nil {
			return fmt.Errorf("reading what became of the instances: %w", err)
		}
	}
	return p.metricRecords(each)
}

// eventRecords leaves out a line that was cut by a crash.
func (p *push) eventRecords(each func(document) error) error {
	return eachLine(p.folder.Events(), func(raw []byte, offset int64) error {
		var e runs.Event
		if json.Unmarshal(raw, &e) != nil {
			return nil
		}
		return each(p.writer.event(e, offset, raw))
	})
}

func (p *push) resultRecords(path string, each func(document) error) error {
	return eachLine(path, func(raw []byte, _ int64) error {
		var row control.Instance
		if json.Unmarshal(raw, &row) != nil || row.Group == "" {
			return nil
		}
		fields := object{
			"@timestamp": moment(row.Ended), "timestamp_from": "line", "stage": row.Stage, "attempt": row.Attempt,
			"group": row.Group, "instance": row.Index, "file": "stages/" + filepath.Base(path), "message": row.Reason,
			"result": object{
				"outcome": row.Outcome, "host": row.Host, "exit": row.Exit, "signal": row.Signal, "starts": row.Starts,
				"started": moment(row.Started), "seconds": row.Ended.Sub(row.Started).Seconds(),
				"peak_memory": row.PeakMemory, "cpu": row.CPU, "last_lines": row.LastLines,
			},
		}
		if row.Started.IsZero() {
			delete(fields["result"].(object), "started")
			delete(fields["result"].(object), "seconds")
		}
		if row.Ended.IsZero() {
			fields["@timestamp"], fields["timestamp_from"] = moment(p.timeline.ended), "stage"
		}
		// An instance has one result in an attempt; should there be two lines, the first counts, as everywhere.
		d, err := p.writer.small(opCreate, p.writer.id("result", row.Stage, row.Attempt, row.Group, strconv.Itoa(row.Index)), kindResult, fields)
		if err != nil {
			return err
		}
		return each(d)
	})
}

// metricRecords has one document for each metric. Metrics are computed anew after a resume: the newest stands in an index. A
// data stream takes no second document under an id, so that another value has another id there.
func (p *push) metricRecords(each func(document) error) error {
	var metrics map[string]pipelines.Summary
	err := runs.ReadJSON(p.folder.Metrics(), &metrics)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		m := metrics[name]
		fields := object{
			"@timestamp": moment(p.timeline.ended), "timestamp_from": "stage", "file": filepath.Base(p.folder.Metrics()),
			"metric": object{
				"name": name, "count": m.Count, "sum": m.Sum, "min": m.Min, "max": m.Max, "mean": m.Mean,
				"p50": m.P50, "p90": m.P90, "p95": m.P95, "p99": m.P99,
			},
		}
		if group, _, _ := strings.Cut(name, "."); p.groups[group] {
			fields["group"] = group
		}
		op, parts := opIndex, []string{"metric", name}
		if p.target.stream {
			content := sha256.Sum256(fmt.Append(nil, m))
			op, parts = opCreate, append(parts, string(content[:]))
		}
		d, err := p.writer.small(op, p.writer.id(parts...), kindMetric, fields)
		if err != nil {
			return err
		}
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

func moment(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }

// mostRecord bounds a line of a file that groundplan wrote itself, in bytes.
const mostRecord = 16 << 20

// eachLine reads the whole lines of a file that groundplan wrote; a file that isn't there has none.
func eachLine(path string, each func(raw []byte, offset int64) error) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, mostRecord)
	scanner.Split(wholeLines)
	var offset int64
	for scanner.Scan() {
		raw := scanner.Bytes()
		if err := each(bytes.TrimSuffix(raw, []byte("\n")), offset); err != nil {
			return err
		}
		offset += int64(len(raw))
	}
	return scanner.Err()
}

// wholeLines splits into lines with their ends, and leaves out a last one that has none.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF {
		return 0, nil, io.EOF
	}
	return 0, nil, nil
}
