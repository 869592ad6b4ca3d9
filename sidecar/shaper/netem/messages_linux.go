package netem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/rtnetlink"
)

// Handles of the tree's parts. Those of a leaf's netem and of its queue follow from its number.
const (
	segmenter  uint32 = 1 << 16 // tbf
	scheduler  uint32 = 2 << 16 // htb
	firstNetem        = 0x100
)

func classHandle(class uint16) uint32 { return scheduler | uint32(class) }
func (l *leaf) netemHandle() uint32   { return uint32(firstNetem+2*l.number) << 16 }
func (l *leaf) queueHandle() uint32   { return uint32(firstNetem+2*l.number+1) << 16 }

// Attributes and constants of linux/pkt_sched.h and linux/rtnetlink.h that golang.org/x/sys/unix doesn't have.
const (
	tcaKind, tcaOptions, tcaStats2, tcaStab = 1, 2, 7, 8
	tcaStabBase                             = 1

	tbfParms, tbfRate64, tbfBurst = 1, 4, 6

	htbParms, htbInit, htbDirectQlen, htbRate64, htbCeil64 = 1, 2, 5, 6, 7
	htbVersion                                             = 3

	netemCorr, netemDelayDist, netemReorder, netemCorrupt, netemLoss, netemRate, netemEcn = 1, 2, 3, 4, 5, 6, 7
	netemRate64, netemLatency64, netemJitter64                                            = 8, 10, 11
	netemLossGilbertElliot                                                                = 2

	ethernet = 1 // TC_LINKLAYER_ETHERNET: rates need no tables
)

// packed lays fixed-size values out one after the other, as the kernel's structures are.
func packed(values ...any) []byte {
	var b []byte
	for _, v := range values {
		b, _ = binary.Append(b, binary.NativeEndian, v) // of fixed size, all of them
	}
	return b
}

// ticks is a duration in the unit of the traffic control's older structures, 64 ns.
func ticks(d time.Duration) uint32 { return uint32(min(max(d>>6, 1), math.MaxUint32)) }

// low is a rate in bytes per second as far as its old 32-bit field can hold it; another attribute has it whole.
func low(rate uint64) uint32 { return uint32(min(rate, math.MaxUint32)) }

// rateSpec is a struct tc_ratespec.
func rateSpec(rate uint64) []byte {
	return packed(uint8(0), uint8(ethernet), uint16(0), int16(0), uint16(0), low(rate))
}

// link is a data link whose tree is worked on: the requests are gathered.
type link struct {
	index int
	rtnetlink.Batch
}

// gather begins to work on the tree of a link. What is sent at once has to fit into the socket, and so have the answers.
func gather(index int) *link {
	return &link{index: index, Batch: rtnetlink.Batch{MaxRequests: 128, MaxBytes: 64 << 10}}
}

// do sends what has been gathered. Where the kernel refuses something it refuses most of what builds on it too, so only the
// first refusal is told.
func (l *link) do(k *rtnetlink.Socket) error {
	err := k.Do(&l.Batch)
	if refused, ok := errors.AsType[*rtnetlink.Refused](err); ok {
		return refused.First
	}
	return err
}

// object asks for a queueing discipline or a class: it is made, or changed where it is there already.
func (l *link) object(what string, message int, handle, parent uint32, kind string, options *nl.RtAttr, more ...*nl.RtAttr) {
	request := nl.NewNetlinkRequest(message, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Handle: handle, Parent: parent})
	request.AddData(nl.NewRtAttr(tcaKind, nl.ZeroTerminated(kind)))
	if options != nil {
		request.AddData(options)
	}
	for _, a := range more {
		request.AddData(a)
	}
	l.Add(rtnetlink.Step{What: what}, request)
}

// plant makes the root of a tree, with nothing shaped yet.
func (l *link) plant(mtu int) {
	options := nl.NewRtAttr(tcaOptions, nil)
	// Its own queue is replaced by the scheduler at once.
	options.AddRtAttr(tbfParms, packed(rateSpec(unlimited), rateSpec(0), uint32(1<<20), uint32(1), uint32(0)))
	options.AddRtAttr(tbfRate64, packed(unlimited))
	options.AddRtAttr(tbfBurst, packed(uint32(mtu+ethernetHeader)))
	// Bandwidth is counted over IP packets: the size of a packet is without its Ethernet header.
	stab := nl.NewRtAttr(tcaStab, nil)
	stab.AddRtAttr(tcaStabBase, packed(uint8(0), uint8(0), int16(0), int32(-ethernetHeader), uint32(ethernet), uint32(0), uint32(0), uint32(0)))
	l.object("cutting packets to size (sch_tbf)", unix.RTM_NEWQDISC, segmenter, rootParent, "tbf", options, stab)

	options = nl.NewRtAttr(tcaOptions, nil)
	options.AddRtAttr(htbInit, packed(uint32(htbVersion), uint32(10), uint32(0), uint32(0), uint32(0)))
	options.AddRtAttr(htbDirectQlen, packed(uint32(generous)))
	l.object("sharing bandwidth (sch_htb)", unix.RTM_NEWQDISC, scheduler, segmenter|1, "htb", options)
}

const (
	rootParent     = math.MaxUint32
	ethernetHeader = 14
)

// uproot takes a tree away, with all packets in it.
func (l *link) uproot() {
	request := nl.NewNetlinkRequest(unix.RTM_DELQDISC, 0)
	request.AddData(&nl.TcMsg{Ifindex: int32(l.index), Parent: rootParent})
	l.Add(rtnetlink.Step{What: "no longer shaping", Done: unix.ENOENT}, request)
}

