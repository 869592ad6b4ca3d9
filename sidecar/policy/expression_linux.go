package policy

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// expression writes one expression of a rule.
type expression func(b *batch)

// The verdicts that x/sys has no names for.
const (
	verdictDrop   = 0
	verdictAccept = 1
)

// verdict is what becomes of a packet: it is dropped or accepted, or goes on in a chain.
type verdict struct {
	code  int32
	chain string
}

func accept() verdict             { return verdict{code: verdictAccept} }
func drop() verdict               { return verdict{code: verdictDrop} }
func jump(chain string) verdict   { return verdict{unix.NFT_JUMP, chain} }
func follow(chain string) verdict { return verdict{unix.NFT_GOTO, chain} }

func (b *batch) verdict(v verdict) {
	b.nest(unix.NFTA_DATA_VERDICT, func() {
		b.number(unix.NFTA_VERDICT_CODE, uint32(v.code))
		if v.chain != "" {
			b.text(unix.NFTA_VERDICT_CHAIN, v.chain)
		}
	})
}

func named(name string, attributes func(b *batch)) expression {
	return func(b *batch) {
		b.text(unix.NFTA_EXPR_NAME, name)
		b.nest(unix.NFTA_EXPR_DATA, func() { attributes(b) })
	}
}

// register is a number of 4 bytes of a rule's scratch space, from 0.
func register(n uint32) uint32 { return unix.NFT_REG32_00 + n }

// meta loads what is known of a packet beside its bytes.
func meta(key, into uint32) expression {
	return named("meta", func(b *batch) {
		b.number(unix.NFTA_META_DREG, into)
		b.number(unix.NFTA_META_KEY, key)
	})
}

// setMark gives the packet the mark that a register has.
func setMark(from uint32) expression {
	return named("meta", func(b *batch) {
		b.number(unix.NFTA_META_SREG, from)
		b.number(unix.NFTA_META_KEY, unix.NFT_META_MARK)
	})
}

// load takes bytes of the network or transport header. A rule ends where there are none.
func load(base, offset, length, into uint32) expression {
	return named("payload", func(b *batch) {
		b.number(unix.NFTA_PAYLOAD_DREG, into)
		b.number(unix.NFTA_PAYLOAD_BASE, base)
		b.number(unix.NFTA_PAYLOAD_OFFSET, offset)
		b.number(unix.NFTA_PAYLOAD_LEN, length)
	})
}

// equal goes on when a register has a value; unequal, when it has another.
func equal(register uint32, value ...byte) expression { return cmp(unix.NFT_CMP_EQ, register, value) }

func unequal(register uint32, value ...byte) expression {
	return cmp(unix.NFT_CMP_NEQ, register, value)
}

func cmp(how, register uint32, value []byte) expression {
	return named("cmp", func(b *batch) {
		b.number(unix.NFTA_CMP_SREG, register)
		b.number(unix.NFTA_CMP_OP, how)
		b.nest(unix.NFTA_CMP_DATA, func() { b.value(unix.NFTA_DATA_VALUE, value) })
	})
}

// and keeps bits of a register.
func and(register uint32, mask ...byte) expression {
	return named("bitwise", func(b *batch) {
		b.number(unix.NFTA_BITWISE_SREG, register)
		b.number(unix.NFTA_BITWISE_DREG, register)
		b.number(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		b.nest(unix.NFTA_BITWISE_MASK, func() { b.value(unix.NFTA_DATA_VALUE, mask) })
		b.nest(unix.NFTA_BITWISE_XOR, func() { b.value(unix.NFTA_DATA_VALUE, make([]byte, len(mask))) })
	})
}

// put gives a register a value.
func put(register uint32, value []byte) expression {
	return named("immediate", func(b *batch) {
		b.number(unix.NFTA_IMMEDIATE_DREG, register)
		b.nest(unix.NFTA_IMMEDIATE_DATA, func() { b.value(unix.NFTA_DATA_VALUE, value) })
	})
}

// decide ends with a verdict.
func decide(v verdict) expression {
	return named("immediate", func(b *batch) {
		b.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		b.nest(unix.NFTA_IMMEDIATE_DATA, func() { b.verdict(v) })
	})
}

// in goes on when a set has the key that begins at a register.
func in(set string, key uint32) expression {
	return named("lookup", func(b *batch) {
		b.text(unix.NFTA_LOOKUP_SET, set)
		b.number(unix.NFTA_LOOKUP_SREG, key)
	})
}

// decideBy takes the verdict that a map has for the key that begins at a register, and goes on when it has none.
func decideBy(verdicts string, key uint32) expression {
	return named("lookup", func(b *batch) {
		b.text(unix.NFTA_LOOKUP_SET, verdicts)
		b.number(unix.NFTA_LOOKUP_SREG, key)
		b.number(unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
	})
}

// remember adds the key that begins at a register to a set, or renews it there.
func remember(set string, key uint32) expression {
	return named("dynset", func(b *batch) {
		b.text(unix.NFTA_DYNSET_SET_NAME, set)
		b.number(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
		b.number(unix.NFTA_DYNSET_SREG_KEY, key)
	})
}

// reset answers a TCP packet with RST, prohibited any packet with the ICMP of its family.
func reset() expression {
	return named("reject", func(b *batch) {
		b.number(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST)
		b.value(unix.NFTA_REJECT_ICMP_CODE, []byte{0})
	})
}

func prohibited() expression {
	return named("reject", func(b *batch) {
		b.number(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMPX_UNREACH)
		b.value(unix.NFTA_REJECT_ICMP_CODE, []byte{unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
	})
}

// native is a number as the kernel itself holds it.
func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// fragment loads bytes of the fragment header of IPv6. A rule ends where there is none.
func fragment(offset, length, into uint32) expression {
	return named("exthdr", func(b *batch) {
		b.number(unix.NFTA_EXTHDR_DREG, into)
		b.value(unix.NFTA_EXTHDR_TYPE, []byte{unix.IPPROTO_FRAGMENT})
		b.number(unix.NFTA_EXTHDR_OFFSET, offset)
		b.number(unix.NFTA_EXTHDR_LEN, length)
	})
}
