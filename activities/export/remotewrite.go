package export

import (
	"context"
	"math"
	"net/url"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// seriesPerRequest bounds a request of remote write; the default of Prometheus' own sender.
const seriesPerRequest = 2000

// remoteWrite sends a run's metrics by Prometheus' remote write, version 1.0. Their time is the end of the last run stage,
// so that what is sent again is the same.
func (s *sender) remoteWrite(ctx context.Context, u *url.URL, run Run) error {
	at := run.Ended.UnixMilli()
	var samples []sample
	for _, f := range families(run) {
		samples = append(samples, f.samples...)
	}
	for len(samples) > 0 {
		some := samples[:min(seriesPerRequest, len(samples))]
		samples = samples[len(some):]
		_, err := s.send(ctx, message{
			to: "the remote write endpoint", method: "POST", url: u,
			header: map[string]string{
				"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0",
			},
			body: snappy.Encode(nil, writeRequest(some, at)),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeRequest is a prometheus.WriteRequest:
//
//	message WriteRequest { repeated TimeSeries timeseries = 1; }
//	message TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; }
//	message Label        { string name = 1; string value = 2; }
//	message Sample       { double value = 1; int64 timestamp = 2; } // milliseconds
func writeRequest(samples []sample, at int64) []byte {
	var request []byte
	for _, s := range samples {
		var series []byte
		for _, l := range inOrder(append([]label{{"__name__", s.name}, {"job", "groundplan"}}, s.labels...)) {
			var pair []byte
			pair = protowire.AppendString(protowire.AppendTag(pair, 1, protowire.BytesType), l.name)
			pair = protowire.AppendString(protowire.AppendTag(pair, 2, protowire.BytesType), l.value)
			series = protowire.AppendBytes(protowire.AppendTag(series, 1, protowire.BytesType), pair)
		}
		var value []byte
		value = protowire.AppendFixed64(protowire.AppendTag(value, 1, protowire.Fixed64Type), math.Float64bits(s.value))
		value = protowire.AppendVarint(protowire.AppendTag(value, 2, protowire.VarintType), uint64(at))
		series = protowire.AppendBytes(protowire.AppendTag(series, 2, protowire.BytesType), value)
		request = protowire.AppendBytes(protowire.AppendTag(request, 1, protowire.BytesType), series)
	}
	return request
}
