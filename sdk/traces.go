package sdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// tracesFile is where spans go, in the outputs: a line for each ExportTraceServiceRequest of OTLP's JSON.
const tracesFile = "traces.jsonl"

// Limits of a span; those of OpenTelemetry's own SDKs, and one for texts.
const (
	mostAttributes = 128
	mostEvents     = 128
	longestText    = 8 << 10
)

// Attribute is something known of a span.
type Attribute struct {
	Key   string
	Value any
}

// Attr is an attribute. Its value is a text, a bool, a number, a time.Duration (kept in seconds), or anything else that
// fmt.Sprint makes a text of.
func Attr(key string, value any) Attribute { return Attribute{key, value} }

// Span is something that takes time, in a trace of such. Its methods may be called from several goroutines, and on a nil one.
type Span struct {
	to     *tracer
	trace  [16]byte
	id     [8]byte
	parent [8]byte // zero for the first of a trace
	name   string
	began  time.Time

	mu         sync.Mutex
	ended      bool
	attributes []keyValue
	events     []spanEvent
	dropped    struct{ attributes, events int }
}

type spanKey struct{}

// Span begins a span, inside the one that ctx holds if it holds one. The context returned holds the new one. A span that
// isn't ended is not kept.
//
//	ctx, span := run.Span(ctx, "lookup", sdk.Attr("key", key))
//	defer func() { span.End(err) }()
func (r *Run) Span(ctx context.Context, name string, attributes ...Attribute) (context.Context, *Span) {
	s := &Span{to: r.traces, id: [8]byte(random(8)), name: name, began: time.Now()}
	if above, inside := ctx.Value(spanKey{}).(*Span); inside {
		s.trace, s.parent = above.trace, above.id
	} else {
		s.trace = [16]byte(random(16))
	}
	s.Set(attributes...)
	return context.WithValue(ctx, spanKey{}, s), s
}

// random is an id, which is never zero.
func random(length int) []byte {
	id := make([]byte, 0, 16)
	for len(id) < length {
		id = binary.BigEndian.AppendUint64(id, max(rand.Uint64(), 1))
	}
	return id
}

// Set adds attributes; one with a key that is there already takes its place.
func (s *Span) Set(attributes ...Attribute) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attributes, s.dropped.attributes = withAttributes(s.attributes, s.dropped.attributes, attributes)
}

// Event notes something that happens now.
func (s *Span) Event(name string, attributes ...Attribute) {
	if s == nil {
		return
	}
	e := spanEvent{Time: nanoseconds(time.Now()), Name: clip(name)}
	e.Attributes, e.Dropped = withAttributes(nil, 0, attributes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == mostEvents {
		s.dropped.events++
		return
	}
	s.events = append(s.events, e)
}

// End ends the span, with an error if what it stood for failed. Ending it again changes nothing.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	written := spanJSON{
		Trace: hex.EncodeToString(s.trace[:]), ID: hex.EncodeToString(s.id[:]), Name: clip(s.name), Kind: 1,
		Began: nanoseconds(s.began), Ended: nanoseconds(s.began.Add(time.Since(s.began))), Attributes: s.attributes, Events: s.events,
		DroppedAttributes: s.dropped.attributes, DroppedEvents: s.dropped.events,
	}
	if s.parent != [8]byte{} {
		written.Parent = hex.EncodeToString(s.parent[:])
	}
	if err != nil {
		written.Status = &spanStatus{Message: clip(err.Error()), Code: 2}
	}
	s.to.add(written)
}

// Traceparent is the span as W3C's trace context has it, to be sent to another instance; see ContinueTrace.
func (s *Span) Traceparent() string {
	if s == nil {
		return ""
	}
	return "00-" + hex.EncodeToString(s.trace[:]) + "-" + hex.EncodeToString(s.id[:]) + "-01"
}

// ContinueTrace is a context whose spans lie inside a span of another instance, whose Traceparent is given.
func ContinueTrace(ctx context.Context, traceparent string) (context.Context, error) {
	parts := strings.Split(traceparent, "-")
	wrong := fmt.Errorf("%.60q is not a traceparent like 00-<32 hex digits>-<16 hex digits>-01", traceparent)
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" {
		return ctx, wrong
	}
	var above Span
	trace, traceErr := hex.DecodeString(parts[1])
	id, idErr := hex.DecodeString(parts[2])
	if traceErr != nil || idErr != nil || len(trace) != len(above.trace) || len(id) != len(above.id) {
		return ctx, wrong
	}
	above.trace, above.id = [16]byte(trace), [8]byte(id)
	if above.trace == [16]byte{} || above.id == [8]byte{} {
		return ctx, wrong
	}
	return context.WithValue(ctx, spanKey{}, &above), nil
}

// What a span is in OTLP's JSON: ids in hex, numbers of 64 bits as texts.
type (
	spanJSON struct {
		Trace             string      `json:"traceId"`
		ID                string      `json:"spanId"`
		Parent            string      `json:"parentSpanId,omitempty"`
		Name              string      `json:"name"`
		Kind              int         `json:"kind"`
		Began             string      `json:"startTimeUnixNano"`
		Ended             string      `json:"endTimeUnixNano"`
		Attributes        []keyValue  `json:"attributes,omitempty"`
		DroppedAttributes int         `json:"droppedAttributesCount,omitempty"`
		Events            []spanEvent `json:"events,omitempty"`
		DroppedEvents     int         `json:"droppedEventsCount,omitempty"`
		Status            *spanStatus `json:"status,omitempty"`
	}
	spanEvent struct {
		Time       string     `json:"timeUnixNano"`
		Name       string     `json:"name"`
		Attributes []keyValue `json:"attributes,omitempty"`
		Dropped    int        `json:"droppedAttributesCount,omitempty"`
	}
	spanStatus struct {
		Message string `json:"message,omitempty"`
		Code    int    `json:"code"`
	}
	keyValue struct {
		Key   string         `json:"key"`
		Value map[string]any `json:"value"`
	}
)

