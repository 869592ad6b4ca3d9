// Package outcome decides what became of an instance: from the events it reported, and from how its process ended.
package outcome

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// longestLine is the longest line, in bytes, that is looked at; longer ones are plain output.
const longestLine = 1 << 20

// Report is what an instance said about its outcome so far. The zero value says nothing.
type Report struct {
	Success bool
	Failure bool
	Crash   bool
	// Failed is the error of the first failure event, Crashed that of the first crash event.
	Failed  string
	Crashed string
}

// Said reports whether there was any outcome event.
func (r Report) Said() bool { return r.Success || r.Failure || r.Crash }

// Add adds a later report to this one.
func (r *Report) Add(later Report) {
	if !r.Failure {
		r.Failed = later.Failed
	}
	if !r.Crash {
		r.Crashed = later.Crashed
	}
	r.Success = r.Success || later.Success
	r.Failure = r.Failure || later.Failure
	r.Crash = r.Crash || later.Crash
}

// event is the part of an event that tells of an outcome.
type event struct {
	Success *struct{} `json:"success_event"`
	Failure *failed   `json:"failure_event"`
	Crash   *failed   `json:"crash_event"`
	// Testground's SDK up to v0.2.4 says {"type":"finish","outcome":"ok"}, or failed or crashed with an error.
	Type    string `json:"type"`
	Outcome string `json:"outcome"`
	Error   string `json:"error"`
}

type failed struct {
	Error string `json:"error"`
}

func (e event) report() Report {
	r := Report{Success: e.Success != nil}
	if e.Failure != nil {
		r.Failure, r.Failed = true, e.Failure.Error
	}
	if e.Crash != nil {
		r.Crash, r.Crashed = true, e.Crash.Error
	}
	if e.Type == "finish" {
		switch e.Outcome {
		case "ok":
			r.Success = true
		case "failed":
			r.Failure, r.Failed = true, e.Error
		case "crashed":
			r.Crash, r.Crashed = true, e.Error
		}
	}
	return r
}

// tells is whether a document may tell of an outcome: others aren't decoded.
func tells(document []byte) bool {
	return bytes.Contains(document, mark) || bytes.Contains(document, oldMark)
}

var (
	mark    = []byte(`_event"`)
	oldMark = []byte(`"finish"`)
)

// Event reads an event as instances publish it on run_events: {"success_event":{…}}.
func Event(document []byte) Report {
	if !tells(document) {
		return Report{}
	}
	var e event
	if json.Unmarshal(document, &e) != nil {
		return Report{}
	}
	return e.report()
}

// Line reads one line of an instance's stdout: {"ts":…,"event":{…}}. Any other line says nothing.
func Line(line []byte) Report {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' || !tells(line) {
		return Report{}
	}
	var document struct {
		Event event `json:"event"`
	}
	if json.Unmarshal(line, &document) != nil {
		return Report{}
	}
	return document.Event.report()
}

// Scan reads an instance's stdout to its end, in bounded memory.
func Scan(stdout io.Reader) (Report, error) {
	var all Report
	err := lines(stdout, func(line []byte) { all.Add(Line(line)) })
	if err != nil {
		return all, fmt.Errorf("reading stdout: %w", err)
	}
	return all, nil
}

// Panic looks for the last words of a Go program in its stderr: the message of a panic or of a fatal error that is
// followed by a goroutine's stack. It returns "" when there are none.
func Panic(stderr io.Reader) (string, error) {
	var words, found string
	err := lines(stderr, func(line []byte) {
		text := string(line)
		switch message, goexit := strings.CutPrefix(text, "panic: "); {
		case goexit:
			words = message
		case strings.HasPrefix(text, "fatal error: "):
			words = text
		case strings.HasPrefix(text, "goroutine ") && words != "" && found == "":
			found = words
		}
	})
	if err != nil {
		return found, fmt.Errorf("reading stderr: %w", err)
	}
	return found, nil
}

// lines calls each with every line that isn't too long, without its end. The line is valid during the call only.
func lines(from io.Reader, each func([]byte)) error {
	reader := bufio.NewReaderSize(from, 64<<10)
	var long []byte // the beginning of a line that doesn't fit the reader's buffer
	skipping := false
	for {
		part, err := reader.ReadSlice('\n')
		whole := !errors.Is(err, bufio.ErrBufferFull)
		switch {
		case skipping:
		case len(long)+len(part) > longestLine:
			skipping = true
		case !whole:
			long = append(long, part...)
		case len(long) > 0:
			each(bytes.TrimRight(append(long, part...), "\r\n"))
		default:
			each(bytes.TrimRight(part, "\r\n"))
		}
		if whole {
			long, skipping = long[:0], false
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && whole {
			return err
		}
	}
}
