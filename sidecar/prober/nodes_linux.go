package prober

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/links"
)

// Together is one node's part of a proof that several make.
type Together struct {
	// Here says whether an instance is on this node.
	Here func(slot int) bool
	// Exchange waits until every node has said something under a name, and returns what all have, in the order of the
	// nodes.
	Exchange func(ctx context.Context, name string, say []byte) (said [][]byte, err error)
	// Key names the proof among all those that the nodes make.
	Key string
	// Node is this node's name for people.
	Node string
	// Router does work on a thread in the network namespace of this node's router, and Address is where the other nodes'
	// routers reach it, without any shaping: their clocks are compared that way.
	Router  func(work func() error) error
	Address netip.Addr
}

// kind tells apart what is sent from one endpoint to another.
type kind byte

const (
	knockKind kind = iota
	spacedKind
	denseKind
	floodKind
)

// party is a node's part of one round of a proof. A pair's sender probes it, by what the receiver's node says has come.
type party struct {
	*Together
	round string
	clock *clock
	// nodes are what all have said of themselves.
	nodes []introduction
	// far are the other ends of pairs that have one end here, by pair, and inboxes what comes in from them.
	far     map[int]far
	inboxes map[int]*inbox
	// sent are the series whose arrivals other nodes tell of, and poured the floods.
	sent   *ledger[*record]
	poured *ledger[Rate]
	ahead  map[int]comparison // by node
	mine   []bool             // by pair: it is sent here
}

// introduction is what a node says of itself at first.
type introduction struct {
	Node  string
	Clock netip.AddrPort
	// Ports are those of the ends here of pairs that have the other one elsewhere; Failed says why there are none.
	Ports  map[int]ports
	Failed map[int]string
}

type ports struct{ Packets, Stream netip.AddrPort }

// far is the other end of a pair.
type far struct {
	ports
	node int
}

// name is that of an exchange.
func (p *party) name(what string) string { return "proof/" + p.Key + "/" + p.round + "/" + what }

// key is that of the packets of a kind, which both ends work out.
func (p *party) key(i int, k kind) uint64 {
	hash := fnv.New64a()
	fmt.Fprint(hash, p.name("key"), "/", i, "/", k)
	return hash.Sum64()
}

// probeTogether is what probe does with other nodes: all of them go from one kind of probe to the next at the same time.
func (w *probing) probeTogether(ctx context.Context, round string, floods []bool) error {
	p, err := meet(ctx, w, round)
	w.party = p
	if err != nil {
		return err
	}
	for i, box := range p.inboxes {
		box.expect(w, i, floods[i])
		box.serve(ctx, w.endpoints[i][1])
	}
	w.each(ctx, nil, w.knock)
	if err := p.hear(ctx, w, "knocked", p.settleKnocks); err != nil {
		return err
	}
	if err := p.greet(ctx, w); err != nil {
		return err
	}
	before := p.compare(ctx, w)
	w.each(ctx, nil, w.series)
	p.bound(w, before, p.compare(ctx, w))
	if err := p.hear(ctx, w, "series", p.settleSeries); err != nil {
		return err
	}
	w.finish(floods)
	w.each(ctx, floods, w.flood)
	return p.hear(ctx, w, "floods", p.settleFloods)
}

// meet opens what is here, and finds out about what isn't.
func meet(ctx context.Context, w *probing, round string) (*party, error) {
	p := &party{
		Together: w.Together, round: round, far: map[int]far{}, inboxes: map[int]*inbox{},
		sent: newLedger[*record](), poured: newLedger[Rate](), mine: make([]bool, len(w.pairs)),
	}
	var err error
	if p.clock, err = openClock(p.Router, p.Address, 0); err != nil {
		return p, err
	}
	if p.nodes, err = exchange(ctx, p, "open", p.introduce(ctx, w)); err != nil {
		return p, err
	}
	for n, other := range p.nodes {
		if other.Clock != p.clock.at {
			p.know(w, n, other)
		}
	}
	for i := range w.pairs {
		if _, known := p.far[i]; p.mine[i] && !p.Here(w.pairs[i].to.Slot) && !known && w.found[i].failure == nil {
			w.found[i].failure = errors.New("no node says that it has the receiver")
		}
	}
	return p, nil
}

