// Package keeper is the supervisor next to the instances of a run: it holds their places, opens the gate for each run
// stage, decides what became of each instance, and sees to it that nothing of a stage is left when it ends.
//
// It is written for thousands of processes that are being measured: one goroutine waits for all of them, their output
// goes straight into files, and nothing polls while they run except a slow, spread-out look at their memory.
package keeper
