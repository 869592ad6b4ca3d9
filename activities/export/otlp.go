package export

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"

	metricscollectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracecollectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// otlp sends a run's metrics and its plans' traces to an OTLP/HTTP endpoint.
func (s *sender) otlp(ctx context.Context, to Targets, run Run) (notes []string, err error) {
	u, err := url.Parse(to.OTLP)
	if err != nil {
		return nil, errors.New("metrics can't be sent by OTLP: the address is not a URL") // err repeats it, with a password
	}
	var points, spans rejected
	err = resourceMetrics(run, func(part *metricspb.ResourceMetrics) error {
		answer := &metricscollectorpb.ExportMetricsServiceResponse{}
		request := &metricscollectorpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{part}}
		if err := s.post(ctx, u.JoinPath("v1/metrics"), to.Headers, request, answer); err != nil {
			return err
		}
		points.add(answer.GetPartialSuccess().GetRejectedDataPoints(), answer.GetPartialSuccess().GetErrorMessage())
		return nil
	})
	if err != nil {
		return nil, err
	}
	sent := 0
	t := traces{run: run, each: func(part []*tracepb.ResourceSpans) error {
		s.say(fmt.Sprintf("sending traces, %d requests so far", sent))
		sent++
		answer := &tracecollectorpb.ExportTraceServiceResponse{}
		if err := s.post(ctx, u.JoinPath("v1/traces"), to.Headers, &tracecollectorpb.ExportTraceServiceRequest{ResourceSpans: part}, answer); err != nil {
			return err
		}
		spans.add(answer.GetPartialSuccess().GetRejectedSpans(), answer.GetPartialSuccess().GetErrorMessage())
		return nil
	}}
	err = t.walk(ctx)
	notes = append(t.notes(), points.notes("points of metrics", u.Host)...)
	notes = append(notes, spans.notes("spans", u.Host)...)
	for i := range notes {
		notes[i] = s.scrub(notes[i])
	}
	return notes, err
}

// rejected counts what a collector took a request without.
type rejected struct {
	count int64
	first string
}

func (r *rejected) add(count int64, why string) {
	r.count += count
	if r.first == "" {
		r.first = excerpt("", []byte(why))
	}
}

func (r rejected) notes(what, host string) []string {
	switch {
	case r.count > 0 && r.first != "":
		return []string{fmt.Sprintf("the OTLP endpoint at %s rejected %d %s: %s", host, r.count, what, r.first)}
	case r.count > 0:
		return []string{fmt.Sprintf("the OTLP endpoint at %s rejected %d %s", host, r.count, what)}
	case r.first != "":
		return []string{fmt.Sprintf("the OTLP endpoint at %s took the %s and says: %s", host, what, r.first)}
	}
	return nil
}

// post sends a request as compressed protobuf and reads the answer.
func (s *sender) post(ctx context.Context, u *url.URL, headers map[string]string, request, answer proto.Message) error {
	plain, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("writing a request of OTLP: %w", err)
	}
	var body bytes.Buffer
	zip := gzip.NewWriter(&body)
	_, err = zip.Write(plain)
	if err := errors.Join(err, zip.Close()); err != nil {
		return err
	}
	all := maps.Clone(headers)
	if all == nil {
		all = map[string]string{}
	}
	all["Content-Type"], all["Content-Encoding"] = "application/x-protobuf", "gzip"
	data, err := s.send(ctx, message{to: "the OTLP endpoint", method: "POST", url: u, header: all, body: body.Bytes()})
	if err != nil {
		return err
	}
	// An answer that can't be read was none of refusal: it is taken for a plain yes.
	_ = proto.Unmarshal(data, answer)
	return nil
}

// statusMessage is the message of a google.rpc.Status, as which OTLP says what is wrong: its field 2.
func statusMessage(data []byte) string {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return ""
		}
		data = data[n:]
		if number == 2 && kind == protowire.BytesType {
			text, _ := protowire.ConsumeBytes(data)
			return excerpt("", text)
		}
		if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
			return ""
		}
		data = data[n:]
	}
	return ""
}

// laidOver lays attributes over others with the same keys.
func laidOver(below, above []*commonpb.KeyValue) []*commonpb.KeyValue {
	over := map[string]bool{}
	for _, a := range above {
		over[a.GetKey()] = true
	}
	var list []*commonpb.KeyValue
	for _, a := range below {
		if a != nil && !over[a.GetKey()] {
			list = append(list, a)
		}
	}
	return append(list, above...)
}
