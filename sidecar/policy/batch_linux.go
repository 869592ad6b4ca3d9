package policy

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// batch is a transaction of nftables being written: the kernel takes all of it or nothing.
type batch struct {
	bytes []byte
	// what says of every message, by its sequence number, what it is for.
	what []string
	open int // where the message being written began
	// cuts are where the batch may be divided.
	cuts []int
}

// step begins something that only belongs together as a whole.
func (b *batch) step() { b.cuts = append(b.cuts, len(b.bytes)) }

// steps are the parts that may be sent by themselves, in their order.
func (b *batch) steps() []part {
	var all []part
	from := 0
	for _, to := range append(b.cuts, len(b.bytes)) {
		if from < to {
			all = append(all, part{from, to})
		}
		from = to
	}
	return all
}

// message writes one: kind is one of NFT_MSG_*.
func (b *batch) message(kind, flags uint16, what string, attributes func()) {
	b.begin(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, unix.NFPROTO_INET, 0, what)
	b.text(tableAttribute, tableName)
	attributes()
	b.end()
}

// tableAttribute is NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE and so on alike.
const tableAttribute = 1

func (b *batch) begin(kind, flags uint16, family byte, resource uint16, what string) {
	b.open = len(b.bytes)
	b.bytes = append(b.bytes, 0, 0, 0, 0)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, unix.NLM_F_REQUEST|flags)
	b.bytes = binary.NativeEndian.AppendUint32(b.bytes, uint32(len(b.what)))
	b.bytes = append(b.bytes, 0, 0, 0, 0, family, unix.NFNETLINK_V0)
	b.bytes = binary.BigEndian.AppendUint16(b.bytes, resource)
	b.what = append(b.what, what)
}

func (b *batch) end() {
	binary.NativeEndian.PutUint32(b.bytes[b.open:], uint32(len(b.bytes)-b.open))
}

func (b *batch) value(kind uint16, value []byte) {
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, uint16(unix.SizeofNlAttr+len(value)))
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	b.bytes = append(b.bytes, value...)
	b.pad()
}

func (b *batch) pad() {
	for len(b.bytes)%unix.NLA_ALIGNTO != 0 {
		b.bytes = append(b.bytes, 0)
	}
}

func (b *batch) text(kind uint16, text string) {
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, uint16(unix.SizeofNlAttr+len(text)+1))
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	b.bytes = append(append(b.bytes, text...), 0)
	b.pad()
}

func (b *batch) number(kind uint16, n uint32) {
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, unix.SizeofNlAttr+4)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	b.bytes = binary.BigEndian.AppendUint32(b.bytes, n)
}

func (b *batch) long(kind uint16, n uint64) { b.value(kind, binary.BigEndian.AppendUint64(nil, n)) }

func (b *batch) nest(kind uint16, attributes func()) {
	start := len(b.bytes)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, 0)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, unix.NLA_F_NESTED|kind)
	attributes()
	binary.NativeEndian.PutUint16(b.bytes[start:], uint16(len(b.bytes)-start))
}

// table makes the table; it is there already or not.
func (b *batch) table() {
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "creating the table", func() {})
}

// newTable makes the table, and is refused where there is one.
func (b *batch) newTable() {
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "creating the table", func() {})
}

func (b *batch) deleteTable() {
	b.message(unix.NFT_MSG_DELTABLE, 0, "deleting the table", func() {})
}

// chain makes a chain that others lead to.
func (b *batch) chain(name string) {
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, "creating the chain "+name, func() { b.text(unix.NFTA_CHAIN_NAME, name) })
}

