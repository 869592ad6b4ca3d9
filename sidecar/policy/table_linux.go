package policy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/links"
)

// Table is the packet filter of one router.
type Table struct {
	o Options

	mu     sync.Mutex
	socket *socket
	// broken says that it isn't known what is in force, so that the next state is put there from nothing.
	broken bool
	inForce
}

// inForce is what the kernel has.
type inForce struct {
	state   *links.State
	names   int // how many names have been given to chains and maps
	sources map[int]string
	classes map[string]class // by the name of the chain
	blocked map[netip.Addr]fate
	homes   map[netip.Addr]bool
}

// class is a chain that the packets of instances with the same rules go through.
type class struct {
	content content
	maps    [2]string // the names of its maps, by family; empty: everything passes
}

// New makes a table in the network namespace that inRouter does work in. Everything passes until a state is applied, but
// where one is kept. Without an error the kernel has all that a table needs.
func New(inRouter func(work func() error) error, o Options) (*Table, error) {
	t := &Table{o: o}
	err := inRouter(func() error {
		if err := liftLimits(); err != nil {
			return err
		}
		var err error
		t.socket, err = openSocket()
		return err
	})
	if err != nil {
		return nil, err
	}
	var b batch
	b.step()
	if o.Keep {
		b.newTable()
	}
	t.begin(&b)
	err = t.socket.send(&b)
	if o.Keep && errors.Is(err, unix.EEXIST) {
		t.broken = true // nobody knows what is in it
		return t, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("this kernel can't filter packets as is needed (CONFIG_NF_TABLES_INET, NFT_REJECT_INET, Linux 5.10 or later): %w", err), t.socket.close())
	}
	return t, nil
}

// liftLimits has every rejected packet answered: the kernel would send a sender one ICMP message a second, and all
// together a thousand. The masks are of the kinds of messages that this is so for.
func liftLimits() error {
	for _, s := range []struct{ file, value string }{
		{"/proc/sys/net/ipv4/icmp_ratemask", "0"},
		{"/proc/sys/net/ipv6/icmp/ratemask", "\n"},
	} {
		if err := os.WriteFile(s.file, []byte(s.value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("lifting the limit of ICMP messages: %w", err)
		}
	}
	return nil
}

// Close takes the table away, unless it is kept. Everything passes then.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.socket == nil {
		return nil
	}
	var b batch
	var err error
	if !t.o.Keep {
		b.deleteTable()
		err = t.socket.send(&b)
	}
	err = errors.Join(err, t.socket.close())
	t.socket = nil
	return err
}

// begin writes a table without a state.
func (t *Table) begin(b *batch) {
	b.base(t.o)
	t.inForce = inForce{
		sources: map[int]string{}, classes: map[string]class{}, blocked: map[netip.Addr]fate{}, homes: map[netip.Addr]bool{}, names: t.names,
	}
}

// Apply puts a state in force in place of the one before. Where the kernel takes it at once, as it does but for
// thousands of instances with plans of their own and no privileges, no packet meets anything in between; else no packet
// of the same instance does. After an error it may be asked again, for this state or another one.
func (t *Table) Apply(ctx context.Context, state *links.State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.socket == nil:
		return errors.New("the packet filter is closed")
	case ctx.Err() != nil:
		return ctx.Err()
	case state == t.state && !t.broken:
		return nil
	}
	var b batch
	if t.broken {
		b.step()
		b.table() // it may be gone
		b.deleteTable()
		t.begin(&b)
	}
	t.broken = true
	t.change(&b, state)
	if err := t.socket.send(&b); err != nil {
		return fmt.Errorf("putting the policies of the data network in force: %w", err)
	}
	t.broken = false
	return nil
}

