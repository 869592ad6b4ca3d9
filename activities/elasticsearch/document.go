package elasticsearch

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// What a document is about.
const (
	kindLog    = "log"    // a line of an instance's log
	kindPoint  = "point"  // a line of its measurements
	kindEvent  = "event"  // a line of the run's event log
	kindResult = "result" // what became of an instance in a stage
	kindMetric = "metric" // a metric over all instances
)

// Operations of bulk.
const (
	opCreate = "create"
	opIndex  = "index"
)

// writer makes documents of one run. It reuses its buffer: what it returns holds until the next call.
type writer struct {
	// identity begins every id: the run's id and the instant of its first event, since two machines may have given two runs
	// the same name.
	identity string
	common   []byte // the fields that all documents have, with a comma behind them
	timeline *timeline
	buffer   []byte
	hash     []byte
}

func newWriter(run stage.Run, pipeline string, t *timeline) *writer {
	w := &writer{identity: run.ID, timeline: t}
	if len(t.events) > 0 {
		w.identity += "\x00" + strconv.FormatInt(t.events[0].Time.UnixNano(), 10)
	}
	for _, field := range []struct{ name, value string }{
		{"run", run.ID}, {"pipeline", pipeline}, {"suite", run.Suite}, {"turn", run.Turn}, {"ground", run.Ground}, {"commit", run.Commit},
	} {
		if field.value != "" {
			w.common = appendField(w.common, field.name, field.value)
		}
	}
	return w
}

// id is derived from the run and from what tells a document from all others of it.
func (w *writer) id(parts ...string) string {
	w.hash = append(w.hash[:0], w.identity...)
	for _, part := range parts {
		w.hash = append(w.hash, 0)
		w.hash = append(w.hash, part...)
	}
	sum := sha256.Sum256(w.hash)
	return base64.RawURLEncoding.EncodeToString(sum[:18])
}

// document is one to be sent. Fields from event on (0: none) are what the server may refuse of a plan's making, and can be
// left out.
type document struct {
	op    string
	id    string
	body  []byte
	event int
}

// line is one line of a file.
type line struct {
	offset, number int64
	text           []byte // without its end, cut to mostLine
	length         int64  // before it was cut
}

// origin is the file that lines are from.
type origin struct {
	group    string
	instance int
	file     string
	fields   []byte // all that its lines have in common
	kind     string
	// last is the time of the newest line that said one.
	last time.Time
}

func (w *writer) origin(group string, instance int, file string) *origin {
	o := &origin{group: group, instance: instance, file: file, kind: kindLog}
	if file == "results.out" || file == "diagnostics.out" {
		o.kind = kindPoint
	}
	fields := append([]byte("{"), w.common...)
	fields = appendField(fields, "kind", o.kind)
	fields = appendField(fields, "group", group)
	fields = appendNumber(fields, "instance", int64(instance))
	o.fields = appendField(fields, "file", file)
	return o
}

// log makes the document of a line.
func (w *writer) log(o *origin, l line) document {
	event, at, ok := w.understand(l)
	from := "line"
	switch {
	case ok:
		o.last = at
	case !o.last.IsZero():
		at, from = o.last, "before"
	default:
		at, from = w.timeline.start(), "stage"
	}
	b := append(w.buffer[:0], o.fields...)
	b = appendNumber(b, "offset", l.offset)
	b = appendNumber(b, "line", l.number)
	b = w.appendMoment(b, at)
	b = appendField(b, "timestamp_from", from)
	if int64(len(l.text)) < l.length {
		b = append(b, `"truncated":true,`...)
		b = appendNumber(b, "length", l.length)
	}
	b = append(b, `"message":`...)
	b = appendText(b, l.text)
	d := document{op: opCreate, id: w.id(o.group, strconv.Itoa(o.instance), o.file, strconv.FormatInt(l.offset, 10))}
	if event != nil {
		d.event = len(b)
		b = append(append(b, `,"event":`...), event...)
	}
	w.buffer = append(b, '}')
	d.body = w.buffer
	return d
}

// appendMoment adds a time, and what was going on then.
func (w *writer) appendMoment(b []byte, at time.Time) []byte {
	b = append(b, `"@timestamp":"`...)
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `",`...)
	if s, ok := w.timeline.at(at); ok {
		b = appendField(b, "stage", s.stage)
		b = appendField(b, "attempt", s.attempt)
	}
	b = append(b, `"phase":[`...)
	b = w.timeline.appendPhases(b, at)
	return append(b, "],"...)
}

