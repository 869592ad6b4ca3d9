package userspace

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

func TestLatency(t *testing.T) {
	for _, of := range []func(uint32, int, int, int) []byte{frame, frame6} {
		d := newDesk(t, fake{all: links.Path{Latency: 10 * time.Millisecond}})
		d.engine.arrive(of(1, 0, 1, 100), 5000)
		d.engine.arrive(of(2, 0, 1, 100), 6000)
		d.run(math.MaxInt64)
		want := of(1, 0, 1, 100)
		turn(want)
		if len(d.out) != 2 || d.out[0].at != 10*time.Millisecond+5000 || d.out[1].at != 10*time.Millisecond+6000 || !slices.Equal(d.out[0].bytes, want) {
			t.Errorf("%+v", d.out)
		}
	}
}

func TestWhoIsUnknownPasses(t *testing.T) {
	d := newDesk(t, fake{all: links.Path{Latency: time.Second, Loss: 1}})
	stranger := frame(1, 0, 1, 100)
	stranger[ethernetHeader+12] = 11
	d.engine.arrive(stranger, 0)
	d.engine.arrive(frame(2, 0, 77, 100), 0)
	odd := frame6(3, 0, 1, 100)
	odd[ethernetHeader+8] ^= 1
	d.engine.arrive(odd, 0)
	torn := frame(4, 0, 1, 100)
	torn[ethernetHeader] = 0x4f // a header longer than it may be, but not than the packet
	d.engine.arrive(torn, 0)
	d.run(0)
	if !slices.Equal(d.numbers(), []uint32{1, 2, 3}) {
		t.Errorf("%v", d.numbers())
	}
	if n := len(d.engine.flows.ipv4) + len(d.engine.flows.ipv6); n != 1 {
		t.Errorf("%d flows are kept", n)
	}
}

func TestNoiseOfTheLinkIsNotSentBack(t *testing.T) {
	d := newDesk(t, fake{})
	multicast, arp := frame(1, 0, 1, 100), frame(2, 0, 1, 100)
	multicast[0] = 0x33
	arp[13] = 6
	for _, f := range [][]byte{multicast, arp, frame(3, 0, 1, 100)[:20], nil} {
		d.engine.arrive(f, 0)
	}
	d.run(math.MaxInt64)
	if len(d.out) > 0 || d.engine.packets.Load() > 0 {
		t.Errorf("%v, %d counted", d.numbers(), d.engine.packets.Load())
	}
}

// interval is how many of n are made for a share, in 99.99 % of the cases.
func interval(n int, share float64) (low, high float64) {
	mean, deviation := float64(n)*share, math.Sqrt(float64(n)*share*(1-share))
	return mean - 3.9*deviation - 1, mean + 3.9*deviation + 1
}

func TestShares(t *testing.T) {
	const n = 100_000
	for _, share := range []float64{0, 0.001, 0.01, 0.05, 0.5, 1} {
		low, high := interval(n, share)
		check := func(what string, made int) {
			t.Helper()
			if float64(made) < low || float64(made) > high {
				t.Errorf("%s of %v: %d of %d, want %.0f to %.0f", what, share, made, n, low, high)
			}
		}
		d := newDesk(t, fake{all: links.Path{Loss: share}})
		d.series(n, 60, time.Microsecond)
		check("loss", n-len(d.out))

		d = newDesk(t, fake{all: links.Path{Duplicate: share}})
		d.series(n, 60, time.Microsecond)
		check("duplication", len(d.out)-n)

		d = newDesk(t, fake{all: links.Path{Corrupt: share}})
		d.series(n, 60, time.Microsecond)
		changed := 0
		for i, o := range d.out {
			want := frame(uint32(i), 0, 1, 60)
			turn(want)
			bits := 0
			for j := range want {
				bits += popcount(want[j] ^ o.bytes[j])
			}
			if bits > 1 || !slices.Equal(want[:ethernetHeader+20], o.bytes[:ethernetHeader+20]) {
				t.Fatalf("packet %d was changed in %d bits, or in its header", i, bits)
			}
			changed += bits
		}
		check("corruption", changed)

		d = newDesk(t, fake{all: links.Path{Reorder: share, Latency: time.Millisecond}})
		d.series(n, 60, 10*time.Microsecond)
		early := 0
		for _, o := range d.out {
			sent := time.Duration(o.number) * 10 * time.Microsecond
			switch o.at - sent {
			case 0:
				early++
			case time.Millisecond:
			default:
				t.Fatalf("packet %d took %v", o.number, o.at-sent)
			}
		}
		check("reordering", early)
	}
}

func popcount(b byte) (n int) {
	for ; b > 0; b &= b - 1 {
		n++
	}
	return n
}