// change writes what leads from what is in force to a state: first what nothing leads to yet, then the turn-over, then
// what nothing leads to any more.
func (t *Table) change(b *batch, state *links.State) {
	contents, of := t.o.contents(state)
	chains := t.assign(contents, of)
	kept := make(map[string]class, len(chains))
	var stale []string
	for i, chain := range chains {
		old, exists := t.classes[chain]
		if exists && old.content == contents[i] {
			kept[chain] = old
			continue
		}
		b.step()
		c := class{content: contents[i]}
		for n, text := range []string{c.content.four, c.content.six} {
			if text != "" {
				c.maps[n] = t.name("to" + families[n].name)
				b.destinations(families[n], c.maps[n], text, state.Seats().Subnet6)
			}
		}
		if !exists {
			b.chain(chain)
			b.class(chain, c)
		} else {
			stale = append(stale, old.names()...)
		}
		kept[chain] = c
	}
	t.turn(b, kept)
	t.redirect(b, chains, of)
	t.block(b, state)
	t.home(b, state)
	for chain, c := range t.classes {
		if _, ok := kept[chain]; !ok {
			b.step()
			b.empty(chain)
			b.deleteChain(chain)
			stale = append(stale, c.names()...)
		}
	}
	for _, name := range stale {
		b.step()
		b.deleteSet(name)
	}
	t.classes, t.state = kept, state
}

// turn gives chains that stand their new rules.
func (t *Table) turn(b *batch, kept map[string]class) {
	for chain, c := range kept {
		if old, ok := t.classes[chain]; ok && old != c {
			b.step()
			b.empty(chain)
			b.class(chain, c)
		}
	}
}

// assign gives every content a chain: one that has it, else one that its first instance goes through now, else a new
// one. So that as little as possible changes.
func (t *Table) assign(contents []content, of map[int]int) []string {
	chains := make([]string, len(contents))
	has := make(map[content]string, len(t.classes))
	for name, c := range t.classes {
		has[c.content] = name
	}
	taken := make(map[string]bool, len(contents))
	for i, c := range contents {
		if name := has[c]; name != "" && !taken[name] {
			chains[i], taken[name] = name, true
		}
	}
	for _, slot := range slices.Sorted(maps.Keys(of)) {
		if name := t.sources[slot]; chains[of[slot]] == "" && name != "" && !taken[name] {
			chains[of[slot]], taken[name] = name, true
		}
	}
	for i := range chains {
		if chains[i] == "" {
			chains[i] = t.name("from")
		}
	}
	return chains
}

func (t *Table) name(kind string) string {
	t.names++
	return fmt.Sprint(kind, "-", t.names)
}

func (c class) names() []string {
	return slices.DeleteFunc(c.maps[:], func(name string) bool { return name == "" })
}

// redirect leads the links of instances to their chains.
func (t *Table) redirect(b *batch, chains []string, of map[int]int) {
	var gone, come []element
	next := make(map[int]string, len(of))
	for _, slot := range slices.Sorted(maps.Keys(of)) {
		chain := chains[of[slot]]
		next[slot] = chain
		if t.sources[slot] != chain {
			v := jump(chain)
			come = append(come, element{key: native(uint32(t.o.NearIndex(slot))), verdict: &v})
		}
	}
	for slot, chain := range t.sources {
		if next[slot] != chain {
			gone = append(gone, element{key: native(uint32(t.o.NearIndex(slot)))})
		}
	}
	t.sources = next
	b.step()
	b.remove(sourcesName, gone)
	b.add(sourcesName, come)
}

// block puts inbound rules in force.
func (t *Table) block(b *batch, state *links.State) {
	next := map[netip.Addr]fate{}
	inbound := state.Inbound()
	for _, i := range state.Seats().Instances {
		f := t.o.fate(links.Path{Policy: inbound[i.Slot]})
		if f == passed || !t.o.local(i.Slot) {
			continue
		}
		for _, a := range []netip.Addr{i.Data, i.Data6} {
			if a.IsValid() {
				next[a] = f
			}
		}
	}
	for n, f := range families {
		var gone, come []element
		for a, what := range t.blocked {
			if a.Is6() == (n == 1) && next[a] != what {
				gone = append(gone, element{key: a.AsSlice()})
			}
		}
		for a, what := range next {
			if a.Is6() == (n == 1) && t.blocked[a] != what {
				v := follow(f.fresh(what))
				come = append(come, element{key: a.AsSlice(), verdict: &v})
			}
		}
		b.remove(f.blocked(), gone)
		b.add(f.blocked(), come)
	}
	t.blocked = next
}

