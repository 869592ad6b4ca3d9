package export

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	metricscollectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracecollectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/groundplan/groundplan/pipelines"
)

// strict is a request that an OTLP/HTTP endpoint got, read as strictly as it can be.
func strict(t *testing.T, r got, path string, into proto.Message) {
	t.Helper()
	if r.method != "POST" || r.path != path || r.header.Get("Content-Type") != "application/x-protobuf" || r.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("got %s %s %v, want it at %s", r.method, r.path, r.header, path)
	}
	if err := (proto.UnmarshalOptions{}).Unmarshal(unzip(t, r.body), into); err != nil {
		t.Fatal(err)
	}
	if unknown := into.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Errorf("unknown fields: %x", unknown)
	}
}

// attributesAsText lists attributes and sees that no key is there twice.
func attributesAsText(t *testing.T, list []*commonpb.KeyValue) string {
	t.Helper()
	text := ""
	seen := map[string]bool{}
	for _, a := range list {
		if seen[a.Key] {
			t.Errorf("twice: %s", a.Key)
		}
		seen[a.Key] = true
		text += a.Key + "=" + a.GetValue().GetStringValue() + " "
	}
	return text
}

// checkPoint holds a histogram's point against what OpenTelemetry says of one.
func checkPoint(t *testing.T, name string, p *metricspb.ExponentialHistogramDataPoint) {
	t.Helper()
	total := p.ZeroCount
	for _, b := range []*metricspb.ExponentialHistogramDataPoint_Buckets{p.Positive, p.Negative} {
		for i, n := range b.GetBucketCounts() {
			total += n
			low := math.Exp2(math.Ldexp(float64(int(b.Offset)+i), -int(p.Scale)))
			if n > 0 && low > max(math.Abs(p.GetMax()), math.Abs(p.GetMin()))*(1+1e-9) {
				t.Errorf("%s: values above %v, the greatest is %v", name, low, p.GetMax())
			}
		}
	}
	if total != p.Count || p.TimeUnixNano < p.StartTimeUnixNano || (p.Sum != nil) != (p.GetMin() >= 0) {
		t.Errorf("%s: %v", name, p)
	}
}

func TestOTLPMetrics(t *testing.T) {
	run := sampleRun(t)
	address, requests := server(t, status(http.StatusOK, ""))
	// A header goes before the user of a URL.
	to := Targets{OTLP: strings.Replace(address, "://", "://me:secret@", 1) + "/base/", Headers: map[string]string{"authorization": "Bearer x"}}
	notes, err := hasty(t, to).otlp(t.Context(), to, run)
	if err != nil || len(notes) > 0 || len(requests()) != 1 {
		t.Fatalf("%q, %v, %d requests", notes, err, len(requests()))
	}
	r := requests()[0]
	var request metricscollectorpb.ExportMetricsServiceRequest
	strict(t, r, "/base/v1/metrics", &request)
	if r.header.Get("Authorization") != "Bearer x" {
		t.Errorf("headers: %v", r.header)
	}
	if of := attributesAsText(t, request.ResourceMetrics[0].Resource.Attributes); of != "service.name=dht service.namespace=groundplan service.instance.id=20261123-sample groundplan.run=20261123-sample groundplan.pipeline=dht groundplan.suite=nightly groundplan.ground=local " {
		t.Errorf("resource: %s", of)
	}
	points := 0
	names := map[string]bool{}
	for _, m := range request.ResourceMetrics[0].ScopeMetrics[0].Metrics {
		if names[m.Name] {
			t.Errorf("twice: %s", m.Name)
		}
		names[m.Name] = true
		for _, p := range m.GetExponentialHistogram().GetDataPoints() {
			points++
			attributesAsText(t, p.Attributes)
			checkPoint(t, m.Name, p)
		}
		points += len(m.GetSum().GetDataPoints()) + len(m.GetSummary().GetDataPoints())
		if m.Name == "lookups" && (!m.GetSum().IsMonotonic || m.GetSum().AggregationTemporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE) {
			t.Errorf("%v", m)
		}
	}
	if points != len(run.Series) {
		t.Errorf("%d points of %d series", points, len(run.Series))
	}

	// The file says the same.
	var file bytes.Buffer
	if err := OTLP(&file, run); err != nil {
		t.Fatal(err)
	}
	var written metricscollectorpb.ExportMetricsServiceRequest
	if err := protojson.Unmarshal(file.Bytes(), &written); err != nil || !proto.Equal(&written, &request) {
		t.Errorf("the file is not what was sent (%v)", err)
	}
}

