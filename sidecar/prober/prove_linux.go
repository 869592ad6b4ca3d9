package prober

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/links"
)

// Options say what is to be proved.
type Options struct {
	// State is what is asked of the network. It has to be in force.
	State *links.State
	// Inside does work on a thread in the network namespace of an instance.
	Inside func(slot int, work func() error) error
	// Verify says how many pairs are probed, and how far off they may be.
	Verify pipelines.Verify
	// Seed draws the pairs.
	Seed uint64
	// Shaper is the name of what shapes, for the record.
	Shaper string
	// MaxSize is how long packets may be, in bytes; 0: MaxSize.
	MaxSize int
	// Together is how nodes prove a network that is spread over them; nil: all instances are here.
	Together *Together
	// Report, when it isn't nil, is told how many pairs are done. It is called from several goroutines, one at a time.
	Report func(done, total int)
}

// Prove probes pairs of instances and says what was found beside what is asked. A pair that seems wrong is probed once
// more, with only its like beside it, before it counts: the probes themselves keep a small machine busy. A pair that is
// wrong is no error; the error is that of ctx.
//
// Latency is right when its median is off by at most the tolerance and one millisecond, plus what jitter makes of the
// median of so few. Loss and the like are right unless fewer than one in 1,000 links with a share inside the tolerance
// would show so many, or so few. Jitter is judged by its order of magnitude.
//
// Together with other nodes, each of which has to be asked for the same, the proof has what all of them have found. The
// error then may also be that of the exchange.
func Prove(ctx context.Context, o Options) (control.Proof, error) {
	proof := control.Proof{Shaper: o.Shaper, Seed: o.Seed, Tolerance: o.Verify.Tolerance, Started: time.Now()}
	pairs := sample(o.State, o.Verify.Pairs, o.Seed)
	if o.MaxSize == 0 {
		o.MaxSize = MaxSize
	}
	var err error
	if proof.Pairs, err = o.probe(ctx, "first", pairs, &progress{total: len(pairs), report: o.Report}); err != nil {
		return proof, fmt.Errorf("proving the network: %w", err)
	}
	var wrong []int
	var again []pair
	for i, p := range proof.Pairs {
		if !p.OK {
			wrong, again = append(wrong, i), append(again, pairs[i])
		}
	}
	if len(wrong) > 0 && ctx.Err() == nil {
		second, err := o.probe(ctx, "again", again, &progress{})
		if err != nil {
			return proof, fmt.Errorf("proving the network: %w", err)
		}
		for i, p := range second {
			if p.OK {
				p.Note = strings.TrimPrefix(p.Note+"; the first try found "+proof.Pairs[wrong[i]].Fault, "; ")
			}
			proof.Pairs[wrong[i]] = p
		}
	}
	proof.Ended = time.Now()
	if err := ctx.Err(); err != nil {
		return proof, fmt.Errorf("proving the network: %w", err)
	}
	return proof, nil
}

// progress counts the pairs that are done.
type progress struct {
	mu          sync.Mutex
	done, total int
	report      func(done, total int)
}

func (p *progress) add(n int) {
	if p.report == nil || n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.report(p.done, p.total)
}

// bucket is what shares a bandwidth.
type bucket struct {
	slot int
	name string
}

func (p *pair) bucket() bucket { return bucket{p.from.Slot, p.way.Bucket} }

// probing is the work on some pairs at once.
type probing struct {
	Options
	pairs     []pair
	found     []findings
	endpoints [][2]*Endpoint
	rate      *semaphore.Weighted // packets a second
	sharing   map[bucket]int
	flooding  map[bucket]*sync.Mutex
	progress  *progress
	party     *party // nil: all instances are here
}

// probe probes pairs, kind by kind: what is probed at the same time disturbs each other little. The name tells the rounds
// of a proof apart.
func (o Options) probe(ctx context.Context, round string, pairs []pair, done *progress) ([]control.Pair, error) {
	w := &probing{
		Options: o, pairs: pairs, found: make([]findings, len(pairs)), endpoints: make([][2]*Endpoint, len(pairs)),
		rate: semaphore.NewWeighted(PacketRate), sharing: make(map[bucket]int), flooding: make(map[bucket]*sync.Mutex), progress: done,
	}
	for i := range pairs {
		w.sharing[pairs[i].bucket()]++
		w.flooding[pairs[i].bucket()] = new(sync.Mutex)
	}
	defer w.close()
	floods := w.affordable()
	if o.Together != nil {
		if err := w.probeTogether(ctx, round, floods); err != nil {
			return nil, err
		}
	} else {
		w.each(ctx, nil, w.open)
		w.each(ctx, nil, w.knock)
		w.each(ctx, nil, w.series)
		w.finish(floods)
		w.each(ctx, floods, w.flood)
	}
	results := make([]control.Pair, len(pairs))
	for i, p := range pairs {
		results[i] = judge(p, w.found[i], o.Verify.Tolerance)
	}
	if o.Together != nil {
		return w.party.share(ctx, results)
	}
	return results, nil
}

// finish tells of the pairs that are done before the floods.
func (w *probing) finish(floods []bool) {
	ended := 0
	for i := range w.pairs {
		if w.sends(i) && (!floods[i] || w.found[i].failure != nil) {
			ended++
		}
	}
	w.progress.add(ended)
}

func (w *probing) close() {
	for _, both := range w.endpoints {
		for _, e := range both {
			if e != nil {
				_ = e.Close()
			}
		}
	}
	w.party.close()
}

// sends says whether the sender of a pair is here: its node probes it.
func (w *probing) sends(i int) bool {
	return w.Together == nil || w.Together.Here(w.pairs[i].from.Slot)
}

