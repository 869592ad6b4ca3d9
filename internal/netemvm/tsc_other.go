//go:build !amd64

package main

// ticksPerMillisecond is that of the counter which the emulator invents on processors of other kinds.
func ticksPerMillisecond() uint64 { return 1_000_000 }
