package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/stage"
)

// buildsAtOnce is how many artifacts of a stage are built side by side; the compiler itself uses every core.
const buildsAtOnce = 2

// Build makes every artifact of the stage. All are tried, so that one look at the result shows every fault.
func (a *Activities) Build(ctx context.Context, in stage.Input) (stage.Result, error) {
	return a.attempt(ctx, in, func(ctx context.Context, report func(stage.Progress)) (stage.Result, error) {
		b := building{activities: a, in: in, report: report, made: map[string]stage.Artifact{}, faults: map[string]*artifacts.Fault{}}
		return b.all(ctx)
	}, nil)
}

// building is the state of one build stage.
type building struct {
	activities *Activities
	in         stage.Input
	report     func(stage.Progress)
	// architecture is that of the ground's machines; empty: this machine's.
	architecture string

	mu     sync.Mutex
	made   map[string]stage.Artifact
	faults map[string]*artifacts.Fault
}

func (b *building) all(ctx context.Context) (stage.Result, error) {
	names := slices.Sorted(maps.Keys(b.in.Stage.Build))
	b.say("")
	why, err := b.look(ctx)
	if err != nil {
		return stage.Result{}, err
	}
	if why != "" {
		return invalid("%s", why), nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(buildsAtOnce)
	for _, name := range names {
		group.Go(func() error { return b.one(ctx, name) })
	}
	if err := group.Wait(); err != nil {
		return stage.Result{}, err
	}
	return b.result(names), nil
}

// architect is a ground whose machines may be others than this one.
type architect interface {
	// Architecture is that of the machines which instances of a run go to, as Go names it; empty: this machine's, or not to
	// be known. The string is why nothing can be built for them.
	Architecture(ctx context.Context, run stage.Run) (architecture, why string, err error)
}

// look finds out what is to be built for. The string is why that can't be.
func (b *building) look(ctx context.Context) (why string, err error) {
	ground, _ := b.activities.ground(b.in.Run)
	asked, can := ground.(architect)
	if !can {
		return "", nil
	}
	b.architecture, why, err = asked.Architecture(ctx, b.in.Run)
	return why, err
}

// result sums up what became of the artifacts. What a source is at fault for is the verdict, whatever else was away.
func (b *building) result(names []string) stage.Result {
	result := stage.Result{Verdict: stage.Passed, Artifacts: b.made}
	var reasons []string
	for _, name := range names {
		fault := b.faults[name]
		if fault == nil {
			continue
		}
		if !fault.Invalid {
			result.Verdict = stage.Failed
		} else if result.Verdict == stage.Passed {
			result.Verdict = stage.Invalid
		}
		reasons = append(reasons, fmt.Sprintf("artifact %s can't be built: %s", name, fault.Reason))
	}
	result.Reason = strings.Join(reasons, "; ")
	return result
}

// one makes one artifact; a fault of it is not an error.
func (b *building) one(ctx context.Context, name string) error {
	artifact, err := b.activities.Builder.Build(ctx, artifacts.Order{
		Name:         name,
		Source:       b.in.Stage.Build[name],
		Root:         b.in.Run.Root,
		Images:       b.in.Run.Ground != "local",
		Architecture: b.architecture,
		Log:          b.activities.folder(b.in.Run).BuildLog(name),
		Note:         b.say,
	})
	if err == nil {
		artifact.Architecture = b.architecture
		artifact, err = b.pack(ctx, artifact)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var fault *artifacts.Fault
	switch {
	case errors.As(err, &fault):
		b.faults[name] = fault
	case err != nil:
		return fmt.Errorf("artifact %s: %w", name, err)
	default:
		b.made[name] = artifact
	}
	b.report(stage.Progress{Total: len(b.in.Stage.Build), Succeeded: len(b.made), Failed: len(b.faults), Note: "built " + name})
	return nil
}

// pack has the ground take what was made.
func (b *building) pack(ctx context.Context, artifact stage.Artifact) (stage.Artifact, error) {
	ground, why := b.activities.ground(b.in.Run)
	if why != "" {
		return artifact, &artifacts.Fault{Invalid: true, Reason: why}
	}
	packed, why, err := ground.Pack(ctx, artifact)
	if err == nil && why != "" {
		err = &artifacts.Fault{Reason: why}
	}
	return packed, err
}

// say reports what is being done.
func (b *building) say(note string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report(stage.Progress{Total: len(b.in.Stage.Build), Succeeded: len(b.made), Failed: len(b.faults), Note: note})
}
