package prober

import (
	"bytes"
	"encoding/binary"
)

// A probe's payload is one word over and over: the key of the series and the packet's number. So a receiver knows what it
// should have got whatever has become of a part of it.
const (
	wordSize = 12
	words    = 3 // at least so many, so that the number survives when any one of them is damaged
)

// Sizes of IP packets, in bytes.
const (
	headers4 = 20 + 8 // IPv4 and UDP
	headers6 = 40 + 8

	// MinSize is the size of the smallest probe, MaxSize that of the largest: whole packets, IP header and all.
	MinSize = headers6 + words*wordSize
	MaxSize = 1500
)

// fill writes a payload.
func fill(payload []byte, key uint64, number uint32) {
	var word [wordSize]byte
	binary.BigEndian.PutUint64(word[:], key)
	binary.BigEndian.PutUint32(word[8:], number)
	for at := 0; at < len(payload); {
		at += copy(payload[at:], word[:])
	}
}

// read finds out which packet of the series with that key this is, and whether it is as it was sent. ok is false for
// packets of other series and for those damaged beyond recognition.
func read(payload []byte, key uint64) (number uint32, intact, ok bool) {
	if len(payload) < words*wordSize {
		return 0, false, false
	}
	word, ok := majority(payload)
	if !ok || binary.BigEndian.Uint64(word) != key {
		return 0, false, false
	}
	intact = true
	for at := 0; at < len(payload) && intact; at += wordSize {
		rest := payload[at:min(at+wordSize, len(payload))]
		intact = bytes.Equal(rest, word[:len(rest)])
	}
	return binary.BigEndian.Uint32(word[8:]), intact, true
}

// majority is the word that stands at two of the first three places.
func majority(payload []byte) ([]byte, bool) {
	a, b, c := payload[:wordSize], payload[wordSize:2*wordSize], payload[2*wordSize:3*wordSize]
	switch {
	case bytes.Equal(a, b), bytes.Equal(a, c):
		return a, true
	case bytes.Equal(b, c):
		return b, true
	}
	return nil, false
}
