package netem

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes and constants of linux/pkt_cls.h and its kin that golang.org/x/sys/unix doesn't have.
const (
	clsact       uint32 = 0xfffffff1 // TC_H_CLSACT
	clsactHandle uint32 = 0xffff0000
	clsactEgress uint32 = 0xfffffff3 // before any queueing discipline

	u32ClassID, u32Sel, u32Act = 1, 5, 7
	u32Terminal                = 1

	basicEmatches, basicAct            = 2, 3
	ematchTreeHeader, ematchTreeList   = 1, 2
	ematchMeta                         = 4
	ematchAnd, ematchInvert            = 1, 4
	metaHeader, metaRight              = 1, 3
	metaRandom, metaMark, metaInteger  = 1, 12, 1 << 12
	metaEqual, metaLess                = 0, 2
	actKind, actOptions, actParameters = 1, 2, 2
	actOK, actPipe, actGotoChain       = 0, 3, 2 << 28
	skbeditMark                        = 5
	mirredEgressMirror                 = 2
)

// copied is the mark of a packet that is the copy of another, so that it isn't copied again. It ends at the link.
const copied uint32 = 0x67706370

// maxFilters is how many u32 filters stand under one priority: their numbers have 12 bits.
const maxFilters = 4000

// set is where the filters of a generation stand, in the tree or before it: their priorities, and the chains of actions.
type set struct {
	parent     uint32
	generation int
}

// priority is that of the n-th list of filters. A priority belongs to one protocol.
func (s set) priority(n int) uint32 { return uint32(1 + s.generation%2*0x4000 + n) }

// chain is that of the n-th share of duplicates.
func (s set) chain(n int) uint32 { return uint32(1 + s.generation%2*0x8000 + n) }

// lists are the filters by protocol, as many together as fit under a priority, in order.
func lists(filters []filter) [][]filter {
	var found [][]filter
	for _, v4 := range []bool{true, false} {
		own := slices.DeleteFunc(slices.Clone(filters), func(f filter) bool { return f.to.Addr().Is4() != v4 })
		found = slices.AppendSeq(found, slices.Chunk(own, maxFilters))
	}
	return found
}

// exchange puts the filters of a tree in place of those before. The new ones are complete before the old ones go, and
// while they stand side by side a packet meets those of one generation only: the longest prefixes are added first.
func (l *link) exchange(before, after []filter, generation int) {
	old, fresh := set{scheduler, generation}, set{scheduler, generation + 1}
	for n, list := range lists(after) {
		for i, f := range list {
			class := classHandle(f.class) // class 0 is the scheduler itself: at once
			options := selector(f.to)
			options.AddRtAttr(u32ClassID, packed(class))
			l.filter(fresh, n, i, f.to, "u32", options)
		}
	}
	l.remove(old, lists(before))
	l.exchangeCopiers(before, after, generation)
}

func (l *link) filter(s set, n, i int, to netip.Prefix, kind string, options *nl.RtAttr) {
	request := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Parent: s.parent, Handle: uint32(i + 1), Info: s.priority(n)<<16 | protocol(to)})
	request.AddData(nl.NewRtAttr(tcaKind, nl.ZeroTerminated(kind)))
	request.AddData(options)
	l.add(step{what: fmt.Sprintf("leading packets to %s (cls_%s)", to, kind)}, request)
}

func (l *link) remove(s set, gone [][]filter) {
	for n, list := range gone {
		request := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, 0)
		request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Parent: s.parent, Info: s.priority(n)<<16 | protocol(list[0].to)})
		l.add(step{what: "no longer leading packets (cls_u32)", done: unix.ENOENT}, request)
	}
}

// protocol is the EtherType of a prefix's packets, in network order.
func protocol(to netip.Prefix) uint32 {
	if to.Addr().Is4() {
		return swapped(unix.ETH_P_IP)
	}
	return swapped(unix.ETH_P_IPV6)
}

func swapped(ethertype uint16) uint32 {
	return uint32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, ethertype)))
}

// selector is the part of a u32 filter that finds packets to a prefix.
func selector(to netip.Prefix) *nl.RtAttr {
	offset := int32(16) // of the destination in an IPv4 header
	if to.Addr().Is6() {
		offset = 24
	}
	address, remaining := to.Masked().Addr().AsSlice(), to.Bits()
	var keys []byte
	count := 0
	for i := 0; i < len(address) && (remaining > 0 || count == 0); i += 4 {
		length := min(remaining, 32)
		remaining -= length
		mask := uint32(uint64(0xffffffff) << (32 - length))
		keys = binary.BigEndian.AppendUint32(keys, mask)
		keys = append(keys, address[i:i+4]...)
		keys = append(keys, packed(offset+int32(i), int32(0))...)
		count++
	}
	header := packed(uint8(u32Terminal), uint8(0), uint8(count), uint8(0), uint16(0), uint16(0), int16(0), int16(0), uint32(0))
	options := nl.NewRtAttr(tcaOptions, nil)
	options.AddRtAttr(u32Sel, append(header, keys...))
	return options
}

