package sdk

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// export is a line of traces.jsonl, with every field known.
type exported struct {
	ResourceSpans []struct {
		Resource   struct{ Attributes []keyValue }
		ScopeSpans []struct {
			Scope struct{ Name string }
			Spans []spanJSON
		}
	}
}

// spansOf reads a file and checks what holds of every span; resource is that of the last line.
func spansOf(t *testing.T, content string) (spans map[string]spanJSON, resource string) {
	t.Helper()
	spans = map[string]spanJSON{}
	for line := range strings.Lines(content) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var e exported
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil || len(e.ResourceSpans) != 1 || len(e.ResourceSpans[0].ScopeSpans) != 1 {
			t.Fatalf("%.300s: %v", line, err)
		}
		resource = ""
		for _, a := range e.ResourceSpans[0].Resource.Attributes {
			resource += fmt.Sprintf("%s=%v ", a.Key, a.Value["stringValue"])
		}
		for _, s := range e.ResourceSpans[0].ScopeSpans[0].Spans {
			trace, traceErr := hex.DecodeString(s.Trace)
			id, idErr := hex.DecodeString(s.ID)
			began, beganErr := strconv.ParseInt(s.Began, 10, 64)
			ended, endedErr := strconv.ParseInt(s.Ended, 10, 64)
			if err := errors.Join(traceErr, idErr, beganErr, endedErr); err != nil || len(trace) != 16 || len(id) != 8 || ended < began {
				t.Errorf("%+v: %v", s, err)
			}
			spans[s.Name] = s
		}
	}
	return spans, resource
}

func TestSpans(t *testing.T) {
	i := newInstance(t, newServer(t), map[string]string{"GROUNDPLAN_INSTANCE": "3", "GROUNDPLAN_STAGE": "load"})
	parent := ""
	status := i.play(func(ctx context.Context, run *Run) error {
		outer, lookup := run.Span(ctx, "lookup", Attr("key", "k"), Attr("n", 1), Attr("key", "other"))
		_, hop := run.Span(outer, "hop", Attr("took", 1500*time.Millisecond), Attr("ok", true), Attr("rate", math.Inf(-1)))
		hop.Event("asked", Attr("who", []int{1}))
		hop.End(errors.New("nobody answered"))
		hop.End(nil)
		lookup.Set(Attr("n", 2.5))
		lookup.End(nil)
		parent = lookup.Traceparent()
		far, err := ContinueTrace(ctx, parent)
		if err != nil {
			return err
		}
		_, answer := run.Span(far, "answer")
		answer.End(nil)
		_, alone := run.Span(ctx, "alone")
		alone.End(nil)
		run.Span(ctx, "never ended")
		var none *Span
		none.Set(Attr("a", 1))
		none.Event("x")
		none.End(nil)
		return nil
	})
	if status != 0 {
		t.Fatalf("status %d: %s", status, i.stderr.String())
	}
	spans, resource := spansOf(t, i.output(tracesFile))
	if resource != "service.name=p service.instance.id=r1/g/3 groundplan.run=r1 groundplan.stage=load groundplan.case=c groundplan.group=g groundplan.instance=g/3 " {
		t.Errorf("resource: %s", resource)
	}
	lookup, hop := spans["lookup"], spans["hop"]
	if len(spans) != 4 || hop.Trace != lookup.Trace || hop.Parent != lookup.ID || lookup.Parent != "" || spans["alone"].Trace == lookup.Trace ||
		spans["answer"].Parent != lookup.ID || parent != "00-"+lookup.Trace+"-"+lookup.ID+"-01" {
		t.Errorf("got %+v", spans)
	}
	if got := fmt.Sprint(lookup.Attributes, lookup.Status); got != "[{key map[stringValue:other]} {n map[doubleValue:2.5]}] <nil>" {
		t.Errorf("lookup: %s", got)
	}
	if got := fmt.Sprint(hop.Attributes, *hop.Status, hop.Events[0].Name, hop.Events[0].Attributes); got != "[{took map[doubleValue:1.5]} {ok map[boolValue:true]} {rate map[doubleValue:-Infinity]}] {nobody answered 2}asked[{who map[stringValue:[1]]}]" {
		t.Errorf("hop: %s", got)
	}
}