func nanoseconds(at time.Time) string { return strconv.FormatInt(at.UnixNano(), 10) }

// withAttributes lays attributes over others and counts those that there is no place for.
func withAttributes(list []keyValue, dropped int, attributes []Attribute) ([]keyValue, int) {
next:
	for _, a := range attributes {
		kv := keyValue{clip(a.Key), anyValue(a.Value)}
		for i := range list {
			if list[i].Key == kv.Key {
				list[i] = kv
				continue next
			}
		}
		if len(list) == mostAttributes {
			dropped++
			continue
		}
		list = append(list, kv)
	}
	return list, dropped
}

func anyValue(v any) map[string]any {
	switch v := v.(type) {
	case bool:
		return map[string]any{"boolValue": v}
	case time.Duration:
		return map[string]any{"doubleValue": v.Seconds()}
	case int, int8, int16, int32, int64, uint8, uint16, uint32:
		return map[string]any{"intValue": fmt.Sprint(v)}
	case float32:
		return float(float64(v))
	case float64:
		return float(v)
	}
	return map[string]any{"stringValue": clip(fmt.Sprint(v))}
}

// float is a number as protobuf's JSON has it, in which infinities are texts.
func float(v float64) map[string]any {
	switch {
	case math.IsNaN(v):
		return map[string]any{"doubleValue": "NaN"}
	case math.IsInf(v, 1):
		return map[string]any{"doubleValue": "Infinity"}
	case math.IsInf(v, -1):
		return map[string]any{"doubleValue": "-Infinity"}
	}
	return map[string]any{"doubleValue": v}
}

// clip cuts a text that is too long, not inside a character.
func clip(text string) string {
	if len(text) <= longestText {
		return text
	}
	end := longestText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// tracer writes ended spans: to disk within a second, and all of them before the instance's outcome is reported.
type tracer struct {
	folder   string
	resource []keyValue

	mu      sync.Mutex
	pending bytes.Buffer // spans, with commas between them
	file    *os.File     // nil until there is a span
	err     error        // the first that went wrong
	closed  bool
	stop    chan struct{}
	work    sync.WaitGroup
}

// fullAt is how many bytes of spans are held before they are written.
const fullAt = 256 << 10

func newTracer(env *Environment) *tracer {
	instance := env.Host
	if env.Index >= 0 {
		instance = env.Group + "/" + strconv.Itoa(env.Index)
	}
	t := &tracer{folder: env.Outputs, stop: make(chan struct{})}
	for _, a := range []Attribute{
		{"service.name", env.Plan}, {"service.instance.id", env.ID + "/" + instance}, {"groundplan.run", env.ID},
		{"groundplan.stage", env.Stage}, {"groundplan.case", env.Case}, {"groundplan.group", env.Group}, {"groundplan.instance", instance},
	} {
		if a.Value != "" {
			t.resource, _ = withAttributes(t.resource, 0, []Attribute{a})
		}
	}
	return t
}

func (t *tracer) add(span spanJSON) {
	if t == nil {
		return // of a context that came from another instance
	}
	text, err := json.Marshal(span)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return // the case has ended without it
	}
	if err == nil && t.file == nil && t.err == nil {
		err = t.open()
	}
	if err != nil {
		t.fail(err)
		return
	}
	if t.pending.Len() > 0 {
		t.pending.WriteByte(',')
	}
	t.pending.Write(text)
	if t.pending.Len() > fullAt {
		t.flush()
	}
}

func (t *tracer) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// open begins to write. Callers hold mu.
func (t *tracer) open() error {
	file, err := appendTo(t.folder, tracesFile)
	if err != nil {
		return err
	}
	t.file = file
	// A program that was killed may have left a line unfinished.
	if info, err := file.Stat(); err == nil && info.Size() > 0 {
		if _, err := file.WriteString("\n"); err != nil {
			return err
		}
	}
	t.work.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.mu.Lock()
				t.flush()
				t.mu.Unlock()
			case <-t.stop:
				return
			}
		}
	})
	return nil
}

// flush writes what is pending as one line. Callers hold mu.
func (t *tracer) flush() {
	if t.pending.Len() == 0 || t.file == nil {
		return
	}
	resource, err := json.Marshal(t.resource)
	if err != nil {
		t.fail(err)
		return
	}
	line := fmt.Appendf(nil, `{"resourceSpans":[{"resource":{"attributes":%s},"scopeSpans":[{"scope":{"name":"github.com/groundplan/groundplan/sdk"},"spans":[%s]}]}]}`+"\n",
		resource, t.pending.Bytes())
	t.pending.Reset()
	if _, err := t.file.Write(line); err != nil {
		t.fail(err)
	}
}

// close says what went wrong.
func (t *tracer) close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.flush()
	t.closed = true
	t.mu.Unlock()
	close(t.stop)
	t.work.Wait()
	if t.file != nil {
		return errors.Join(t.err, t.file.Close())
	}
	return t.err
}
