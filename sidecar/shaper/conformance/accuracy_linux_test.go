package conformance_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
	"github.com/groundplan/groundplan/sidecar/shaper/conformance"
)

// BenchmarkAccuracy says how exact shaping in user space is: 50 instances, of which each exchanges packets with the next at
// 10 ms each way, then loses 1 % of them, then one after the other sends through 10 Mbit/s. Run it on a machine that does
// nothing else: go test -run '^$' -bench Accuracy -benchtime 1x ./sidecar/shaper/conformance
func BenchmarkAccuracy(b *testing.B) {
	if !launchtest.Inside() {
		outside(b)
		return
	}
	for b.Loop() {
		accuracy(b)
	}
}

// outside runs the benchmark in a sidecar, and passes on what it says.
func outside(b *testing.B) {
	if err := launch.Supported(); err != nil {
		b.Skip(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^$", "-test.bench=^BenchmarkAccuracy$", "-test.benchtime=1x")
	cmd.Env = launchtest.StarterEnvironment()
	cmd.Dir = "/"
	said, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, said)
	}
	for line := range bytes.Lines(said) {
		if bytes.HasPrefix(line, []byte("accuracy:")) {
			_, _ = os.Stdout.Write(line)
		}
	}
}

func accuracy(b *testing.B) {
	const instances, delay = 50, 10 * time.Millisecond
	f, seats := seated(b, instances)
	s := userSpace(b, f)
	b.Cleanup(func() { _ = s.Close() })
	put := func(shape pipelines.Shape) {
		state, err := links.New(seats, links.Layers{Stage: pipelines.Network{Default: shape}})
		if err == nil {
			err = s.Apply(b.Context(), state)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	ends := make([]*prober.Endpoint, instances)
	for i := range ends {
		var err error
		if ends[i], err = prober.Open(func(w func() error) error { return f.Inside(i, w) }, seats.Instances[i].Data); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = ends[i].Close() })
	}
	around := func(o prober.SeriesOptions) []prober.Series {
		all, errs := make([]prober.Series, instances), make([]error, instances)
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() { all[i], errs[i] = prober.Measure(b.Context(), ends[i], ends[(i+1)%instances], o) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
		return all
	}

	put(pipelines.Shape{Latency: new(pipelines.Duration(delay))})
	var errs []time.Duration
	for _, got := range around(prober.SeriesOptions{Packets: 400, Interval: 25 * time.Millisecond}) {
		// Twice what one way is late: the way back is another instance's.
		for _, l := range got.Latencies {
			errs = append(errs, 2*(l-delay))
		}
	}
	slices.Sort(errs)
	at := func(q float64) time.Duration { return errs[int(q*float64(len(errs)-1))].Round(time.Microsecond) }
	fmt.Printf("accuracy: RTT at 2 × %v, %d packets: error p50 %v, p90 %v, p99 %v, most %v\n", delay, len(errs), at(.5), at(.9), at(.99), at(1))

	put(pipelines.Shape{Loss: new(pipelines.Share(.01))})
	sent, lost := 0, 0
	for _, got := range around(prober.SeriesOptions{Packets: 2000, Interval: 5 * time.Millisecond}) {
		sent, lost = sent+got.Sent, lost+got.Sent-got.Received
	}
	fmt.Printf("accuracy: loss of 1 %%: %d of %d packets are %.3f %%\n", lost, sent, 100*float64(lost)/float64(sent))

	put(pipelines.Shape{Bandwidth: new(pipelines.Bandwidth(10e6))})
	var rates []float64
	for i := range 10 {
		got, err := prober.Throughput(b.Context(), ends[2*i], ends[2*i+1], prober.ThroughputOptions{Rate: 10e6, For: time.Second})
		if err != nil {
			b.Fatal(err)
		}
		rates = append(rates, got.Received/10e6-1)
	}
	slices.Sort(rates)
	fmt.Printf("accuracy: bandwidth of 10 Mbit/s, 10 links: error from %+.2f %% to %+.2f %%, median %+.2f %%\n", 100*rates[0], 100*rates[9], 100*rates[5])
	fmt.Printf("accuracy: %+v\n", s.Health())
}

func seated(b *testing.B, n int) (*fabric.Fabric, links.Seats) {
	f := conformance.Placed(b, n)
	seats := links.Seats{Subnet: f.Subnet(), Subnet6: f.Subnet6(), Groups: []pipelines.Group{{Name: "all", Instances: n}}}
	for slot := range n {
		_, data := f.Addresses(slot)
		seats.Instances = append(seats.Instances, links.Instance{Slot: slot, Group: "all", Data: data, Data6: f.Address6(slot)})
	}
	return f, seats
}