func TestCorrelationMakesRunsButKeepsTheShare(t *testing.T) {
	const n, share = 400_000, 0.05
	for _, correlation := range []float64{0, 0.25, 0.9} {
		d := newDesk(t, fake{all: links.Path{Loss: share, LossCorrelation: correlation}})
		d.series(n, 60, time.Microsecond)
		lost := make([]bool, n)
		for i := range lost {
			lost[i] = true
		}
		for _, o := range d.out {
			lost[o.number] = false
		}
		count, again := 0, 0
		for i := 1; i < n; i++ {
			if lost[i-1] {
				count++
				if lost[i] {
					again++
				}
			}
		}
		if got := float64(count) / n; math.Abs(got-share) > 0.006 {
			t.Errorf("correlation %v: %v lost", correlation, got)
		}
		want := correlation + (1-correlation)*share
		if got := float64(again) / float64(count); math.Abs(got-want) > 0.02 {
			t.Errorf("correlation %v: after a loss %v lost, want %v", correlation, got, want)
		}
	}
}

func TestTheSameSeedLosesTheSamePackets(t *testing.T) {
	lossy := fake{all: links.Path{Loss: 0.5}}
	alone, among := newDesk(t, lossy), newDesk(t, lossy)
	alone.series(1000, 60, time.Microsecond)
	for i := range 1000 {
		among.engine.arrive(frame(5000, 2, 1, 60), int64(i*1000))
		among.engine.arrive(frame(5000, 0, 3, 60), int64(i*1000))
		among.engine.arrive(frame(uint32(i), 0, 1, 60), int64(i*1000))
		if i == 500 {
			among.engine.replace(lossy, subnet6, int64(i*1000))
		}
	}
	among.run(math.MaxInt64)
	same := slices.DeleteFunc(among.numbers(), func(n uint32) bool { return n == 5000 })
	if !slices.Equal(alone.numbers(), same) {
		t.Error("what others send, or a state as before, changed which packets are lost")
	}
	other := newDesk(t, lossy)
	other.engine.flows.seed++
	other.series(1000, 60, time.Microsecond)
	if slices.Equal(alone.numbers(), other.numbers()) {
		t.Error("another seed loses the same packets")
	}
}

func TestJitter(t *testing.T) {
	const n = 50_000
	const latency, jitter = 20 * time.Millisecond, 2 * time.Millisecond
	for distribution, want := range map[string]struct{ least, most, deviation float64 }{
		"uniform": {-1, 1, 1 / math.Sqrt(3)},
		"normal":  {-4, 4, 1},
		"":        {-4, 4, 1},
		"pareto":  {-0.58, 4, 0.74}, // its tail is cut off
	} {
		d := newDesk(t, fake{all: links.Path{Latency: latency, Jitter: jitter, Distribution: distribution}})
		d.series(n, 60, 20*time.Millisecond) // too far apart to overtake
		var sum, squares, least, most float64
		for i, o := range d.out {
			x := float64(o.at-time.Duration(i)*20*time.Millisecond-latency) / float64(jitter)
			sum, squares, least, most = sum+x, squares+x*x, min(least, x), max(most, x)
		}
		mean := sum / n
		deviation := math.Sqrt(squares/n - mean*mean)
		if math.Abs(mean) > 0.05 || math.Abs(deviation-want.deviation) > 0.03 || least < want.least || most > want.most {
			t.Errorf("%q: mean %.3f, deviation %.3f, %.2f to %.2f, want %+v", distribution, mean, deviation, least, most, want)
		}
	}
}

func TestJitterNeitherReordersNorGoesBackInTime(t *testing.T) {
	d := newDesk(t, fake{all: links.Path{Latency: time.Millisecond, Jitter: 5 * time.Millisecond}})
	d.series(10_000, 60, 100*time.Microsecond)
	if !slices.IsSorted(d.numbers()) || len(d.out) != 10_000 {
		t.Error("jitter reordered")
	}
	for _, o := range d.out {
		if o.at < time.Duration(o.number)*100*time.Microsecond {
			t.Fatalf("packet %d left at %v", o.number, o.at)
		}
	}
}

func TestAnotherStateHoldsForPacketsToCome(t *testing.T) {
	d := newDesk(t, fake{all: links.Path{Latency: 100 * time.Millisecond}})
	d.engine.arrive(frame(1, 0, 1, 100), 0)
	d.engine.replace(fake{all: links.Path{Latency: 10 * time.Millisecond}}, subnet6, 5)
	d.engine.arrive(frame(2, 0, 1, 100), 10)
	d.run(math.MaxInt64)
	if !slices.Equal(d.numbers(), []uint32{2, 1}) || d.out[0].at != 10*time.Millisecond+10 || d.out[1].at != 100*time.Millisecond {
		t.Errorf("%+v", d.out)
	}
}

// A partition holds from the moment on at which it is in force.
func TestAPolicyCatchesPacketsUnderWay(t *testing.T) {
	for _, policy := range []links.Policy{links.Drop, links.Reject} {
		d := newDesk(t, fake{all: links.Path{Latency: 100 * time.Millisecond}})
		d.engine.arrive(frame(1, 0, 1, 100), 0)
		d.engine.arrive(frame(2, 3, 1, 100), 0)
		d.engine.replace(fake{paths: map[int]links.Path{0: {Policy: policy}}}, subnet6, 5)
		d.engine.arrive(frame(3, 0, 1, 100), 10)
		d.engine.replace(fake{paths: map[int]links.Path{0: {Policy: policy}}}, subnet6, 20)
		d.run(math.MaxInt64)
		if !slices.Equal(d.numbers(), []uint32{2}) {
			t.Errorf("%v left", d.numbers())
		}
	}
}