// introduce opens the ends of pairs that are here, and says where they are to those who have the others.
func (p *party) introduce(ctx context.Context, w *probing) introduction {
	own := introduction{Node: p.Node, Clock: p.clock.at, Ports: map[int]ports{}, Failed: map[int]string{}}
	for i := range w.pairs {
		sends, receives := w.sends(i), p.Here(w.pairs[i].to.Slot)
		p.mine[i] = sends
		if !sends && !receives {
			continue
		}
		if err := w.open(ctx, i); err != nil {
			w.found[i].failure, own.Failed[i] = err, err.Error()
			continue
		}
		switch {
		case !receives:
			own.Ports[i] = w.endpoints[i][0].ports()
		case !sends:
			own.Ports[i], p.inboxes[i] = w.endpoints[i][1].ports(), newInbox(p)
		}
	}
	return own
}

// know takes in what another node says of itself.
func (p *party) know(w *probing, node int, other introduction) {
	for i, at := range other.Ports {
		p.far[i] = far{at, node}
	}
	for i, why := range other.Failed {
		if w.sendsAny(i) && w.found[i].failure == nil {
			w.found[i].failure = errors.New(why)
		}
	}
}

// sendsAny is sends for a number that another node has said.
func (w *probing) sendsAny(i int) bool { return i >= 0 && i < len(w.pairs) && w.sends(i) }

func (e *Endpoint) ports() ports {
	return ports{e.port(), e.stream.Addr().(*net.TCPAddr).AddrPort()}
}

// exchange says something to all nodes and returns what they have said.
func exchange[T any](ctx context.Context, p *party, what string, say T) ([]T, error) {
	raw, err := json.Marshal(say)
	if err != nil {
		return nil, err
	}
	said, err := p.Exchange(ctx, p.name(what), raw)
	if err != nil {
		return nil, fmt.Errorf("exchanging with the other nodes (%s): %w", what, err)
	}
	all := make([]T, len(said))
	for i, s := range said {
		if err := json.NewDecoder(bytes.NewReader(s)).Decode(&all[i]); err != nil {
			return nil, fmt.Errorf("reading what node %d of %d says (%s): %w", i+1, len(said), what, err)
		}
	}
	return all, nil
}

// hear has every node tell what has come to it once all have sent, and settles the pairs that are sent here by that.
func (p *party) hear(ctx context.Context, w *probing, what string, settle func(w *probing, i int, came arrivals)) error {
	if _, err := exchange(ctx, p, what+" by all", true); err != nil {
		return err
	}
	own := make(map[int]arrivals, len(p.inboxes))
	for i, box := range p.inboxes {
		own[i] = box.tell()
	}
	said, err := exchange(ctx, p, what, own)
	if err != nil {
		return err
	}
	for n, all := range said {
		for i, came := range all {
			if w.sendsAny(i) && n == p.far[i].node && w.found[i].failure == nil {
				settle(w, i, came)
			}
		}
	}
	return nil
}

// knock is Knock as far as the sender can do it.
func (p *party) knock(ctx context.Context, w *probing, i int, patience time.Duration) error {
	from, to := w.endpoints[i][0], p.far[i]
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var a Answer
	udp := make(chan error, 1)
	go func() {
		var err error
		a.UDP, err = knock(ctx, from, to.Packets, p.key(i, knockKind), patience, func(ctx context.Context) error {
			<-ctx.Done() // whether one has come is told later
			return ctx.Err()
		})
		udp <- err
	}()
	policy, err := call(ctx, from, to.Stream.String())
	if err = errors.Join(err, <-udp); err != nil {
		return fmt.Errorf("knocking at %s from %s: %w", to.Packets.Addr(), from.address, err)
	}
	a.TCP = policy
	w.found[i].answer = &a
	return nil
}

