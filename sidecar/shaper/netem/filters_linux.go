package netem

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/rtnetlink"
)

// Attributes of linux/pkt_cls.h that golang.org/x/sys/unix doesn't have.
const (
	u32ClassID, u32Sel = 1, 5
	u32Terminal        = 1
)

// maxFilters is how many u32 filters stand under one priority: their numbers have 12 bits.
const maxFilters = 4000

// priority is that of the n-th list of filters. A priority belongs to one protocol.
func (g generation) priority(n int) uint32 { return uint32(1 + g%2*0x4000 + generation(n)) }

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
func (l *link) exchange(before, after []filter, old generation) {
	for n, list := range lists(after) {
		for i, f := range list {
			request := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
			request.AddData(&nl.TcMsg{
				Ifindex: int32(l.index), Parent: scheduler, Handle: uint32(i + 1), Info: (old+1).priority(n)<<16 | protocol(f.to),
			})
			request.AddData(nl.NewRtAttr(tcaKind, nl.ZeroTerminated("u32")))
			options := selector(f.to)
			options.AddRtAttr(u32ClassID, packed(classHandle(f.class))) // class 0 is the scheduler itself: at once
			request.AddData(options)
			l.Add(rtnetlink.Step{What: "leading packets to " + f.to.String() + " (cls_u32)"}, request)
		}
	}
	for n, list := range lists(before) {
		request := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, 0)
		request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Parent: scheduler, Info: old.priority(n)<<16 | protocol(list[0].to)})
		l.Add(rtnetlink.Step{What: "no longer leading packets (cls_u32)", Done: unix.ENOENT}, request)
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