// class makes or changes a class of the scheduler; rates are in bytes per second and bursts in bytes.
func (l *link) class(class uint16, parent uint32, rate, ceiling uint64, burst int64) {
	options := nl.NewRtAttr(tcaOptions, nil)
	buffer := ticks(time.Duration(mulDiv(uint64(burst), uint64(time.Second), rate)))
	options.AddRtAttr(htbParms, packed(rateSpec(rate), rateSpec(ceiling), buffer, buffer, uint32(quantum), uint32(0), uint32(0)))
	options.AddRtAttr(htbRate64, packed(rate))
	options.AddRtAttr(htbCeil64, packed(ceiling))
	l.object("sharing bandwidth (sch_htb)", unix.RTM_NEWTCLASS, classHandle(class), parent, "htb", options)
}

// quantum is how many bytes a leaf sends before another one of the same lane has its turn.
const quantum = 1514

// mulDiv is a·b/c without overflow, as large as it can be.
func mulDiv(a, b, c uint64) uint64 {
	high, low := bits.Mul64(a, b)
	if high >= c {
		return math.MaxInt64
	}
	result, _ := bits.Div64(high, low, c)
	return min(result, math.MaxInt64)
}

// lane makes or changes a lane.
func (l *link) lane(of *lane) {
	rate := unlimited
	if of.rate > 0 {
		rate = max(uint64(of.rate)/8, 1)
	}
	l.class(of.class, scheduler, rate, rate, burst(of.rate))
}

// leaf makes or changes the leaf of a path, its class when it is fresh.
func (l *link) leaf(s leafStep) {
	if s.fresh {
		// In a lane with a limit it has next to nothing of its own and borrows the lane's, up to all of it.
		own := unlimited
		if s.lane.rate > 0 {
			own = 1
		}
		l.class(s.class, classHandle(s.lane.class), own, unlimited, 1)
	}
	l.object("delay and loss (sch_netem)", unix.RTM_NEWQDISC, s.netemHandle(), classHandle(s.class), "netem", netemOptions(s.path))
	if s.lane.rate > 0 {
		l.object("waiting for bandwidth (sch_pfifo)", unix.RTM_NEWQDISC, s.queueHandle(), s.netemHandle()|1, "pfifo",
			nl.NewRtAttr(tcaOptions, packed(uint32(s.path.Queue))))
	}
}

// netemOptions are those of a path. Every attribute is there, also where nothing is asked: the kernel keeps what a change
// doesn't name.
func netemOptions(p links.Path) *nl.RtAttr {
	gap := uint32(0)
	if p.Reorder > 0 {
		gap = 1 // any packet may be one that overtakes
	}
	loss := share(p.Loss)
	options := nl.NewRtAttr(tcaOptions, nil)
	if p.Loss > 0 && p.Loss < 1 && p.LossCorrelation > 0 {
		begin, end := gilbert(p.Loss, p.LossCorrelation)
		options.AddRtAttr(netemLoss, nil).AddRtAttr(netemLossGilbertElliot, packed(share(begin), share(end), uint32(0), uint32(0)))
		loss = 0
	}
	// A struct tc_netem_qopt, which stands before all attributes.
	options.Data = packed(uint32(0), limit(p), loss, gap, uint32(0), uint32(0))
	options.AddRtAttr(netemLatency64, packed(int64(p.Latency)))
	options.AddRtAttr(netemJitter64, packed(int64(p.Jitter)))
	if p.Jitter > 0 {
		options.AddRtAttr(netemDelayDist, packed(tableOf(p.Distribution)[:]))
	}
	options.AddRtAttr(netemCorr, packed(uint32(0), uint32(0), uint32(0)))
	options.AddRtAttr(netemReorder, packed(share(correlated(p.Reorder, p.ReorderCorrelation)), share(p.ReorderCorrelation)))
	options.AddRtAttr(netemCorrupt, packed(share(correlated(p.Corrupt, p.CorruptCorrelation)), share(p.CorruptCorrelation)))
	// With a rate, however high, no packet leaves before the one before it: jitter alone doesn't reorder.
	options.AddRtAttr(netemRate, packed(low(unlimited), int32(0), uint32(0), int32(0)))
	options.AddRtAttr(netemRate64, packed(unlimited))
	options.AddRtAttr(netemEcn, packed(uint32(0)))
	return options
}

// counters are what the kernel has counted at a queueing discipline.
type counters struct{ packets, dropped uint32 }

// netems reads the counters of all netems of a link, by handle.
func netems(k *rtnetlink.Socket, index int) (map[uint32]counters, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
	request.AddData(&nl.TcMsg{Ifindex: int32(index)})
	found := map[uint32]counters{}
	err := k.Query(request, func(payload []byte) {
		message := nl.DeserializeTcMsg(payload)
		attributes, _ := nl.ParseRouteAttr(payload[message.Len():])
		var c counters
		kind := ""
		for _, a := range attributes {
			switch a.Attr.Type {
			case tcaKind:
				kind = nl.BytesToString(a.Value)
			case tcaStats2:
				c = readCounters(a.Value)
			}
		}
		if int(message.Ifindex) == index && kind == "netem" {
			found[message.Handle] = c
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the counters of the kernel's shaping: %w", err)
	}
	return found, nil
}

// readCounters reads a TCA_STATS2.
func readCounters(stats []byte) (c counters) {
	const basic, queue = 1, 3 // bytes (64 bits) and packets; length, backlog and drops
	attributes, _ := nl.ParseRouteAttr(stats)
	for _, a := range attributes {
		switch {
		case a.Attr.Type == basic && len(a.Value) >= 12:
			c.packets = binary.NativeEndian.Uint32(a.Value[8:])
		case a.Attr.Type == queue && len(a.Value) >= 12:
			c.dropped = binary.NativeEndian.Uint32(a.Value[8:])
		}
	}
	return c
}