func TestNoSpansNoFile(t *testing.T) {
	i := newInstance(t, newServer(t), nil)
	if status := i.play(func(context.Context, *Run) error { return nil }); status != 0 {
		t.Fatal(status)
	}
	if _, err := os.Stat(filepath.Join(i.env["TEST_OUTPUTS_PATH"], tracesFile)); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

// TestManySpans has goroutines end more spans than one line holds, behind a line that a killed program left unfinished.
func TestManySpans(t *testing.T) {
	outputs := t.TempDir()
	if err := os.WriteFile(filepath.Join(outputs, tracesFile), []byte(`{"resourceSpans":[{"res`), 0o644); err != nil {
		t.Fatal(err)
	}
	run := &Run{traces: newTracer(&Environment{Outputs: outputs, Host: "h", Index: -1})}
	var work sync.WaitGroup
	for g := range 4 {
		work.Go(func() {
			for n := range 500 {
				_, span := run.Span(t.Context(), fmt.Sprintf("%d/%d", g, n), Attr("text", strings.Repeat("x", 500)))
				span.End(nil)
			}
		})
	}
	work.Wait()
	if err := run.traces.close(); err != nil {
		t.Fatal(err)
	}
	_, late := run.Span(t.Context(), "late")
	late.End(nil)
	content, err := os.ReadFile(filepath.Join(outputs, tracesFile))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(content), "\n")
	if spans, _ := spansOf(t, rest); len(spans) != 2000 {
		t.Errorf("%d spans", len(spans))
	}
	for line := range strings.Lines(rest) {
		if len(line) > 2*fullAt {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestLimitsOfASpan(t *testing.T) {
	run := &Run{traces: newTracer(&Environment{Outputs: t.TempDir(), Index: -1})}
	_, span := run.Span(t.Context(), strings.Repeat("ü", longestText))
	for n := range mostAttributes + 3 {
		span.Set(Attr(fmt.Sprint(n), n))
		span.Event("e")
	}
	span.End(nil)
	if err := run.traces.close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(run.traces.folder, tracesFile))
	if err != nil {
		t.Fatal(err)
	}
	spans, _ := spansOf(t, string(content))
	for name, s := range spans {
		if len(s.Attributes) != mostAttributes || s.DroppedAttributes != 3 || len(s.Events) != mostEvents || s.DroppedEvents != 3 || len(name) > longestText+3 || !strings.HasSuffix(name, "ü…") {
			t.Errorf("%d attributes, %d events, a name of %d bytes", len(s.Attributes), len(s.Events), len(name))
		}
	}
}

func TestSpansThatCannotBeWritten(t *testing.T) {
	i := newInstance(t, newServer(t), nil)
	status := i.play(func(ctx context.Context, run *Run) error {
		if err := os.Mkdir(filepath.Join(run.Outputs, tracesFile), 0o755); err != nil {
			return err
		}
		_, span := run.Span(ctx, "lookup")
		span.End(nil)
		return nil
	})
	if status != exitFailed || !strings.Contains(i.output("run.out"), "writing the outputs: opening an output: open") {
		t.Errorf("status %d: %s", status, i.output("run.out"))
	}
}

func TestContinueTrace(t *testing.T) {
	for _, text := range []string{
		"", "x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01", "00-zzf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if _, err := ContinueTrace(t.Context(), text); err == nil || !strings.Contains(err.Error(), "is not a traceparent") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ContinueTrace(t.Context(), "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-of a later version"); err != nil {
		t.Error(err)
	}
}

// FuzzContinueTrace has what is taken come back the same.
func FuzzContinueTrace(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, text string) {
		ctx, err := ContinueTrace(t.Context(), text)
		if err != nil {
			return
		}
		above, _ := ctx.Value(spanKey{}).(*Span)
		if got := above.Traceparent(); !strings.EqualFold(got[3:52], text[3:52]) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
