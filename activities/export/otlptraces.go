package export

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"

	tracecollectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/groundplan/groundplan/runs"
)

// TracesFile is the file in an instance's outputs that its plan writes spans into: a line for each
// ExportTraceServiceRequest, in OTLP's JSON, as the file exporter of OpenTelemetry's collector writes it.
const TracesFile = "traces.jsonl"

// longestLine bounds a line of a traces file, in bytes.
const longestLine = 4 << 20

// traces are what the plans of a run have written.
type traces struct {
	run  Run
	each func([]*tracepb.ResourceSpans) error // is given parts of about requestBytes

	part []*tracepb.ResourceSpans
	size int
	// bad counts lines that are no spans, and first names the first of them.
	bad   int
	first string
}

// walk goes through the traces of all instances, one line at a time.
func (t *traces) walk(ctx context.Context) error {
	for _, group := range t.run.Groups {
		for index := range group.Instances {
			if err := t.instance(ctx, group.Name, index); err != nil {
				return err
			}
		}
	}
	return t.flush()
}

func (t *traces) instance(ctx context.Context, group string, index int) error {
	file, err := runs.OpenRegular(filepath.Join(t.run.Folder.Outputs(group, index), TracesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading traces: %w", err)
	}
	defer file.Close()
	name := group + "/" + strconv.Itoa(index)
	whose := append(subjectOf(t.run), attribute("groundplan.group", group), attribute("groundplan.instance", name))
	service := serviceOf(t.run, t.run.ID+"/"+name)
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, longestLine)
	number := 0
	for lines.Scan() {
		number++
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		request, err := readTraces(lines.Bytes())
		if err != nil {
			t.fault(group, index, number, err)
			continue
		}
		for _, spans := range request.ResourceSpans {
			if spans.Resource == nil {
				spans.Resource = &resourcepb.Resource{}
			}
			// A plan may say which of its services it is, but not which instance of which run.
			spans.Resource.Attributes = laidOver(laidOver(service, spans.Resource.Attributes), whose)
			if err := t.add(spans); err != nil {
				return err
			}
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		t.fault(group, index, number+1, fmt.Errorf("longer than %d bytes; the rest of the file is left out", longestLine))
		return nil
	}
	return lines.Err()
}

func (t *traces) fault(group string, index, number int, err error) {
	if t.bad++; t.bad == 1 {
		t.first = fmt.Sprintf("%s/%d line %d: %v", group, index, number, err)
	}
}

// notes says what could not be read.
func (t *traces) notes() []string {
	switch t.bad {
	case 0:
		return nil
	case 1:
		return []string{"1 line of " + TracesFile + " holds no spans: " + t.first}
	}
	return []string{fmt.Sprintf("%d lines of %s hold no spans; the first: %s", t.bad, TracesFile, t.first)}
}

func (t *traces) add(spans *tracepb.ResourceSpans) error {
	t.part = append(t.part, spans)
	if t.size += proto.Size(spans); t.size < requestBytes {
		return nil
	}
	return t.flush()
}

func (t *traces) flush() error {
	if len(t.part) == 0 {
		return nil
	}
	part := t.part
	t.part, t.size = nil, 0
	return t.each(part)
}

// readTraces reads one line. Ids are hex, as OTLP has them, or base64, as protobuf's own JSON has them.
func readTraces(data []byte) (*tracecollectorpb.ExportTraceServiceRequest, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not one JSON document")
	}
	object, ok := document.(map[string]any)
	if !ok || object["resourceSpans"] == nil {
		return nil, errors.New("no resourceSpans in it")
	}
	if err := recode(document); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	var request tracecollectorpb.ExportTraceServiceRequest
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(plain, &request); err != nil {
		return nil, fmt.Errorf("not OTLP: %w", err)
	}
	return &request, check(&request)
}

// idBytes are the lengths of ids.
var idBytes = map[string]int{"traceId": 16, "spanId": 8, "parentSpanId": 8}

// recode turns hex ids into base64, which protobuf's JSON wants. Attributes have their own keys and values: none is
// mistaken for an id.
func recode(v any) error {
	switch v := v.(type) {
	case []any:
		for _, element := range v {
			if err := recode(element); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, value := range v {
			text, isText := value.(string)
			length, isID := idBytes[key]
			if !isID || !isText {
				if err := recode(value); err != nil {
					return err
				}
				continue
			}
			id, err := readID(text, length)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			v[key] = base64.StdEncoding.EncodeToString(id)
		}
	}
	return nil
}

func readID(text string, length int) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	if id, err := hex.DecodeString(text); err == nil && len(id) == length {
		return id, nil
	}
	if id, err := base64.StdEncoding.DecodeString(text); err == nil && len(id) == length {
		return id, nil
	}
	return nil, fmt.Errorf("%.40q is not %d bytes in hex", text, length)
}

// check refuses spans that a collector would refuse with the whole request.
func check(request *tracecollectorpb.ExportTraceServiceRequest) error {
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				if len(span.GetTraceId()) != 16 || len(span.GetSpanId()) != 8 {
					return fmt.Errorf("the span %.40q has no traceId or spanId", span.GetName())
				}
			}
		}
	}
	return nil
}