// TestOTLPInParts has more metrics than fit into one request, and one metric in several of them.
func TestOTLPInParts(t *testing.T) {
	run := sampleRun(t)
	var content strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&content, `{"type":"point","name":"m%04d%s","measures":{"value":%d}}`+"\n", i, strings.Repeat("x", 200), i)
	}
	leave(t, run.Folder, "us", 0, "results.out", content.String())
	summarise(t, &run)
	address, requests := server(t, status(http.StatusOK, ""))
	to := Targets{OTLP: address}
	if _, err := hasty(t, to).otlp(t.Context(), to, run); err != nil {
		t.Fatal(err)
	}
	points := 0
	for _, r := range requests() {
		var request metricscollectorpb.ExportMetricsServiceRequest
		strict(t, r, "/v1/metrics", &request)
		if size := proto.Size(&request); size > 2*requestBytes {
			t.Errorf("a request of %d bytes", size)
		}
		for _, m := range request.ResourceMetrics[0].ScopeMetrics[0].Metrics {
			points += len(m.GetSum().GetDataPoints()) + len(m.GetSummary().GetDataPoints()) + len(m.GetExponentialHistogram().GetDataPoints())
		}
	}
	if points != len(run.Series) || len(requests()) < 2 {
		t.Errorf("%d points of %d series in %d requests", points, len(run.Series), len(requests()))
	}
	var file bytes.Buffer
	if err := OTLP(&file, run); err != nil || !json.Valid(file.Bytes()) {
		t.Errorf("the file is not JSON (%v)", err)
	}
}

const (
	traceID = "5b8efff798038103d269b633813fc60c"
	spanID  = "eee19b7ec3c1b174"
)

func spanLine(name, resource string) string {
	return `{"resourceSpans":[{` + resource + `"scopeSpans":[{"scope":{"name":"x"},"spans":[{"traceId":"` + traceID + `","spanId":"` + spanID +
		`","parentSpanId":"","name":"` + name + `","kind":1,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,"attributes":[{"key":"traceId","value":{"stringValue":"not an id"}},{"key":"n","value":{"intValue":"3"}}],"status":{"code":2}}]}]}]}`
}