// entrance makes a chain that packets come in by, from that hook of the kernel's.
func (b *batch) entrance(name string, hook uint32, priority int32) {
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, "creating the chain "+name, func() {
		b.text(unix.NFTA_CHAIN_NAME, name)
		b.nest(unix.NFTA_CHAIN_HOOK, func() {
			b.number(unix.NFTA_HOOK_HOOKNUM, hook)
			b.number(unix.NFTA_HOOK_PRIORITY, uint32(priority))
		})
		b.number(unix.NFTA_CHAIN_POLICY, verdictAccept)
		b.text(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

func (b *batch) deleteChain(name string) {
	b.message(unix.NFT_MSG_DELCHAIN, 0, "deleting the chain "+name, func() { b.text(unix.NFTA_CHAIN_NAME, name) })
}

// empty takes the rules of a chain away.
func (b *batch) empty(chain string) {
	b.message(unix.NFT_MSG_DELRULE, 0, "emptying the chain "+chain, func() { b.text(unix.NFTA_RULE_CHAIN, chain) })
}

// rule appends a rule to a chain.
func (b *batch) rule(chain string, expressions ...expression) {
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, "adding a rule to the chain "+chain, func() {
		b.text(unix.NFTA_RULE_CHAIN, chain)
		b.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
			for _, e := range expressions {
				b.nest(unix.NFTA_LIST_ELEM, func() { e(b) })
			}
		})
	})
}

// set is a set, or a map to verdicts.
type set struct {
	name     string
	key      uint32 // the length of its keys in bytes
	keyType  uint32 // for what nft prints
	interval bool
	verdicts bool
	// size and timeout (in ms) are of a set that packets add to.
	size    uint32
	timeout uint64
}

// What nft knows types of keys by; it prints others in hexadecimal.
const (
	typeIPv4  = 7
	typeIPv6  = 8
	typeIndex = 20
)

func (b *batch) set(s set) {
	b.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, "creating the set "+s.name, func() {
		flags := uint32(0)
		b.text(unix.NFTA_SET_NAME, s.name)
		b.number(unix.NFTA_SET_ID, uint32(len(b.what)))
		b.number(unix.NFTA_SET_KEY_TYPE, s.keyType)
		b.number(unix.NFTA_SET_KEY_LEN, s.key)
		if s.interval {
			flags |= unix.NFT_SET_INTERVAL
		}
		if s.verdicts {
			flags |= unix.NFT_SET_MAP
			b.number(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		}
		if s.timeout > 0 {
			flags |= unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
			b.long(unix.NFTA_SET_TIMEOUT, s.timeout)
			b.nest(unix.NFTA_SET_DESC, func() { b.number(unix.NFTA_SET_DESC_SIZE, s.size) })
		}
		b.number(unix.NFTA_SET_FLAGS, flags)
	})
}

func (b *batch) deleteSet(name string) {
	b.message(unix.NFT_MSG_DELSET, 0, "deleting the set "+name, func() { b.text(unix.NFTA_SET_NAME, name) })
}

// element is one of a set: without a verdict it is of a plain set, or the end of an interval.
type element struct {
	key     []byte
	verdict *verdict
	end     bool // the first key behind an interval
}

// maxElements bounds the elements of a message: a list of more than 64 KiB can't be written.
const maxElements = 400

func (b *batch) add(set string, elements []element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "adding to the set "+set, set, elements)
}

func (b *batch) remove(set string, elements []element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, "taking from the set "+set, set, elements)
}

func (b *batch) elements(kind, flags uint16, what, set string, elements []element) {
	for len(elements) > 0 {
		some := elements[:min(len(elements), maxElements)]
		elements = elements[len(some):]
		b.message(kind, flags, what, func() {
			b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
			b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				for _, e := range some {
					b.nest(unix.NFTA_LIST_ELEM, func() { b.element(e) })
				}
			})
		})
	}
}

func (b *batch) element(e element) {
	b.nest(unix.NFTA_SET_ELEM_KEY, func() { b.value(unix.NFTA_DATA_VALUE, e.key) })
	if e.end {
		b.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	if e.verdict != nil {
		b.nest(unix.NFTA_SET_ELEM_DATA, func() { b.verdict(*e.verdict) })
	}
}
