// Package errand is what netemvm tells the first process of its virtual machine to do, and how that says how it went.
package errand

// File is where the errand, in JSON, stands in the machine.
const File = "/errand.json"

// Ended is how the last line of a machine begins that has done its errand; the exit status follows it.
const Ended = "guest: exit status "

// Broken is the status of an errand that could not be done.
const Broken = 125

// Errand is a list of modules to load and of programs, with their arguments, to run in order. All are paths in the machine.
type Errand struct {
	Modules  []string
	Programs [][]string
}