func TestTraces(t *testing.T) {
	run := sampleRun(t)
	mine := `"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"node"}},{"key":"groundplan.run","value":{"stringValue":"somebody else"}}]},`
	leave(t, run.Folder, "eu", 0, TracesFile, spanLine("lookup", "")+"\n\n"+spanLine("store", mine)+"\n{\"resourceSpans\":[\n"+`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}`+"\n"+`{"resourceSpans":[{"scop`)
	// As protobuf's own JSON has ids.
	id, _ := hex.DecodeString(traceID)
	leave(t, run.Folder, "us", 0, TracesFile, strings.ReplaceAll(spanLine("encoded", ""), traceID, base64Text(id)))
	address, requests := server(t, status(http.StatusOK, ""))
	to := Targets{OTLP: address}
	o, err := Export(t.Context(), run, []string{pipelines.ExportOTLP}, to, time.Time{}, func(string) {})
	if err != nil || o.Unsent != "" || len(requests()) != 2 {
		t.Fatalf("%+v, %v, %d requests", o, err, len(requests()))
	}
	if want := "3 lines of traces.jsonl hold no spans; the first: eu/0 line 4: not JSON: unexpected EOF"; len(o.Notes) != 1 || o.Notes[0] != want {
		t.Errorf("notes: %q", o.Notes)
	}
	var request tracecollectorpb.ExportTraceServiceRequest
	strict(t, requests()[1], "/v1/traces", &request)
	var got []string
	for _, spans := range request.ResourceSpans {
		span := spans.ScopeSpans[0].Spans[0]
		got = append(got, span.Name+": "+attributesAsText(t, spans.Resource.Attributes))
		if hex.EncodeToString(span.TraceId) != traceID || hex.EncodeToString(span.SpanId) != spanID || len(span.ParentSpanId) != 0 || span.Status.Code != 2 || span.Attributes[1].Value.GetIntValue() != 3 {
			t.Errorf("span: %v", span)
		}
	}
	ours := "groundplan.run=20261123-sample groundplan.pipeline=dht groundplan.suite=nightly groundplan.ground=local groundplan.group=%s groundplan.instance=%s/0 "
	service := "service.name=%s service.namespace=groundplan service.instance.id=20261123-sample/%s/0 "
	want := []string{
		"lookup: " + fmt.Sprintf(service, "dht", "eu") + fmt.Sprintf(ours, "eu", "eu"),
		"store: service.namespace=groundplan service.instance.id=20261123-sample/eu/0 service.name=node " + fmt.Sprintf(ours, "eu", "eu"),
		"encoded: " + fmt.Sprintf(service, "dht", "us") + fmt.Sprintf(ours, "us", "us"),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func base64Text(id []byte) string {
	text, _ := json.Marshal(id)
	return strings.Trim(string(text), `"`)
}

// TestManyTraces has more spans than fit into a request, and a line that no plan should write.
func TestManyTraces(t *testing.T) {
	run := sampleRun(t)
	leave(t, run.Folder, "eu", 0, TracesFile, strings.Repeat(spanLine(strings.Repeat("n", 1000), "")+"\n", 3000)+strings.Repeat("x", longestLine+1))
	address, requests := server(t, status(http.StatusOK, ""))
	to := Targets{OTLP: address}
	notes, err := hasty(t, to).otlp(t.Context(), to, run)
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "eu/0 line 3001: longer than 4194304 bytes") {
		t.Fatalf("%q, %v", notes, err)
	}
	spans := 0
	for _, r := range requests()[1:] {
		var request tracecollectorpb.ExportTraceServiceRequest
		strict(t, r, "/v1/traces", &request)
		spans += len(request.ResourceSpans)
		if size := proto.Size(&request); size > 2*requestBytes {
			t.Errorf("a request of %d bytes", size)
		}
	}
	if spans != 3000 || len(requests()) < 4 {
		t.Errorf("%d spans in %d requests", spans, len(requests()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hasty(t, to).otlp(ctx, to, run); err == nil {
		t.Error("it went on although it was cancelled")
	}
}

func TestPartialSuccess(t *testing.T) {
	run := sampleRun(t)
	leave(t, run.Folder, "eu", 0, TracesFile, spanLine("lookup", ""))
	answer := func(m proto.Message) http.HandlerFunc {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return status(http.StatusOK, string(data), "Content-Type", "application/x-protobuf")
	}
	address, _ := server(t,
		answer(&metricscollectorpb.ExportMetricsServiceResponse{PartialSuccess: &metricscollectorpb.ExportMetricsPartialSuccess{RejectedDataPoints: 3, ErrorMessage: "too old for hunter2"}}),
		answer(&tracecollectorpb.ExportTraceServiceResponse{PartialSuccess: &tracecollectorpb.ExportTracePartialSuccess{ErrorMessage: "use v2"}}))
	host := strings.TrimPrefix(address, "http://")
	to := Targets{OTLP: address, Headers: map[string]string{"key": "hunter2"}}
	o, err := Export(t.Context(), run, []string{pipelines.ExportOTLP}, to, time.Time{}, func(string) {})
	want := fmt.Sprint([]string{
		"the OTLP endpoint at " + host + " rejected 3 points of metrics: too old for •••", "the OTLP endpoint at " + host + " took the spans and says: use v2",
	})
	if err != nil || o.Unsent != "" || fmt.Sprint(o.Notes) != want {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestStatusMessage(t *testing.T) {
	// code: 3, message: "bad span", and details that are left out.
	data := append([]byte{0x08, 3, 0x1a, 1, 'x', 0x12, 8}, "bad span"...)
	if got := excerpt("application/x-protobuf", data); got != "bad span" {
		t.Errorf("got %q", got)
	}
}

// FuzzStatusMessage gives it anything.
func FuzzStatusMessage(f *testing.F) {
	f.Add(append([]byte{0x08, 3, 0x12, 8}, "bad span"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := statusMessage(data); len([]rune(got)) > longestExcerpt+1 {
			t.Errorf("%d characters", len(got))
		}
	})
}

// FuzzReadTraces gives it lines of any kind: what is read can be sent, and its ids are ids.
func FuzzReadTraces(f *testing.F) {
	f.Add([]byte(spanLine("lookup", "")))
	f.Add([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"","links":[{"traceId":"zz"}]}]}]}]}`))
	f.Add([]byte(`{"resourceSpans":[null]}`))
	f.Add([]byte(`{"resourceSpans":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		request, err := readTraces(data)
		if err != nil {
			return
		}
		if _, err := proto.Marshal(request); err != nil {
			t.Fatal(err)
		}
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					if len(span.TraceId) != 16 || len(span.SpanId) != 8 || len(span.ParentSpanId) != 0 && len(span.ParentSpanId) != 8 {
						t.Errorf("%v", span)
					}
				}
			}
		}
	})
}