func (p *party) settleKnocks(w *probing, i int, came arrivals) {
	if a := w.found[i].answer; a != nil && came.Knocked {
		a.UDP = links.Accept
	}
}

// greet has receivers that new connections are kept from send something first, so that the series are answers to it.
func (p *party) greet(ctx context.Context, w *probing) error {
	wait := time.Duration(0)
	for i := range w.pairs {
		pair := &w.pairs[i]
		to, known := p.far[i]
		if p.inboxes[i] == nil || !known || !pair.measurable() || pair.inbound == links.Accept {
			continue
		}
		if err := w.endpoints[i][1].greet(ctx, to.Packets, 0); err != nil {
			w.found[i].failure = err
			continue
		}
		wait = max(wait, pair.back.Latency+2*pair.back.Jitter)
	}
	if err := pause(ctx, wait); err != nil {
		return err
	}
	_, err := exchange(ctx, p, "greeted", true)
	return err
}

// send is measure as far as the sender can do it: what it returns is complete once the receiver's node has told.
func (p *party) send(ctx context.Context, w *probing, i int, k kind, o SeriesOptions) (*Series, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	giveBack, err := w.spend(ctx, float64(time.Second)/float64(o.Interval))
	if err != nil {
		return nil, err
	}
	defer giveBack()
	r := newRecord(p.key(i, k), o.Packets)
	err = sendSeries(ctx, w.endpoints[i][0], p.far[i].Packets, o, r)
	if err == nil {
		err = pause(ctx, o.Patience)
	}
	p.sent.put(i, k, r)
	return new(Series), err
}

// settleSeries completes the series of a pair.
func (p *party) settleSeries(w *probing, i int, came arrivals) {
	found := &w.found[i]
	for k, series := range map[kind]*Series{spacedKind: found.spaced, denseKind: found.dense} {
		r, ok := p.sent.get(i, k)
		if !ok || series == nil {
			continue // not sent, or it is the same as the other one
		}
		told := came.Series[k]
		if told == nil {
			told = new(tally)
		}
		told.into(r)
		r.ahead = p.offset(i)
		*series = r.series()
	}
}

// flood is Throughput as far as the sender can do it.
func (p *party) flood(ctx context.Context, w *probing, i int, o ThroughputOptions) error {
	if err := o.complete(); err != nil {
		return err
	}
	total := max(2, int(o.packetRate()*o.For.Seconds()))
	took, err := flood(ctx, w.endpoints[i][0], p.far[i].Packets, o, p.key(i, floodKind), total)
	if err == nil {
		err = pause(ctx, o.Patience+o.drain())
	}
	if err != nil {
		return fmt.Errorf("measuring the throughput of %s → %s: %w", w.endpoints[i][0].address, p.far[i].Packets.Addr(), err)
	}
	p.poured.put(i, floodKind, rate(nil, total, took, 8*o.Size))
	return nil
}

func (p *party) settleFloods(w *probing, i int, came arrivals) {
	r, ok := p.poured.get(i, floodKind)
	if !ok {
		return
	}
	r.Received, r.Packets = came.Rate.Received, came.Rate.Packets
	w.found[i].rate = &r
}

// share gives every node the results of all, in the order of the pairs.
func (p *party) share(ctx context.Context, results []control.Pair) ([]control.Pair, error) {
	own := map[int]control.Pair{}
	for i := range results {
		if p.mine[i] {
			own[i] = results[i]
		}
	}
	said, err := exchange(ctx, p, "results", own)
	if err != nil {
		return nil, err
	}
	for i := range results {
		if !p.mine[i] {
			results[i].OK, results[i].Fault = false, "can't be probed: no node says what it has found"
		}
	}
	for _, all := range said {
		for i, r := range all {
			if i >= 0 && i < len(results) {
				results[i] = r
			}
		}
	}
	return results, nil
}

// close gives back what the party has opened.
func (p *party) close() {
	if p == nil {
		return
	}
	for _, box := range p.inboxes {
		box.close()
	}
	if p.clock != nil {
		p.clock.close()
	}
}