// understand finds what a line says by itself: its time, and an object where it is JSON.
func (w *writer) understand(l line) (event json.RawMessage, at time.Time, ok bool) {
	if len(l.text) == 0 || l.text[0] != '{' || int64(len(l.text)) < l.length {
		at, ok = leadingTime(l.text)
		return nil, at, ok && w.timeline.believes(at)
	}
	var fields struct {
		TS        json.RawMessage `json:"ts"`
		Time      json.RawMessage `json:"time"`
		Timestamp json.RawMessage `json:"timestamp"`
		At        json.RawMessage `json:"@timestamp"`
		Event     json.RawMessage `json:"event"`
	}
	if json.Unmarshal(l.text, &fields) != nil || !utf8.Valid(l.text) {
		return nil, time.Time{}, false
	}
	event = l.text
	if len(fields.Event) > 0 && fields.Event[0] == '{' && fields.TS != nil {
		event = fields.Event // Testground's: the rest says what the document says already
	}
	for _, said := range []json.RawMessage{fields.TS, fields.Time, fields.Timestamp, fields.At} {
		if at, ok = jsonTime(said); ok && w.timeline.believes(at) {
			return event, at, true
		}
	}
	return event, time.Time{}, false
}

// jsonTime reads a time as loggers write it: a text, or a number of seconds, milliseconds, microseconds or nanoseconds
// since 1970, told apart by its size.
func jsonTime(said json.RawMessage) (time.Time, bool) {
	if len(said) == 0 {
		return time.Time{}, false
	}
	if said[0] == '"' {
		var text string
		if json.Unmarshal(said, &text) != nil {
			return time.Time{}, false
		}
		at, err := time.Parse(time.RFC3339, text)
		return at, err == nil
	}
	if whole, err := strconv.ParseInt(string(said), 10, 64); err == nil {
		switch {
		case whole > 1e17:
			return time.Unix(0, whole), true
		case whole > 1e14:
			return time.UnixMicro(whole), true
		case whole > 1e11:
			return time.UnixMilli(whole), true
		}
		return time.Unix(whole, 0), whole > 0
	}
	seconds, err := strconv.ParseFloat(string(said), 64)
	if err != nil || !(seconds > 0 && seconds < 1e10) {
		return time.Time{}, false
	}
	return time.Unix(0, int64(seconds*1e9)), true
}

// leadingTime reads a time that a line begins with: RFC 3339, or slog's `time=` before one.
func leadingTime(text []byte) (time.Time, bool) {
	text = bytes.TrimPrefix(text, []byte("time="))
	if len(text) < len("2006-01-02T15:04:05Z") || text[4] != '-' || text[10] != 'T' {
		return time.Time{}, false
	}
	text = text[:min(len(text), len("2006-01-02T15:04:05.000000000+00:00"))]
	if end := bytes.IndexAny(text, " \t\"],"); end > 0 {
		text = text[:end]
	}
	at, err := time.Parse(time.RFC3339, string(text))
	return at, err == nil
}

// event makes the document of a line of the run's event log.
func (w *writer) event(e runs.Event, offset int64, raw []byte) document {
	b := append(w.buffer[:0], '{')
	b = append(b, w.common...)
	b = appendField(b, "kind", kindEvent)
	b = append(b, `"@timestamp":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `",`...)
	for _, field := range []struct{ name, value string }{{"timestamp_from", "line"}, {"stage", e.Stage}, {"attempt", e.Attempt}, {"file", "events.jsonl"}} {
		if field.value != "" {
			b = appendField(b, field.name, field.value)
		}
	}
	b = appendNumber(b, "offset", offset)
	b = append(b, `"phase":[`...)
	b = w.timeline.appendPhases(b, e.Time)
	b = append(b, `],"message":`...)
	b = appendText(b, e.Text)
	d := document{op: opCreate, id: w.id("events.jsonl", strconv.FormatInt(offset, 10)), event: len(b)}
	b = append(append(b, `,"event":`...), raw...)
	w.buffer = append(b, '}')
	d.body = w.buffer
	return d
}

// small makes a document of fields that are few: it is encoded as anything else is.
func (w *writer) small(op, id, kind string, fields object) (document, error) {
	rest, err := json.Marshal(fields)
	if err != nil {
		return document{}, err
	}
	b := append(w.buffer[:0], '{')
	b = append(b, w.common...)
	b = appendField(b, "kind", kind)
	w.buffer = append(b, rest[1:]...)
	return document{op: op, id: id, body: w.buffer}, nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(append(b, '"'), name...), `":`...)
	return append(appendText(b, value), ',')
}

func appendNumber(b []byte, name string, value int64) []byte {
	b = append(append(append(b, '"'), name...), `":`...)
	return append(strconv.AppendInt(b, value, 10), ',')
}

const hexadecimal = "0123456789abcdef"

// appendText adds a JSON string of any bytes: what isn't UTF-8 becomes U+FFFD.
func appendText[T string | []byte](b []byte, text T) []byte {
	b = slices.Grow(b, len(text)+2)
	b = append(b, '"')
	start := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, text[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexadecimal[c>>4], hexadecimal[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(string(text[i:min(len(text), i+utf8.UTFMax)]))
		if r == utf8.RuneError && size == 1 {
			b = append(b, text[start:i]...)
			b = append(b, "\ufffd"...)
			i++
			start = i
			continue
		}
		i += size
	}
	b = append(b, text[start:]...)
	return append(b, '"')
}