func TestTooManyPacketsAreCountedAsLost(t *testing.T) {
	d := newDesk(t, fake{all: links.Path{Latency: time.Second}})
	for i := range mostPackets + 5 {
		d.engine.arrive(frame(uint32(i), 0, 1, 60), 0)
	}
	if got := d.engine.lost.Load(); got != 5 {
		t.Errorf("%d are lost", got)
	}
	d.engine.arrive(make([]byte, 9), 0)
	giant := frame(0, 0, 1, 3000)
	d.engine.arrive(giant, 0)
	if got := d.engine.lost.Load(); got != 6 {
		t.Errorf("%d are lost with the giant", got)
	}
}

// router is a Translator in which slots 0 and 1 share the external address 10.0.0.200.
type router struct{ drop bool }

func (r router) Translate(p []byte, from int, _ time.Time) (int, bool) {
	if p[19] == 200 { // inwards, always to slot 0
		p[19] = 2
	}
	if from < 2 {
		p[15] = 200
	}
	return int(p[19]) - 2, !r.drop
}

func TestTranslatedPacketsGoByThePathOfTheInstances(t *testing.T) {
	paths := fake{paths: map[int]links.Path{
		0: {Translated: true, Latency: 10 * time.Millisecond},
		5: {Translated: true, Private: true, Latency: 20 * time.Millisecond},
		6: {Translated: true, Policy: links.Drop},
	}}
	d := newDesk(t, paths)
	d.engine.translator = router{}
	d.engine.arrive(frame(1, 0, 5, 100), 0)
	d.engine.arrive(frame(2, 5, 198, 100), 0)
	d.engine.arrive(frame(3, 6, 198, 100), 0)
	d.run(math.MaxInt64)
	if len(d.out) != 2 || d.out[0].at != 10*time.Millisecond || d.out[1].at != 20*time.Millisecond {
		t.Fatalf("%+v", d.out)
	}
	if ip := d.out[0].bytes[ethernetHeader:]; ip[15] != 200 || ip[19] != 7 {
		t.Errorf("outwards: %v", ip[:20])
	}
	if ip := d.out[1].bytes[ethernetHeader:]; ip[15] != 7 || ip[19] != 2 {
		t.Errorf("inwards: %v", ip[:20])
	}
	d = newDesk(t, paths)
	d.engine.translator = router{drop: true}
	d.engine.arrive(frame(1, 0, 5, 100), 0)
	d.run(math.MaxInt64)
	if len(d.out) > 0 {
		t.Error("a packet that the NAT drops went on")
	}
}

// Whatever arrives, and whatever is asked: nothing is sent that hadn't come, in no order but that of the queue.
func FuzzArrive(f *testing.F) {
	f.Add(frame(1, 0, 1, 100), uint8(3))
	f.Add(frame6(1, 0, 1, 100), uint8(255))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 8, 0, 0x4f}, uint8(7))
	f.Fuzz(func(t *testing.T, frame []byte, bits uint8) {
		on := func(bit int) float64 { return float64(bits >> bit & 1) }
		d := newDesk(t, fake{all: links.Path{
			Loss: on(0), Duplicate: on(1), Corrupt: on(2), Reorder: on(3), Latency: time.Duration(on(4)) * time.Second,
			Jitter: time.Duration(on(5)) * time.Second, Bandwidth: int64(on(6)), Translated: on(7) > 0,
		}})
		for at := range int64(3) {
			d.engine.arrive(slices.Clone(frame), at)
		}
		left := 0
		for {
			at, ok := d.engine.queue.next()
			if !ok {
				break
			}
			for _, p := range d.engine.due(at, make([]*packet, 0, 1)) {
				left++
				if len(p.frame) != len(frame) {
					t.Errorf("%d bytes came, %d left", len(frame), len(p.frame))
				}
				d.engine.pool.give(p)
			}
		}
		if left > 6 {
			t.Errorf("of 3 packets came %d", left)
		}
	})
}

func BenchmarkEngine(b *testing.B) {
	for name, p := range map[string]links.Path{
		"latency": {Latency: 10 * time.Millisecond},
		"all": {
			Latency: 10 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.01, Duplicate: 0.01, Reorder: 0.01, Corrupt: 0.01,
			Bandwidth: 10e9, Bucket: "row",
		},
	} {
		b.Run(name, func(b *testing.B) {
			d := newDesk(b, fake{all: p})
			var frames [100][]byte
			for i := range frames {
				frames[i] = frame(uint32(i), i%10, (i/10)%10, 1000)
			}
			out := make([]*packet, 0, batch)
			var now int64
			b.ReportAllocs()
			for b.Loop() {
				now += 10_000 // 100,000 packets a second, 1,000 under way
				d.engine.arrive(frames[now/10_000%100], now)
				for _, p := range d.engine.due(now, out) {
					d.engine.pool.give(p)
				}
			}
		})
	}
}
