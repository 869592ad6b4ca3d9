package prober

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func here(work func() error) error { return work() }

func clockAt(t *testing.T, ahead time.Duration) *clock {
	t.Helper()
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo) // where it is down these are namespaces of the test's own
	}
	c, err := openClock(here, netip.MustParseAddr("127.0.0.1"), ahead)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func TestClocksAreCompared(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Second, -3 * time.Hour} {
		own, other := clockAt(t, -ahead/2), clockAt(t, ahead/2)
		got := own.compare(t.Context(), other.at)
		if got.err != nil {
			t.Fatal(got.err)
		}
		if off := (got.ahead - ahead).Abs(); off > got.within+100*time.Microsecond {
			t.Errorf("%v found where it is %v, and said to be right within %v", got.ahead, ahead, got.within)
		}
		t.Logf("%v ± %v", got.ahead, got.within)
	}
}

func TestAClockThatIsGone(t *testing.T) {
	own, other := clockAt(t, 0), clockAt(t, 0)
	at := other.at
	other.close()
	if got := own.compare(t.Context(), at); got.err == nil {
		t.Errorf("%+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := own.compare(ctx, at); !errors.Is(got.err, context.Canceled) {
		t.Errorf("%+v", got)
	}
}

func TestWhatClocksSayOfLatencies(t *testing.T) {
	w := &probing{pairs: make([]pair, 4), found: make([]findings, 4)}
	for i := range w.found {
		w.found[i].spaced = new(Series)
	}
	p := &party{Together: &Together{Node: "here"}, nodes: []introduction{{Node: "here"}, {Node: "good"}, {Node: "stepped"}, {Node: "mute"}},
		far: map[int]far{0: {node: 1}, 1: {node: 2}, 2: {node: 3}}}
	before := map[int]comparison{1: {ahead: 100, within: 30}, 2: {within: 10}, 3: {err: errors.New("it doesn't answer")}}
	after := map[int]comparison{1: {ahead: 300, within: 20}, 2: {ahead: 5 * time.Millisecond, within: 10}, 3: {}}
	p.bound(w, before, after)
	if f := w.found[0]; f.failure != nil || f.within != 30+100 || p.offset(0) != 200 || len(f.notes) != 1 {
		t.Errorf("%+v, %d", f, p.offset(0))
	}
	if f := w.found[1]; !errors.Is(f.failure, ErrClock) {
		t.Errorf("%+v", f)
	}
	if f := w.found[2]; f.failure == nil {
		t.Errorf("%+v", f)
	}
	if f := w.found[3]; f.failure != nil || f.within != 0 {
		t.Errorf("on one node: %+v", f)
	}
	r := newRecord(1, 2)
	r.sent, r.came, r.ahead = []int64{1000, 2000}, []int64{6000, 0}, 4000
	if got := r.series().Latencies; !slices.Equal(got, []time.Duration{1000}) {
		t.Errorf("%v", got)
	}
}

func TestArrivalsAreToldWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		came := make([]int64, random.IntN(500))
		at := time.Now().UnixMicro()
		for i := range came {
			at += random.Int64N(5000) - 500 // some overtake
			if random.IntN(10) > 0 {
				came[i] = at * 1000
			}
		}
		raw, err := json.Marshal(arrivals{Series: map[kind]*tally{spacedKind: {Came: pack(came), Duplicates: 3}}})
		if err != nil {
			t.Fatal(err)
		}
		var told arrivals
		if err := json.Unmarshal(raw, &told); err != nil {
			t.Fatal(err)
		}
		r := newRecord(1, len(came))
		told.Series[spacedKind].into(r)
		if !slices.Equal(r.came, came) || r.duplicates != 3 {
			t.Fatalf("%v, want %v", r.came, came)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack([]int64{1000, 0, 3000}), 3)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		came := make([]int64, max(0, n)%1000)
		unpack(b, came) // whatever another node says
	})
}

func TestAnInboxKeepsWhatIsForIt(t *testing.T) {
	p := &party{Together: &Together{Key: "k"}, round: "first"}
	w := &probing{pairs: []pair{{}}, found: make([]findings, 1), sharing: map[bucket]int{}}
	box := newInbox(p)
	box.expect(w, 0, true)
	e := &Endpoint{address: netip.MustParseAddr("10.0.0.2")}
	at := time.Now().UnixNano()
	come := func(key uint64, number uint32) {
		payload := make([]byte, 100)
		fill(payload, key, number)
		at += int64(time.Millisecond)
		box.take(arrival{payload: payload, at: at}, e)
	}
	come(12345, 0) // somebody else's
	box.take(arrival{payload: []byte("short"), at: at}, e)
	if told := box.tell(); told.Knocked || len(told.Series) > 0 || told.Rate.Packets > 0 {
		t.Errorf("%+v", told)
	}
	come(p.key(0, knockKind), 0)
	for i := range uint32(10) {
		come(p.key(0, spacedKind), i)
	}
	come(p.key(0, spacedKind), 3)
	told := box.tell()
	if s := told.Series[spacedKind]; !told.Knocked || s == nil || s.Duplicates != 1 {
		t.Fatalf("%+v", told)
	}
	for i := range uint32(100) {
		come(p.key(0, floodKind), i)
	}
	told = box.tell()
	if want := 128 * 8e3; told.Rate.Received < 0.99*want || told.Rate.Received > 1.01*want || len(told.Series) > 0 {
		t.Errorf("%+v, want %v bit/s", told, want)
	}
	if told = box.tell(); told.Rate.Packets > 0 {
		t.Errorf("told again: %+v", told)
	}
}