// each does work for all pairs that are sent here and that nothing has gone wrong with, at once; only, if it isn't nil,
// says for which.
func (w *probing) each(ctx context.Context, only []bool, work func(ctx context.Context, i int) error) {
	var all sync.WaitGroup
	defer all.Wait()
	for i := range w.pairs {
		if w.found[i].failure != nil || !w.sends(i) || (only != nil && !only[i]) {
			continue
		}
		all.Go(func() { w.found[i].failure = work(ctx, i) })
	}
}

// open opens the endpoints of a pair that are here.
func (w *probing) open(_ context.Context, i int) error {
	p := &w.pairs[i]
	for end, at := range [2]links.Instance{p.from, p.to} {
		if w.Together != nil && !w.Together.Here(at.Slot) {
			continue
		}
		address := at.Data
		if p.six {
			address = at.Data6
		}
		var err error
		w.endpoints[i][end], err = Open(func(work func() error) error { return w.Inside(at.Slot, work) }, address)
		if err != nil {
			return err
		}
	}
	return nil
}

// spend waits until packets may be sent at that rate, and says how to give it back.
func (w *probing) spend(ctx context.Context, packetRate float64) (func(), error) {
	share := min(max(1, int64(math.Round(packetRate))), PacketRate)
	if err := w.rate.Acquire(ctx, share); err != nil {
		return nil, err
	}
	return func() { w.rate.Release(share) }, nil
}

// knock finds out what becomes of the first packets where they should not be let through.
func (w *probing) knock(ctx context.Context, i int) error {
	p := &w.pairs[i]
	if p.expected() == links.Accept {
		return nil
	}
	from, to := w.endpoints[i][0], w.endpoints[i][1]
	patience := p.way.Latency + 2*p.way.Jitter + 300*time.Millisecond
	if to == nil {
		return w.party.knock(ctx, w, i, patience)
	}
	answer, err := Knock(ctx, from, to, patience)
	if err == nil {
		w.found[i].answer = &answer
	}
	return err
}

// series measures what becomes of packets that are let through.
func (w *probing) series(ctx context.Context, i int) error {
	p, found := &w.pairs[i], &w.found[i]
	from, to := w.endpoints[i][0], w.endpoints[i][1]
	if !p.measurable() {
		return nil
	}
	if p.inbound != links.Accept && to != nil {
		// What is sent to from comes first, so that the series are answers to it.
		if err := to.greet(ctx, from.port(), p.back.Latency+2*p.back.Jitter); err != nil {
			return err
		}
	}
	found.spacing, found.density = seriesOptions(p.way, w.sharing[p.bucket()])
	measure := func(_ kind, o SeriesOptions) (*Series, error) { return w.measure(ctx, from, to, o) }
	if to == nil {
		measure = func(k kind, o SeriesOptions) (*Series, error) { return w.party.send(ctx, w, i, k, o) }
	}
	var err error
	if found.spaced, err = measure(spacedKind, found.spacing); err != nil {
		return err
	}
	if found.spacing == found.density || !chancy(p.way) {
		found.dense, found.density = found.spaced, found.spacing
		return nil
	}
	found.dense, err = measure(denseKind, found.density)
	return err
}

// measure measures a series, once more when the clock was set.
func (w *probing) measure(ctx context.Context, from, to *Endpoint, o SeriesOptions) (*Series, error) {
	giveBack, err := w.spend(ctx, float64(time.Second)/float64(o.Interval))
	if err != nil {
		return nil, err
	}
	defer giveBack()
	s, err := Measure(ctx, from, to, o)
	if errors.Is(err, ErrClock) {
		s, err = Measure(ctx, from, to, o)
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// greet sends some packets, and waits until they should be there.
func (e *Endpoint) greet(ctx context.Context, to netip.AddrPort, underWay time.Duration) error {
	for range knocks {
		if _, err := e.send(make([]byte, MinSize-headers6), to); err != nil {
			return err
		}
	}
	return pause(ctx, underWay+20*time.Millisecond)
}

// floodTime is how long floods may take all together, and one after the other through one bandwidth.
const floodTime = 3 * time.Second

// affordable says which pairs' bandwidths are measured, and notes why others are not. The first pair of every two groups
// is, unless it would have to wait for others for too long.
func (w *probing) affordable() []bool {
	chosen := make([]bool, len(w.pairs))
	spent, queued := 0.0, make(map[bucket]time.Duration)
	for i := range w.pairs {
		p := &w.pairs[i]
		if p.way.Bandwidth == 0 || !p.measurable() {
			continue
		}
		o, impossible := throughputOptions(p.way, w.MaxSize)
		w.found[i].flood = o
		if impossible != "" {
			w.found[i].notes = append(w.found[i].notes, impossible)
			continue
		}
		cost := o.packetRate() * (o.For + o.Patience).Seconds()
		b := p.bucket()
		if queued[b]+o.For > floodTime || (!p.first && spent+cost > PacketRate*floodTime.Seconds()) {
			w.found[i].notes = append(w.found[i].notes, "bandwidth not measured: others like it were, and all would take too long")
			continue
		}
		spent += cost
		queued[b] += o.For
		chosen[i] = true
	}
	return chosen
}

// flood measures the bandwidth of a pair, alone through it.
func (w *probing) flood(ctx context.Context, i int) error {
	alone := w.flooding[w.pairs[i].bucket()]
	alone.Lock()
	defer alone.Unlock()
	defer w.progress.add(1)
	o := w.found[i].flood
	giveBack, err := w.spend(ctx, o.packetRate())
	if err != nil {
		return err
	}
	defer giveBack()
	if w.endpoints[i][1] == nil {
		return w.party.flood(ctx, w, i, o)
	}
	rate, err := Throughput(ctx, w.endpoints[i][0], w.endpoints[i][1], o)
	if err == nil {
		w.found[i].rate = &rate
	}
	return err
}
