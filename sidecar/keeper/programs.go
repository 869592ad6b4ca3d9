//go:build linux

package keeper

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
)

// Programs starts what instances run and says how it ends: as children of this process, or through the supervisor of
// each pod. At a slot one program runs at a time. Its methods are called from many goroutines at once.
type Programs interface {
	// Place gets ready to start programs at homes, before they are put on the network: it makes their folders, or reaches
	// their pods. Error i belongs to home i. It is called with each placement, also for homes that are ready: it
	// converges. A home whose pod has another UID than before replaces the one at its slot.
	Place(ctx context.Context, homes []Home) []error
	// Start starts a program at a slot and returns once it runs. ended is called once, when it has been reaped; it must
	// return at once and may be called before Start returns. Start converges: of a program with the same Key and Starts
	// it starts no second one, whoever asked for the first, and says what is known of that: ended is called for it, at
	// once where it has ended already. An error that is a *Lost says that there is nothing any more to start it in.
	Start(slot int, p Program, ended func(Exit)) (Started, error)
	// Signal sends a signal to the process group of what runs at a slot, and does nothing where nothing does.
	Signal(slot int, what unix.Signal) error
	// SignalAll sends a signal to every process at those slots, also to those that have left their group.
	SignalAll(slots []int, what unix.Signal) error
	// Clear kills whatever runs at those slots, started by Start or by what was, and returns how many processes are left
	// when ctx ends. Where a pod is gone, none are.
	Clear(ctx context.Context, slots []int) (left int, err error)
	// Folders are where the program at a slot finds its outputs and its temporary folder, in its own view.
	Folders(slot int) (outputs, temp string)
	// Outputs opens the folder of outputs as this process sees it. What is in it is the plan's own: links in it may lead
	// anywhere, and only a Root keeps them inside. The caller closes it.
	Outputs(slot int) (*os.Root, error)
}

// Home is where an instance lives.
type Home struct {
	Slot  int
	Group string
	Index int
	// Pod is its pod; the zero value where it is a child of this process.
	Pod control.Pod
}

// Program is one start of an instance's program.
type Program struct {
	// Key is the stage's, and Starts counts the starts of this instance in it, this one counted in.
	Key    string
	Starts int
	// Path is, in a pod, looked up in the image's PATH where it has no slash.
	Path string
	Args []string // the name of the program first
	// Env is the whole environment, sorted. In a pod it is laid over the image's own, whose PATH it leaves as it is.
	Env []string
	// Held says that it is to be stopped (SIGSTOP) right after its start, until it is sent SIGCONT.
	Held bool
}

// Started is what is known of a program that runs, or ran.
type Started struct {
	At time.Time
	// Stdout and Stderr are where its own part of stdout.log and stderr.log begins, in bytes. Copies of them under the
	// plan's own names, run.out and run.err, that an earlier stage got by a hard link are taken away before, or the plan
	// would write every line twice into one file.
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

// Lost is the error of a start for which there is no place any more.
type Lost struct {
	Why string // as Exit.Lost
}

func (l *Lost) Error() string { return l.Why }

// What follows are talents that Programs may have besides.

// letsGo lets go of everything that is held at once. Slots are all at which something runs. It says when it did, and
// whether it could.
type letsGo interface {
	LetGo(slots []int) (at time.Time, done bool)
}

// rouser lets go of processes at those slots that are still stopped, and returns how many there were.
type rouser interface {
	Rouse(slots []int) (int, error)
}

// looker notes how much memory what runs at a slot takes. It is called now and then.
type looker interface{ Look(slot int) }

// forgetter forgets a home that is on another node from now on.
type forgetter interface{ Forget(slot int) }
