package prober

import (
	"slices"
	"testing"
)

func TestPacketsSayWhoTheyAre(t *testing.T) {
	for _, size := range []int{words * wordSize, 37, 48, 1000} {
		payload := make([]byte, size)
		fill(payload, 0xfeedfacecafebeef, 77)
		if number, intact, ok := read(payload, 0xfeedfacecafebeef); number != 77 || !intact || !ok {
			t.Errorf("%d bytes: number %d, intact %v, %v", size, number, intact, ok)
		}
		if _, _, ok := read(payload, 1); ok {
			t.Errorf("%d bytes: taken for one of another series", size)
		}
		for bit := range 8 * size {
			damaged := slices.Clone(payload)
			damaged[bit/8] ^= 1 << (bit % 8)
			if number, intact, ok := read(damaged, 0xfeedfacecafebeef); number != 77 || intact || !ok {
				t.Errorf("%d bytes, bit %d flipped: number %d, intact %v, %v", size, bit, number, intact, ok)
			}
		}
	}
	for _, short := range []int{0, 1, words*wordSize - 1} {
		if _, _, ok := read(make([]byte, short), 0); ok {
			t.Errorf("%d bytes are a packet", short)
		}
	}
}

func FuzzRead(f *testing.F) {
	good := make([]byte, 100)
	fill(good, 5, 9)
	f.Add(good, uint64(5))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, payload []byte, key uint64) {
		number, intact, ok := read(payload, key)
		if !intact || !ok {
			return
		}
		again := make([]byte, len(payload))
		fill(again, key, number)
		if !slices.Equal(again, payload) {
			t.Errorf("%x is not what %d would be", payload, number)
		}
	})
}
