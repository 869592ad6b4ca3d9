package netem

import (
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// everything are routes that make use of all that the kernel has to have, once one way and once another.
var everything = func() [][]links.Route {
	most := links.Path{
		Latency: time.Millisecond, Jitter: time.Millisecond, Distribution: "pareto", Loss: .1, LossCorrelation: .1,
		Reorder: .1, ReorderCorrelation: .1, Corrupt: .1, CorruptCorrelation: .1, Bandwidth: 1e6, Bucket: "a", Queue: 10,
	}
	other := links.Path{Loss: .5}
	v4, v6 := netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd67::/96")
	return [][]links.Route{
		{{To: v4, Path: most}, {To: v6, Path: other}},
		{{To: v4, Path: other}, {To: v6, Path: links.Path{Latency: time.Second}}},
	}
}()