// home has what comes from other nodes for the NATs on this one translated.
func (t *Table) home(b *batch, state *links.State) {
	if t.o.TunnelIndex == 0 {
		return
	}
	next := map[netip.Addr]bool{}
	var gone, come []element
	shaped := follow(shapedName)
	for _, r := range state.Routers() {
		if !t.o.local(r.Slots[0]) {
			continue
		}
		next[r.External] = true
		if !t.homes[r.External] {
			come = append(come, element{key: r.External.AsSlice(), verdict: &shaped})
		}
	}
	for a := range t.homes {
		if !next[a] {
			gone = append(gone, element{key: a.AsSlice()})
		}
	}
	b.remove(homesName, gone)
	b.add(homesName, come)
	t.homes = next
}

// away are the NATs on other nodes, and behind the slots that are behind one on this node.
func (o Options) away(state *links.State) (away []netip.Addr, behind map[int]bool) {
	if o.Local == nil {
		return nil, nil
	}
	behind = map[int]bool{}
	for _, r := range state.Routers() {
		if !o.local(r.Slots[0]) {
			away = append(away, r.External)
			continue
		}
		for _, slot := range r.Slots {
			behind[slot] = true
		}
	}
	return away, behind
}

// contents boils a state down: the distinct contents, and which one every slot has. Slots that send freely have none, and
// neither have those on other nodes.
func (o Options) contents(state *links.State) (distinct []content, of map[int]int) {
	of = map[int]int{}
	number := map[content]int{}
	byRoutes := map[*links.Route]int{} // slots that are asked the same share their routes
	away, behind := o.away(state)
	for _, i := range state.Seats().Instances {
		routes := state.Routes(i.Slot)
		if len(routes) == 0 || !o.local(i.Slot) {
			continue
		}
		n, ok := byRoutes[&routes[0]]
		if !ok {
			// What is sent to a NAT on another node is translated there, unless it is behind one here.
			var apart []prefix
			for _, a := range away {
				if p := state.Path(i.Slot, a); !behind[i.Slot] {
					p.Translated = false
					number := binary.BigEndian.Uint32(a.AsSlice())
					apart = append(apart, prefix{span{number, number, o.fate(p)}, 33})
				}
			}
			c := content{encode(o.spans(routes, true, apart...)), encode(o.spans(routes, false))}
			if n, ok = number[c]; !ok {
				n = len(distinct)
				if c == (content{}) {
					n = -1
				} else {
					distinct = append(distinct, c)
				}
				number[c] = n
			}
			byRoutes[&routes[0]] = n
		}
		if n >= 0 {
			of[i.Slot] = n
		}
	}
	return distinct, of
}

// spanSize is the length of a span as bytes: both ends and the fate.
const spanSize = 9

func encode(spans []span) string {
	b := make([]byte, 0, len(spans)*spanSize)
	for _, s := range spans {
		b = append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, s.first), s.last), byte(s.fate))
	}
	return string(b)
}

// class writes the rules of a class's chain.
func (b *batch) class(chain string, c class) {
	for n, name := range c.maps {
		if name != "" {
			f := families[n]
			b.rule(chain, f.only(load(network, f.destination, f.key, register(0)), decideBy(name, register(0)))...)
		}
	}
}

// destinations makes a map from destinations to what becomes of packets.
func (b *batch) destinations(f family, name, spans string, subnet6 netip.Prefix) {
	b.set(set{name: name, key: f.key, keyType: f.keyType, interval: true, verdicts: true})
	var all []element
	for ; spans != ""; spans = spans[spanSize:] {
		v := drop()
		switch fate(spans[8]) {
		case marked:
			v = follow(shapedName)
		case rejected:
			v = follow(rejectedName)
		}
		all = append(all, element{key: f.address(spans[:4], subnet6).AsSlice(), verdict: &v})
		if end := f.address(spans[4:8], subnet6).Next(); end.IsValid() {
			all = append(all, element{key: end.AsSlice(), end: true})
		}
	}
	b.add(name, all)
}

// address is the one with these last 32 bits.
func (f family) address(last string, subnet6 netip.Prefix) netip.Addr {
	if f.key == 4 {
		return netip.AddrFrom4([4]byte([]byte(last)))
	}
	whole := subnet6.Addr().As16()
	copy(whole[12:], last)
	return netip.AddrFrom16(whole)
}