func copies(filters []filter) bool {
	return slices.ContainsFunc(filters, func(f filter) bool { return f.duplicate > 0 })
}

// exchangeCopiers does the same for the filters that double packets before they reach the tree.
func (l *link) exchangeCopiers(before, after []filter, generation int) {
	old, fresh := set{clsactEgress, generation}, set{clsactEgress, generation + 1}
	if copies(after) {
		request := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
		request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Handle: clsactHandle, Parent: clsact})
		request.AddData(nl.NewRtAttr(tcaKind, nl.ZeroTerminated("clsact")))
		l.add(step{what: "reaching packets before they are shaped (sch_ingress)", done: unix.EEXIST}, request)
		l.addCopiers(fresh, after)
	}
	if copies(before) {
		l.remove(old, lists(before))
		for n := range shares(before) {
			request := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, 0)
			request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Parent: clsactEgress})
			request.AddData(nl.NewRtAttr(tcaChain, packed(old.chain(n))))
			l.add(step{what: "no longer doubling packets", done: unix.ENOENT}, request)
		}
	}
}

// shares are those of duplicates that are asked for, each once.
func shares(filters []filter) []float64 {
	var all []float64
	for _, f := range filters {
		if f.duplicate > 0 && !slices.Contains(all, f.duplicate) {
			all = append(all, f.duplicate)
		}
	}
	return all
}

// addCopiers adds a chain per share of duplicates, and the filters that lead there, or past them.
func (l *link) addCopiers(s set, filters []filter) {
	all := shares(filters)
	for n, share := range all {
		l.copier(s, n, share)
	}
	for n, list := range lists(filters) {
		for i, f := range list {
			verdict := uint32(actOK)
			if k := slices.Index(all, f.duplicate); k >= 0 {
				verdict = actGotoChain | s.chain(k)
			}
			options := selector(f.to)
			action(options.AddRtAttr(u32Act, nil), 1, "gact", packed(generic(verdict)))
			l.filter(s, n, i, f.to, "u32", options)
		}
	}
}

// generic is a struct tc_gen, with which every action's parameters begin.
func generic(verdict uint32) []byte {
	return packed(uint32(0), uint32(0), verdict, uint32(0), uint32(0))
}

// action adds the n-th action to a list, with its parameters, and returns its options.
func action(list *nl.RtAttr, n int, kind string, parameters []byte) *nl.RtAttr {
	one := list.AddRtAttr(n, nil)
	one.AddRtAttr(actKind, nl.ZeroTerminated(kind))
	options := one.AddRtAttr(actOptions, nil)
	options.AddRtAttr(actParameters, parameters)
	return options
}

// copier doubles a share of what comes to its chain: a packet that isn't a copy itself, and for which the die falls so, is
// marked as a copy, sent that way as if it were new, and goes on without the mark.
func (l *link) copier(s set, n int, share64 float64) {
	request := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Parent: s.parent, Info: 1<<16 | swapped(unix.ETH_P_ALL)})
	request.AddData(nl.NewRtAttr(tcaChain, packed(s.chain(n))))
	request.AddData(nl.NewRtAttr(tcaKind, nl.ZeroTerminated("basic")))
	options := nl.NewRtAttr(tcaOptions, nil)
	matches := options.AddRtAttr(basicEmatches, nil)
	matches.AddRtAttr(ematchTreeHeader, packed(uint16(2), uint16(0)))
	tree := matches.AddRtAttr(ematchTreeList, nil)
	meta(tree, 1, ematchAnd, metaRandom, metaLess, share(share64))
	meta(tree, 2, ematchInvert, metaMark, metaEqual, copied)
	actions := options.AddRtAttr(basicAct, nil)
	action(actions, 1, "skbedit", generic(actPipe)).AddRtAttr(skbeditMark, packed(copied))
	action(actions, 2, "mirred", packed(generic(actPipe), uint32(mirredEgressMirror), uint32(l.index)))
	action(actions, 3, "skbedit", generic(actOK)).AddRtAttr(skbeditMark, packed(uint32(0)))
	request.AddData(options)
	l.add(step{what: "doubling packets (cls_basic, em_meta, act_skbedit, act_mirred)"}, request)
}

// meta adds a comparison of something about a packet with a number.
func meta(tree *nl.RtAttr, n int, flags, what uint16, operator uint8, number uint32) {
	// The attributes stand behind the header of the match.
	match := tree.AddRtAttr(n, packed(uint16(0), uint16(ematchMeta), flags, uint16(0)))
	match.AddRtAttr(metaHeader, packed(metaInteger|what, uint8(0), operator, uint16(metaInteger), uint8(0), uint8(0)))
	match.AddRtAttr(metaRight, packed(number))
}
