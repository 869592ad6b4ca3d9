//go:build linux

package keeper

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Programs starts what instances run and says how it ends: as children of this process, or through the supervisor of
// each pod. At a slot one program runs at a time. Its methods are called from many goroutines at once.
type Programs interface {
	// Start starts a program at a slot and returns once it runs. ended is called once, when it has been reaped; it must
	// return at once and may be called before Start returns. Start converges: of a program with the same Key and Starts
	// it starts no second one, whoever asked for the first, and says what is known of that.
	Start(slot int, p Program, ended func(Exit)) (Started, error)
	// Signal sends a signal to the process group of what runs at a slot, and does nothing where nothing does.
	Signal(slot int, what unix.Signal) error
	// Clear kills whatever runs at those slots, started by Start or by what was, and returns how many processes are left
	// when ctx ends.
	Clear(ctx context.Context, slots []int) (left int, err error)
	// Folders are where the program at a slot finds its outputs and its temporary folder, in its own view.
	Folders(slot int) (outputs, temp string)
	// Outputs opens the folder of outputs as this process sees it. What is in it is the plan's own: links in it may lead
	// anywhere, and only a Root keeps them inside. The caller closes it.
	Outputs(slot int) (*os.Root, error)
}

// Program is one start of an instance's program.
type Program struct {
	// Key is the stage's, and Starts counts the starts of this instance in it, this one counted in.
	Key    string
	Starts int
	Path   string
	Args   []string // the name of the program first
	Env    []string
	// Held says that it is to be stopped (SIGSTOP) right after its start, until it is sent SIGCONT.
	Held bool
}

// Started is what is known of a program that runs, or ran.
type Started struct {
	At time.Time
	// Stdout and Stderr are where its own part of stdout.log and stderr.log begins, in bytes.
	Stdout, Stderr int64
}

// Exit is how a program ended.
type Exit struct {
	At     time.Time
	Status unix.WaitStatus
	// PeakMemory is the largest resident set in bytes, CPU user and system time in seconds.
	PeakMemory int64
	CPU        float64
	// Lost is why nobody knows how it ended, in a sentence: its pod was evicted, its node is gone. Empty when it is known.
	// The ground is at fault then, not the subject.
	Lost string
}
