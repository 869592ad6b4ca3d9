package main

import "time"

// ticks reads the processor's time stamp counter.
func ticks() uint64

// ticksPerMillisecond measures how fast the counter counts. An emulated machine reads the same one, and has no other clock
// good enough to find out by itself: untold it hangs, or gets a clock of 4 ms.
func ticksPerMillisecond() uint64 {
	began, first := time.Now(), ticks()
	time.Sleep(100 * time.Millisecond)
	last := ticks()
	return (last - first) * uint64(time.Millisecond) / uint64(time.Since(began))
}
