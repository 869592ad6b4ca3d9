package export

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/groundplan/groundplan/activities/metrics"
)

// mostBuckets is how many buckets a histogram has at most for either sign: OpenTelemetry's own default.
const mostBuckets = 160

// requestBytes is about how large a request to a collector becomes, before it is compressed.
const requestBytes = 1 << 20

// OTLP writes the metrics of a run as one ExportMetricsServiceRequest in OTLP's JSON.
func OTLP(w io.Writer, run Run) error {
	out := bufio.NewWriter(w)
	fmt.Fprint(out, `{"resourceMetrics":[`)
	comma := ""
	err := resourceMetrics(run, func(part *metricspb.ResourceMetrics) error {
		// Field names are OTLP's JSON as they are; enums are numbers there, and there are no ids, which would be hex.
		data, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(part)
		if err != nil {
			return fmt.Errorf("writing OTLP: %w", err)
		}
		var compact bytes.Buffer // protojson puts in spaces at random
		if err := json.Compact(&compact, data); err != nil {
			return fmt.Errorf("writing OTLP: %w", err)
		}
		fmt.Fprintln(out, comma)
		comma = ","
		_, err = out.Write(compact.Bytes())
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprint(out, "\n]}\n")
	return out.Flush()
}

// resourceMetrics calls each with the metrics of a run in parts of about requestBytes.
func resourceMetrics(run Run, each func(*metricspb.ResourceMetrics) error) error {
	kinds := map[string]metrics.Kind{} // one of a metric's own: all series of a name are of one type
	for _, s := range run.Series {
		if known, seen := kinds[s.Metric]; seen && known != s.Kind {
			kinds[s.Metric] = metrics.KindValues
		} else if !seen {
			kinds[s.Metric] = s.Kind
		}
	}
	var list []*metricspb.Metric
	size := 0
	flush := func() error {
		if len(list) == 0 {
			return nil
		}
		part := &metricspb.ResourceMetrics{
			Resource: &resourcepb.Resource{Attributes: append(serviceOf(run, run.ID), subjectOf(run)...)},
			ScopeMetrics: []*metricspb.ScopeMetrics{{
				Scope: &commonpb.InstrumentationScope{Name: "github.com/groundplan/groundplan"}, Metrics: list,
			}},
		}
		list, size = nil, 0
		return each(part)
	}
	for _, s := range run.Series {
		if len(list) == 0 || list[len(list)-1].Name != valid(s.Metric) {
			list = append(list, newMetric(s.Metric, kinds[s.Metric]))
			size += proto.Size(list[len(list)-1])
		}
		size += addPoint(list[len(list)-1], run, s)
		if size > requestBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// newMetric is a metric without points. What is counted is a sum; the last values of instances are a summary, since a point
// for each of 10,000 instances would be too many; everything else is a histogram.
func newMetric(name string, kind metrics.Kind) *metricspb.Metric {
	m := &metricspb.Metric{Name: valid(name), Description: meanings[kind], Unit: unit(name)}
	const cumulative = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	switch kind {
	case metrics.KindTotals:
		m.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{AggregationTemporality: cumulative}}
	case metrics.KindLast:
		m.Data = &metricspb.Metric_Summary{Summary: &metricspb.Summary{}}
	default:
		m.Data = &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{AggregationTemporality: cumulative}}
	}
	return m
}

// unit is what a metric's name says about its unit, as UCUM writes it.
func unit(name string) string {
	for end, unit := range map[string]string{"_seconds": "s", "_bytes": "By", "_bits": "bit", "_ratio": "1"} {
		if strings.HasSuffix(name, end) {
			return unit
		}
	}
	return ""
}

// addPoint adds a series to its metric, and returns about how many bytes it takes.
func addPoint(m *metricspb.Metric, run Run, s metrics.Series) int {
	attributes := attributesOf(
		label{"groundplan.group", s.Group}, label{"groundplan.stage", s.Stage},
		label{"groundplan.phase", s.Phase}, label{"groundplan.event", s.Event})
	from, at := uint64(run.Started.UnixNano()), uint64(run.Ended.UnixNano())
	var point proto.Message
	switch data := m.Data.(type) {
	case *metricspb.Metric_Sum:
		// A plan may take back what it has counted.
		p := &metricspb.NumberDataPoint{Attributes: attributes, StartTimeUnixNano: from, TimeUnixNano: at, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: s.Summary.Sum}}
		data.Sum.DataPoints, point = append(data.Sum.DataPoints, p), p
		data.Sum.IsMonotonic = s.Summary.Min >= 0 && (len(data.Sum.DataPoints) == 1 || data.Sum.IsMonotonic)
	case *metricspb.Metric_Summary:
		p := summaryPoint(s)
		p.Attributes, p.StartTimeUnixNano, p.TimeUnixNano = attributes, from, at
		data.Summary.DataPoints, point = append(data.Summary.DataPoints, p), p
	case *metricspb.Metric_ExponentialHistogram:
		p := histogramPoint(s)
		p.Attributes, p.StartTimeUnixNano, p.TimeUnixNano = attributes, from, at
		data.ExponentialHistogram.DataPoints, point = append(data.ExponentialHistogram.DataPoints, p), p
	}
	return proto.Size(point)
}

func summaryPoint(s metrics.Series) *metricspb.SummaryDataPoint {
	p := &metricspb.SummaryDataPoint{Count: uint64(s.Summary.Count), Sum: s.Summary.Sum}
	for _, q := range [][2]float64{{0, s.Summary.Min}, {0.5, s.Summary.P50}, {0.9, s.Summary.P90}, {0.95, s.Summary.P95}, {0.99, s.Summary.P99}, {1, s.Summary.Max}} {
		p.QuantileValues = append(p.QuantileValues, &metricspb.SummaryDataPoint_ValueAtQuantile{Quantile: q[0], Value: q[1]})
	}
	return p
}

func histogramPoint(s metrics.Series) *metricspb.ExponentialHistogramDataPoint {
	e := s.Exponential(mostBuckets)
	p := &metricspb.ExponentialHistogramDataPoint{
		Count: uint64(s.Summary.Count), Min: &s.Summary.Min, Max: &s.Summary.Max, Scale: int32(e.Scale), ZeroCount: e.Zero,
		Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: int32(e.Positive.Offset), BucketCounts: e.Positive.Counts},
		Negative: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: int32(e.Negative.Offset), BucketCounts: e.Negative.Counts},
	}
	if s.Summary.Min >= 0 { // OTLP wants no sum where values are negative
		p.Sum = &s.Summary.Sum
	}
	return p
}

// serviceOf is what OpenTelemetry wants to know of every resource.
func serviceOf(run Run, instance string) []*commonpb.KeyValue {
	return attributesOf(label{"service.name", run.Pipeline}, label{"service.namespace", "groundplan"}, label{"service.instance.id", instance})
}

// subjectOf says what run something is of.
func subjectOf(run Run) []*commonpb.KeyValue {
	return attributesOf(
		label{"groundplan.run", run.ID}, label{"groundplan.pipeline", run.Pipeline}, label{"groundplan.suite", run.Suite}, label{"groundplan.ground", run.Ground})
}

// attributesOf leaves out what is empty.
func attributesOf(labels ...label) []*commonpb.KeyValue {
	var list []*commonpb.KeyValue
	for _, l := range labels {
		if l.value != "" {
			list = append(list, attribute(l.name, l.value))
		}
	}
	return list
}

func attribute(name, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: name, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: valid(value)}}}
}
