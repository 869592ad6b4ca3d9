package events

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/groundplan/groundplan/pipelines"
)

// Draw says what a choice is drawn by: the same draw gives the same order of a group's instances, in whatever run.
type Draw struct {
	Seed         uint64
	Stage, Event string
}

// Choose returns the indices of those instances of a group that a choice is about, ascending. All is how many of the
// group take part, whose share is rounded to the nearest whole number, but at least one; running are those that still
// run: only they can be chosen. Each instance has its place in one order, so that one more that has ended moves the
// choice by one, and doesn't make it another.
func (d Draw) Choose(c pipelines.Choice, all int, running []int) []int {
	chosen := slices.Clone(running)
	if len(c.Indices) > 0 {
		chosen = slices.DeleteFunc(chosen, func(i int) bool { return !slices.Contains(c.Indices, i) })
		slices.Sort(chosen)
		return chosen
	}
	wanted := c.Count
	switch {
	case c.Share != nil && *c.Share > 0:
		wanted = max(int(math.Round(float64(*c.Share)*float64(all))), 1)
	case c.Share == nil && c.Count == 0:
		wanted = all
	}
	places := make(map[int]uint64, len(chosen))
	for _, i := range chosen {
		places[i] = d.place(c.Group, i)
	}
	slices.SortFunc(chosen, func(a, b int) int {
		if places[a] != places[b] {
			if places[a] < places[b] {
				return -1
			}
			return 1
		}
		return a - b
	})
	chosen = chosen[:min(wanted, len(chosen))]
	slices.Sort(chosen)
	return chosen
}

// place is where an instance stands in the order.
func (d Draw) place(group string, index int) uint64 {
	hash := sha256.New()
	for _, text := range []string{"groundplan event", d.Stage, d.Event, group} {
		hash.Write(binary.BigEndian.AppendUint32(nil, uint32(len(text))))
		hash.Write([]byte(text))
	}
	hash.Write(binary.BigEndian.AppendUint64(nil, d.Seed))
	hash.Write(binary.BigEndian.AppendUint64(nil, uint64(index)))
	return binary.BigEndian.Uint64(hash.Sum(nil))
}
