// Package activities carries out the five kinds of stages. Each is a file; each converges: it reads what is there, adds
// what is missing, and can be killed at any instruction and asked again. Where instances live is behind Ground.
package activities

import (
	"context"

	"github.com/groundplan/groundplan/activities/stage"
)

// Ground is where instances live: processes on this machine, pods on a cluster. Every method converges, obeys its
// context, and calls report with counts as they change, from one goroutine.
//
// An error means that the answer is not known and that the same call may be tried again (a worker on its way out, a
// connection refused). What is known goes into the result: a verdict and a reason.
type Ground interface {
	// Pack makes an artifact ready to be placed here: a file is one on this machine, and an image that nodes can pull on
	// a cluster. The string is why it can't be, for a person; the artifact is at fault then.
	Pack(ctx context.Context, artifact stage.Artifact) (packed stage.Artifact, why string, err error)
	// Schedule brings every instance of the stage's groups to the gate.
	Schedule(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error)
	// Network sets the state of the data network.
	Network(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error)
	// Run opens the gate and waits until every instance has an outcome.
	Run(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error)
	// Gather brings the outputs of all instances, and what became of each, into the run's folder.
	Gather(ctx context.Context, in stage.Input, report func(stage.Progress)) error
	// Halt ends every process of the instances and keeps their places. It returns once they are gone.
	Halt(ctx context.Context, run stage.Run) error
	// HaltStage is Halt for what one run stage started, whatever its attempt; other stages go on.
	HaltStage(ctx context.Context, in stage.Input) error
	// Release gives everything back: processes, networks, temporary files. It returns once all is gone.
	Release(ctx context.Context, run stage.Run) error
}
