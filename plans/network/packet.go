package main

import (
	"bytes"
	"encoding/binary"
)

// A packet is one word over and over: the key of its series and its number. So it can be told what it was whatever has
// become of a part of it.
const (
	wordSize = 12
	// smallest is the size of the smallest packet: three words, of which two have to be as they were sent.
	smallest = 3 * wordSize
	largest  = 1452 // fits into 1,500 bytes with the headers of IPv6 and UDP
)

// echoed marks the keys of packets that are to be sent back.
const echoed = 1 << 63

func fill(packet []byte, key uint64, number int) {
	var word [wordSize]byte
	binary.BigEndian.PutUint64(word[:], key)
	binary.BigEndian.PutUint32(word[8:], uint32(number))
	for at := 0; at < len(packet); {
		at += copy(packet[at:], word[:])
	}
}

// read says which packet it is and whether it is as it was sent; ok is false for what is no packet of ours.
func read(packet []byte) (key uint64, number int, intact, ok bool) {
	if len(packet) < smallest {
		return 0, 0, false, false
	}
	a, b, c := packet[:wordSize], packet[wordSize:2*wordSize], packet[2*wordSize:smallest]
	word := a
	switch {
	case bytes.Equal(a, b), bytes.Equal(a, c):
	case bytes.Equal(b, c):
		word = b
	default:
		return 0, 0, false, false
	}
	key, number = binary.BigEndian.Uint64(word), int(binary.BigEndian.Uint32(word[8:]))
	want := make([]byte, len(packet))
	fill(want, key, number)
	return key, number, bytes.Equal(packet, want), true
}
