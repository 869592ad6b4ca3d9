package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/activity"

	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/elasticsearch"
	"github.com/groundplan/groundplan/activities/export"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Activities is what the activities need. Its exported fields are set before Register and not changed after it.
type Activities struct {
	// Home is the state folder: run folders are below it.
	Home runs.Home
	// Grounds are the places where runs can happen, by the name that stage.Run gives: "local", "kubernetes".
	Grounds map[string]Ground
	// Builder makes artifacts; an *artifacts.Store.
	Builder Builder
	// Versions goes into every record: what the run was made with.
	Versions map[string]string
	// Elasticsearch is the service that logs are pushed to; without a URL when none is configured.
	Elasticsearch elasticsearch.Server
	// Exports are where exported metrics are sent.
	Exports export.Targets
}

// Builder makes artifacts, each at most once. An error means that it isn't known whether the artifact can be made;
// what is known about it is an *artifacts.Fault.
type Builder interface {
	Build(ctx context.Context, order artifacts.Order) (stage.Artifact, error)
}

// Registry is the part of a Temporal worker that Register needs.
type Registry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

// Register makes every activity known to a worker, under the names that package stage lists.
func Register(r Registry, a *Activities) {
	for name, function := range map[string]any{
		stage.ActivityBuild:    a.Build,
		stage.ActivitySchedule: a.Schedule,
		stage.ActivityNetwork:  a.Network,
		stage.ActivityRun:      a.Run,
		stage.ActivityCollect:  a.Collect,
		stage.ActivityHalt:     a.Halt,
		stage.ActivityRelease:  a.Release,
		stage.ActivityRecord:   a.Record,
		stage.ActivityResolve:  a.Resolve,
		stage.ActivityTake:     a.Take,
		stage.ActivityEvaluate: a.Evaluate,
	} {
		r.RegisterActivityWithOptions(function, activity.RegisterOptions{Name: name})
	}
}

// ground is where a run happens; the second result is why there is no such place here.
func (a *Activities) ground(run stage.Run) (Ground, string) {
	if g := a.Grounds[run.Ground]; g != nil {
		return g, ""
	}
	var known []string
	for name := range a.Grounds {
		known = append(known, name)
	}
	slices.Sort(known)
	return nil, fmt.Sprintf("this worker has no ground %q; it has %s", run.Ground, strings.Join(known, ", "))
}

// folder is the run's folder.
func (a *Activities) folder(run stage.Run) runs.Folder { return a.Home.Run(run.ID) }
